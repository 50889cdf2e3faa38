"""What holds for every task."""

from __future__ import annotations

import numpy as np
import pytest

from models.catalogue import CATALOGUE
from tasks import TASKS
from tests.tasks.made import ITEM, MODELS, PET, POSE, REID, THREAT, shape_of


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 3000), (3000, 1), (640, 360)])
def test_every_input_is_of_a_size_that_the_networks_take(width: int, height: int) -> None:
    image = np.zeros((height, width, 3), np.uint8)
    for detector in (POSE, THREAT):
        fitted = shape_of(detector, image)
        assert max(fitted[:2]) <= 640
        assert fitted[0] % 32 == fitted[1] % 32 == 0
    assert shape_of(REID, image) == (256, 128, 3)
    for pet, shape in (
        ({"shortest_edge": 224, "crop_pct": 0.875, "resample": 3}, (224, 224, 3)),
        ({"shortest_edge": 288, "crop_pct": 1.0, "resample": 2}, (288, 288, 3)),
        ({"height": 384, "width": 384, "resample": 3}, (384, 384, 3)),
        ({"height": 192, "width": 256, "resample": 2}, (192, 256, 3)),
    ):
        assert shape_of(PET, image, pet) == shape


def test_the_registry_has_a_task_for_every_model_in_the_catalogues_order() -> None:
    assert list(TASKS) == list(CATALOGUE)
    assert all(task.name == name for name, task in TASKS.items())


def test_a_batch_is_asked_for_what_its_least_demanding_item_wants() -> None:
    assert THREAT.least_confidence([{**ITEM, "min_confidence": 0.9}, ITEM]) == MODELS.threat_detector.min_confidence
    assert THREAT.least_confidence([{**ITEM, "min_confidence": 0.1}, ITEM]) == 0.1
    assert REID.least_confidence([ITEM]) == 0
