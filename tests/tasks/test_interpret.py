"""What each task knows of its model: the input it prepares and what it makes of the outputs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest

from models.card import ModelCard, ModelInput
from models.catalogue import ModelName
from runners.loader import warm_up_shapes
from settings import DEFAULT_FILE, load
from tasks import AnyTask, depth_estimator
from tasks.depth_estimator import DepthEstimator
from tasks.person_reid import PersonReid
from tasks.pet_classifier import PetClassifier
from tasks.picture import Picture
from tasks.pose_estimator import PoseEstimator
from tasks.task import Item, Options
from tasks.threat_detector import ThreatDetector
from tests.serving import fake
from vision.arrays import RGB

MODELS = load(DEFAULT_FILE, {}).models
POSE, THREAT = PoseEstimator(MODELS.pose_estimator), ThreatDetector(MODELS.threat_detector)
REID, PET = PersonReid(MODELS.person_reid), PetClassifier(MODELS.pet_classifier)
DEPTH = DepthEstimator(MODELS.depth_estimator)
ITEM: Item = {"image": np.zeros((1, 1, 3), np.uint8)}


def shape_of(task: AnyTask, image: RGB, model_input: Any = None) -> tuple[int, ...]:
    """The shape of the input that a task makes of a picture."""
    prepared = task.prepare(Picture.of(image, None), Options(), model_input)
    (item,) = prepared.items[:1]
    return item["image"].shape


def card(name: ModelName) -> ModelCard:
    stored = fake.find(name)
    assert stored is not None
    return stored.card


@pytest.mark.parametrize(
    ("size", "shape"),
    [
        ((1920, 1080), (392, 686)),
        ((640, 480), (448, 602)),
        ((500, 500), (518, 518)),
        ((480, 640), (602, 448)),
        ((1080, 1920), (686, 392)),
        ((1, 3000), (686, 392)),
        ((3000, 1), (392, 686)),
        ((1, 1), (518, 518)),
    ],
)
def test_depth_has_five_input_shapes(size: tuple[int, int], shape: tuple[int, int]) -> None:
    assert depth_estimator.input_shape(*size, 518) == shape
    assert shape_of(DEPTH, np.zeros((size[1], size[0], 3), np.uint8)) == (*shape, 3)


@pytest.mark.parametrize("size", [14, 28, 266, 518, 1036])
def test_depths_inputs_are_multiples_of_the_patch_and_about_equal_in_area(size: int) -> None:
    for ratio in depth_estimator.ASPECT_RATIOS:
        height, width = depth_estimator.input_shape(round(1000 * ratio), 1000, size)
        assert height % 14 == width % 14 == 0
        assert height >= 14
        assert size < 100 or height * width == pytest.approx(size**2, rel=0.06)


def test_depth_is_normalised_over_its_whole_map() -> None:
    result = DEPTH.interpret((np.array([[2, 4], [6, 3]], np.float32),), ITEM, card("depth_estimator"))
    assert result["depth"].tolist() == [[0, 0.5], [1, 0.25]]


def test_an_embedding_is_normalised_whatever_its_length() -> None:
    for scale in (1e-20, 1, 1e15):
        outputs = (np.array([3, 4, 0], np.float32) * np.float32(scale),)
        embedding = REID.interpret(outputs, ITEM, card("person_reid"))["embedding"]
        assert embedding.dtype == np.float32
        np.testing.assert_allclose(embedding, [0.6, 0.8, 0], rtol=1e-6)


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf])
def test_an_embedding_without_a_length_is_an_error(bad: float) -> None:
    with pytest.raises(ValueError, match="length"):
        REID.interpret((np.full(512, bad, np.float32),), ITEM, card("person_reid"))


def test_a_pets_probabilities_carry_the_checkpoints_labels_in_its_order() -> None:
    outputs = np.array([1000.0, 1002.0], np.float32), np.zeros(512, np.float32)
    result = PET.interpret(outputs, ITEM, card("pet_classifier"))
    assert result["probabilities"] == pytest.approx({"cats": 0.1192, "dogs": 0.8808}, abs=1e-4)


def test_threats_carry_the_checkpoints_labels() -> None:
    head = np.zeros((8, 4), np.float32)
    head[:4] = np.array([[50, 50, 20, 20], [150, 50, 20, 20], [250, 50, 20, 20], [350, 50, 20, 20]]).T
    head[4:, :] = np.diag([0.6, 0.7, 0.8, 0.9])
    result = THREAT.interpret((head,), ITEM, card("threat_detector"))
    assert result["labels"] == ["knife", "grenade", "explosion", "Gun"]
    assert result["scores"].tolist() == pytest.approx([0.9, 0.8, 0.7, 0.6])


def test_a_persons_keypoints_are_17_triples() -> None:
    head = np.zeros((56, 2), np.float32)
    head[:5, 0] = 50, 50, 20, 20, 0.9
    head[5:, 0] = np.arange(51)
    result = POSE.interpret((head,), ITEM, card("pose_estimator"))
    assert result["keypoints"].shape == (1, 17, 3)
    assert result["keypoints"][0, 1].tolist() == [3, 4, 5]


@pytest.mark.parametrize(
    ("labels", "counted"), [(("person", "dog"), [0.9]), (("a", "b"), [0.9, 0.8]), (("dog", "Person"), [0.8])]
)
def test_of_several_classes_those_called_person_are_persons(labels: tuple[str, ...], counted: list[float]) -> None:
    head = np.zeros((57, 2), np.float32)
    head[:4] = np.array([[50, 50, 20, 20], [150, 50, 20, 20]]).T
    head[4:6] = np.diag([0.9, 0.8])
    of_two = replace(card("pose_estimator"), labels=labels)
    result = POSE.interpret((head,), ITEM, of_two)
    assert result["scores"].tolist() == pytest.approx(counted)
    assert len(result["boxes"]) == len(result["keypoints"]) == len(counted)


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


def test_a_classifier_is_warmed_up_at_the_size_of_its_card() -> None:
    card_of_another = replace(
        card("pet_classifier"), input=cast("ModelInput", {"height": 384, "width": 256, "resample": 3})
    )
    shapes = warm_up_shapes(PET, card_of_another)
    assert {shape[1:] for shape in shapes} == {(384, 256, 3)}
