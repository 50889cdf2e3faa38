"""Pet probabilities against transformers' own processor and model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from engines.errors import EngineError
from engines.parts import cut
from models import store
from models.card import ModelInput
from settings import EngineChoice, get_settings
from tasks.pet_classifier import PetClassifier, PetResponse
from tasks.picture import Picture
from tasks.task import Options
from tests.parity.conftest import ENGINES, Make
from vision.arrays import RGB


def prepared(image: RGB, card_input: ModelInput) -> NDArray[np.uint8]:
    """The classifier's input as the service makes it."""
    task = PetClassifier(get_settings().models.pet_classifier)
    return task.prepare(Picture.of(image, None), Options(), card_input).items[0]["image"]


@pytest.fixture(scope="module")
def official(zoo: Path, images: dict[str, RGB]) -> dict[str, dict[str, float]]:
    """File name → label of id2label → probability."""
    import torch
    from transformers import AutoImageProcessor, ResNetForImageClassification

    folder = zoo / "model-zoo/pet-classifier"
    processor = AutoImageProcessor.from_pretrained(folder)
    model = ResNetForImageClassification.from_pretrained(folder).eval()
    labels = model.config.id2label
    found = {}
    for name, image in images.items():
        with torch.inference_mode():
            inputs = processor(Image.fromarray(image), return_tensors="pt")
            probabilities = model(**inputs).logits[0].softmax(0).tolist()
        found[name] = {labels[index]: value for index, value in enumerate(probabilities)}
    return found


@ENGINES
def test_the_same_probabilities(
    engine: EngineChoice, make: Make, images: dict[str, RGB], official: dict[str, dict[str, float]]
) -> None:
    pipeline = make("pet_classifier", engine, "f32")
    differences = {}
    for (name, expected), (_, answer) in zip(official.items(), pipeline.run(list(images.values())), strict=True):
        assert isinstance(answer, PetResponse)
        differences[name] = abs(expected["cats"] - answer.probabilities["cat"])
        assert answer.probabilities["dog"] == pytest.approx(1 - answer.probabilities["cat"], abs=1e-3)
    assert max(differences.values()) <= 0.001, max(differences, key=lambda name: differences[name])


SOME = [
    "cat_chelsea.png",
    "dog_kaggle_1.jpg",
    "fmt_tiny_32px.jpg",
    "street_crowd.jpg",
    "person015_a.jpg",
    "room_interior.jpg",
]


@pytest.mark.parametrize(
    "entries",
    [
        pytest.param({"size": {"shortest_edge": 160}, "crop_pct": 1.0}, id="160, uncropped"),
        pytest.param({"size": {"shortest_edge": 256}, "resample": 2}, id="256, bilinear"),
        pytest.param({"size": {"shortest_edge": 288}}, id="288"),
        pytest.param({"size": {"shortest_edge": 384}}, id="384, stretched"),
        pytest.param(
            {"image_processor_type": "ViTImageProcessor", "size": {"height": 192, "width": 256}, "resample": 2},
            id="ViT",
        ),
    ],
)
def test_the_same_probabilities_at_other_sizes_and_with_another_processor(
    zoo: Path, images: dict[str, RGB], tmp_path: Path, entries: dict[str, Any]
) -> None:
    import torch
    from transformers import AutoImageProcessor, ResNetForImageClassification

    from importing.loaders.resnet import load

    folder = Path(shutil.copytree(zoo / "model-zoo/pet-classifier", tmp_path / "pets"))
    file = folder / "preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | entries))
    processor = AutoImageProcessor.from_pretrained(folder)
    model = ResNetForImageClassification.from_pretrained(folder).eval()
    network = load(folder)
    card_input = network.image.to_card()
    for name in SOME:
        with torch.inference_mode():
            expected = model(**processor(Image.fromarray(images[name]), return_tensors="pt")).logits.softmax(1)
            tensor = torch.from_numpy(prepared(images[name], card_input).copy())
            assert tensor.shape == (card_input["height"], card_input["width"], 3)
            found = network.graph(tensor[None])[0].softmax(1)
        assert float((expected - found).abs().max()) <= 0.002, name


@pytest.mark.weights
def test_auto_precision_stays_within_its_bounds(make: Make, images: dict[str, RGB]) -> None:
    exact, reduced = (make("pet_classifier", "openvino", precision) for precision in ("f32", "auto"))
    if reduced.engine.precision == "f32":
        pytest.skip("this processor is no faster in bf16")
    assert reduced.engine.precision == "f32+bf16"
    for (_, one), (_, other) in zip(exact.run(list(images.values())), reduced.run(list(images.values())), strict=True):
        assert isinstance(one, PetResponse)
        assert isinstance(other, PetResponse)
        assert (one.pet_type, one.is_household_pet) == (other.pet_type, other.is_household_pet)
        assert one.probabilities["cat"] == pytest.approx(other.probabilities["cat"], abs=0.03)


def test_a_graph_without_the_node_to_cut_at_is_refused(model_store: Path) -> None:
    with pytest.raises(EngineError, match="the graph has no node /resnet/nowhere"):
        cut(store.require("pet_classifier").graph, "/resnet/nowhere")


@pytest.mark.weights
@pytest.mark.usefixtures("shared")
def test_pets_are_told_from_the_rest(make: Make, images: dict[str, RGB]) -> None:
    """docs/use/pet.md in figures, without the veto of people that the service adds."""
    pets = {"cat_chelsea.png", "cat_kaggle_1.jpg", "dog_kaggle_1.jpg", "fmt_rgba_cat.png", "fmt_webp_cat.webp"}
    # A white dog and a 32-pixel thumbnail that the weights are unsure of: a pet missed is an alarm too many, no more.
    unsure = {"dog_samoyed.jpg", "fmt_tiny_32px.jpg"}
    pipeline = make("pet_classifier", "openvino", "f32")
    claimed = set()
    for name, (_, answer) in zip(images, pipeline.run(list(images.values())), strict=True):
        assert isinstance(answer, PetResponse)
        if answer.is_household_pet:
            claimed.add(name)
        if name.startswith("cat") or name == "dog_kaggle_1.jpg":
            assert answer.pet_type == name[:3]
    assert pets <= claimed
    assert not claimed & unsure
    # Of 58 pictures without a pet: players (vetoed by the people in them), an empty room, one crop of a person.
    assert claimed - pets <= {"children_football.jpg", "room_interior.jpg", "person015_a.jpg"}
    streets = {name for name in images if name.startswith("street") or name == "bus.jpg"}
    assert len(streets) == 4
    assert not claimed & streets


def test_probabilities_sum_to_one_whatever_the_image(make: Make) -> None:
    flat = np.full((1, 3000, 3), 128, dtype=np.uint8)
    ((_, answer),) = make("pet_classifier", "openvino", "f32").run([flat])
    assert isinstance(answer, PetResponse)
    assert sum(answer.probabilities.values()) == pytest.approx(1, abs=1e-3)
