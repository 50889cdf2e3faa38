from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import ConvNextImageProcessor, ResNetConfig, ResNetForImageClassification

from importing.errors import WeightsRefused
from importing.loaders.resnet import load


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
    """Set entries of a JSON file; those that are None are taken out of it."""
    content = json.loads(file.read_text()) | entries
    file.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))


def test_gives_logits_and_pooled_features(folder: Path) -> None:
    network = load(folder)
    with torch.inference_mode():
        logits, features = network.graph(torch.zeros(3, 224, 224, 3, dtype=torch.uint8))
    assert (logits.shape, features.shape) == ((3, 2), (3, 16))
    assert network.outputs == ("logits", "features")


def test_labels_follow_id2label_whatever_its_order(folder: Path) -> None:
    edit(folder / "config.json", id2label={"1": "Cat", "0": "Dog"}, label2id={"Cat": 1, "Dog": 0})
    assert load(folder).labels == ("dog", "cat")


def test_labels_are_the_species_that_they_name_and_that_is_said(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = {"0": "Domestic cat", "1": "Dogs"}
    edit(folder / "config.json", id2label=names, label2id={name: int(index) for index, name in names.items()})
    assert load(folder).labels == ("cat", "dog")
    assert caplog.messages == ["The label 'Domestic cat' is served as 'cat'."]


def test_the_card_says_how_the_processor_resizes(folder: Path) -> None:
    card = load(folder).image.to_card()
    expected = {"height": 224, "width": 224, "shortest_edge": 224, "crop_pct": 0.875, "resample": 3}
    assert card.items() >= expected.items()


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        pytest.param({"size": {"shortest_edge": 256}}, {"shortest_edge": 256, "crop_pct": 0.875}, id="256"),
        pytest.param({"size": 288, "crop_pct": None}, {"shortest_edge": 288, "crop_pct": 0.875}, id="no crop_pct"),
        pytest.param({"size": {"shortest_edge": 383}, "crop_pct": 1}, {"shortest_edge": 383, "crop_pct": 1}, id="383"),
        pytest.param({"size": {"shortest_edge": 384}, "resample": 2}, {"height": 384, "width": 384}, id="384"),
        pytest.param({"size": None}, {"height": 384, "width": 384}, id="no size"),
        pytest.param(
            {"image_processor_type": None, "feature_extractor_type": "ConvNextFeatureExtractor"},
            {"shortest_edge": 224},
            id="former name",
        ),
        pytest.param({"image_processor_type": "ConvNextImageProcessorFast"}, {"shortest_edge": 224}, id="fast"),
        pytest.param(
            {"image_processor_type": "ViTImageProcessor", "size": {"height": 192, "width": 256}},
            {"height": 192, "width": 256},
            id="ViT",
        ),
        pytest.param(
            {"image_processor_type": "ViTImageProcessorFast", "size": 96}, {"height": 96, "width": 96}, id="ViT, old"
        ),
    ],
)
def test_other_sizes_and_processors_are_in_the_card_as_they_resize(
    folder: Path, entries: dict[str, Any], expected: dict[str, Any]
) -> None:
    edit(folder / "preprocessor_config.json", **entries)
    card = load(folder).image.to_card()
    assert card.items() >= expected.items()
    assert ("shortest_edge" in card) is ("shortest_edge" in expected)


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ({"do_resize": False}, "has do_resize false, but images of one size are needed"),
        ({"do_center_crop": True, "crop_size": 200}, "has do_center_crop, which is not served"),
        ({"resample": 1}, r"has the resample 1; 2 \(bilinear\) or 3 \(bicubic\) is needed"),
        ({"resample": 0}, "has the resample 0; 2"),
        ({"crop_pct": 1.2}, "has the crop_pct 1.2; a share above 0 up to 1"),
        ({"crop_pct": "0.875"}, "has the crop_pct '0.875'"),
        ({"size": {"shortest_edge": 4096}}, "has the size .*; shortest_edge from 32 to 1024 pixels is needed"),
        ({"size": {"shortest_edge": 16}}, "has the size .*; shortest_edge from 32 to 1024 pixels is needed"),
        ({"size": {"height": 224, "width": 224}}, "has the size .*; shortest_edge from 32"),
        (
            {"image_processor_type": "ViTImageProcessor", "size": {"shortest_edge": 224}},
            "has the size .*; height and width from 32",
        ),
        (
            {"image_processor_type": "CLIPImageProcessor"},
            "is of a CLIPImageProcessor; ConvNextImageProcessor or ViTImageProcessor is needed",
        ),
        ({"image_std": [0.5, 0, 0.5]}, "has the image_std .*; numbers above 0"),
        ({"rescale_factor": 0}, "has the rescale_factor 0; a number above 0"),
        ({"image_mean": [0.5]}, r"has the image_mean \(0\.5,\); 3 numbers are needed"),
    ],
)
def test_what_the_service_does_not_do_to_an_image_is_refused_by_name(
    folder: Path, entries: dict[str, Any], reason: str
) -> None:
    edit(folder / "preprocessor_config.json", **entries)
    with pytest.raises(WeightsRefused, match=rf"preprocessor_config\.json {reason}"):
        load(folder)


@pytest.mark.parametrize(
    "entries",
    [
        {"do_normalize": False},
        {"do_rescale": False},
        {"rescale_factor": 1 / 127.5},
        {"image_mean": 0.5, "image_std": 2},
    ],
    ids=["no normalize", "no rescale", "rescale", "one number"],
)
def test_values_are_normalised_as_the_processor_says(folder: Path, entries: dict[str, Any]) -> None:
    usual = load(folder)
    edit(folder / "preprocessor_config.json", **entries)
    network = load(folder)
    image = torch.randint(0, 256, (2, 224, 224, 3), dtype=torch.uint8)
    with torch.inference_mode():
        ours, theirs, others = network.graph(image), network.original(image), usual.graph(image)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(ours[1], others[1], rtol=1e-2)


def test_grey_images_are_refused(folder: Path) -> None:
    edit(folder / "config.json", num_channels=1)
    with pytest.raises(WeightsRefused, match=r"config\.json has 1 num_channels; 3 \(RGB\) are needed"):
        load(folder)


@pytest.mark.parametrize(
    "labels",
    [
        {0: "cats", 1: "cats"},
        {0: "LABEL_0", 1: "LABEL_1"},
        {0: "cat", 1: "dog", 2: "bird"},
        {0: "cattle", 1: "dogs"},
        {0: "cat", 1: "hotdog"},
    ],
    ids=["two cats", "no names", "a third", "cattle", "food"],
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
    with pytest.raises(WeightsRefused, match=r"2 mismatched keys \(such as \('classifier\.1\.bias'"):
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


@pytest.mark.parametrize("entry", [{"size": {"edge": 224}}, {"resample": "best"}], ids=["size", "filter"])
def test_settings_that_no_convnext_processor_has_are_refused(folder: Path, entry: dict[str, Any]) -> None:
    edit(folder / "preprocessor_config.json", **entry)
    with pytest.raises(WeightsRefused, match="settings of a ConvNextImageProcessor"):
        load(folder)


@pytest.mark.weights
def test_the_real_weights_are_accepted(shared: Path) -> None:
    assert load(shared / "model-zoo" / "pet-classifier").labels == ("cat", "dog")
