from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import ConvNextImageProcessor, ResNetConfig, ResNetForImageClassification

from models.errors import WeightsRefused
from models.loaders.resnet import load


def write(folder: Path, labels: dict[int, str]) -> Path:
    """A small untrained ResNet in transformers' format."""
    torch.manual_seed(0)
    config = ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 16],
        depths=[1, 1],
        layer_type="basic",
        id2label=labels,
    )
    ResNetForImageClassification(config).save_pretrained(folder)
    ConvNextImageProcessor(size={"shortest_edge": 224}, crop_pct=0.875, resample=3).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("pets") / "pets", {0: "cats", 1: "dogs"})


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """A copy to be damaged."""
    return Path(shutil.copytree(original, tmp_path / "pets"))


def edit(file: Path, **entries: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | entries))


def test_gives_logits_and_pooled_features(folder: Path) -> None:
    network = load(folder)
    with torch.inference_mode():
        logits, features = network.graph(torch.zeros(3, 224, 224, 3, dtype=torch.uint8))
    assert (logits.shape, features.shape) == ((3, 2), (3, 16))
    assert network.outputs == ("logits", "features")


def test_labels_follow_id2label_whatever_its_order(folder: Path) -> None:
    edit(folder / "config.json", id2label={"1": "Cat", "0": "Dog"}, label2id={"Cat": 1, "Dog": 0})
    assert load(folder).labels == ("Dog", "Cat")


def test_the_card_says_how_the_processor_resizes(folder: Path) -> None:
    card = load(folder).image.to_card()
    expected = {"height": 224, "width": 224, "shortest_edge": 224, "crop_pct": 0.875, "resample": 3}
    assert card.items() >= expected.items()


@pytest.mark.parametrize(
    "labels",
    [{0: "cats", 1: "cats"}, {0: "LABEL_0", 1: "LABEL_1"}, {0: "cat", 1: "dog", 2: "bird"}],
    ids=["two cats", "no names", "a third"],
)
def test_labels_that_are_not_one_cat_and_one_dog_are_refused(tmp_path: Path, labels: dict[int, str]) -> None:
    with pytest.raises(WeightsRefused, match=r"config\.json has the labels"):
        load(write(tmp_path / "pets", labels))


def test_a_missing_parameter_is_refused(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["classifier.1.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsRefused, match=r"1 missing keys \(such as classifier\.1\.weight\)"):
        load(folder)


def test_a_foreign_parameter_is_refused(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    save_file({**weights, "extra.weight": torch.zeros(1)}, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsRefused, match=r"1 unexpected keys \(such as extra\.weight\)"):
        load(folder)


def test_a_classifier_of_another_size_is_refused(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights |= {"classifier.1.weight": torch.zeros(1000, 16), "classifier.1.bias": torch.zeros(1000)}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsRefused):
        load(folder)


def test_a_folder_of_another_architecture_is_refused(folder: Path) -> None:
    edit(folder / "config.json", model_type="depth_anything")
    with pytest.raises(WeightsRefused, match="model type 'depth_anything'; 'resnet' is needed"):
        load(folder)


@pytest.mark.parametrize("content", [b"404: Not Found", bytes(1000)], ids=["text", "zeros"])
def test_weights_that_are_no_safetensors_are_refused(folder: Path, content: bytes) -> None:
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(WeightsRefused, match=r"^pets is not a transformers folder of ResNetForImageClassification: \S"):
        load(folder)


def test_truncated_weights_are_refused(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(WeightsRefused, match="is not a transformers folder"):
        load(folder)


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
def test_settings_that_are_no_json_are_refused(folder: Path, name: str) -> None:
    (folder / name).write_text("<html>")
    with pytest.raises(WeightsRefused, match="is not a"):
        load(folder)


@pytest.mark.parametrize(
    "entry", [{"size": {"height": 224, "width": 224}}, {"resample": "best"}], ids=["size", "filter"]
)
def test_settings_that_no_convnext_processor_has_are_refused(folder: Path, entry: dict[str, Any]) -> None:
    edit(folder / "preprocessor_config.json", **entry)
    with pytest.raises(WeightsRefused, match="settings of a ConvNextImageProcessor"):
        load(folder)


@pytest.mark.weights
def test_the_real_weights_are_accepted(shared: Path) -> None:
    assert load(shared / "model-zoo" / "pet-classifier").labels == ("cats", "dogs")
