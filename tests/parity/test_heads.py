"""What a detector leaves out is only what nobody reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engines.openvino import OpenVinoEngine
from models import store
from models.catalogue import CATALOGUE, ModelName
from vision.arrays import RGB
from vision.image import letterbox

pytestmark = pytest.mark.weights


@pytest.mark.slow
@pytest.mark.usefixtures("shared")
@pytest.mark.parametrize("name", ["pose_estimator", "threat_detector"])
def test_the_real_heads_say_the_same_of_everything_that_counts(
    name: ModelName, model_store: Path, images: dict[str, RGB]
) -> None:
    stored = store.find(name)
    assert stored is not None
    engine = OpenVinoEngine(stored.graph, "f32", CATALOGUE[name].traits, threads=0)
    classes = 1 if name == "pose_estimator" else len(stored.card.labels)
    counted, incomplete = 0, 0
    pictures = list(images.values())[::5]  # of all 65 it took a minute
    for picture in pictures:
        image = letterbox(picture, 640, 32).image
        expected = np.asarray(engine.run([image])[0][0])
        scores = expected[4 : 4 + classes]
        for min_confidence, images_at_a_time in ((0.25, 2), (0.01, 1)):
            for output in engine.run([image] * images_at_a_time, min_confidence)[0]:
                assert np.array_equal(output[4 : 4 + classes], scores)
                counting = scores.max(axis=0) > min_confidence
                assert np.array_equal(output[:, counting], expected[:, counting])
                counted += int(counting.sum())
                incomplete += not np.array_equal(output, expected)
    assert counted > 10
    assert incomplete > len(pictures)  # or nothing was left out, ever
