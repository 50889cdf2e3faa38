from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config, DPTImageProcessor

from importing.convert import write_graph, write_program
from importing.errors import WeightsRefused
from importing.loaders import depth
from importing.proof import prove
from models.store import GRAPH, PROGRAM
from tests.importing.loaders import test_resnet

TRAINED_SIDE = 56  # four patches


def write(folder: Path, kind: str = "relative") -> Path:
    """A very small Depth Anything with random parameters, its position embedding spread so that mistakes in it show."""
    torch.manual_seed(0)
    backbone = Dinov2Config(
        hidden_size=12,
        num_hidden_layers=4,
        num_attention_heads=2,
        image_size=TRAINED_SIDE,
        patch_size=14,
        out_indices=[1, 2, 3, 4],
        apply_layernorm=True,
        reshape_hidden_states=False,
    )
    config = DepthAnythingConfig(
        backbone_config=backbone,
        patch_size=14,
        reassemble_hidden_size=12,
        neck_hidden_sizes=[4, 8, 8, 8],
        fusion_hidden_size=8,
        head_hidden_size=8,
        depth_estimation_type=kind,
    )
    model = DepthAnythingForDepthEstimation(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.3)
        assert model.head.conv3.bias is not None
        model.head.conv3.bias.fill_(20.0)  # keeps the last ReLU from cutting all to zero
    model.save_pretrained(folder)
    DPTImageProcessor(size={"height": TRAINED_SIDE, "width": TRAINED_SIDE}, resample=3).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("depth") / "depth")


@pytest.fixture
def folder(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy to be damaged, of a width that passes for the Small model's."""
    monkeypatch.setattr(depth, "CHANNELS", 12)
    return Path(shutil.copytree(original, tmp_path / "depth"))


def test_graphs_equal_the_original_at_and_off_the_trained_size(folder: Path, tmp_path: Path) -> None:
    sizes = ((TRAINED_SIDE, TRAINED_SIDE), (14, 14), (28, 126), (126, 28))
    network = replace(depth.load(folder), probes=sizes)
    write_program(network, tmp_path / PROGRAM)
    write_graph(network, tmp_path / GRAPH)
    reached = prove(network, tmp_path)
    assert reached["relative_depth"] < 1e-4


def test_metric_depth_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(depth, "CHANNELS", 12)
    with pytest.raises(WeightsRefused, match="of a 'metric' Depth Anything"):
        depth.load(write(tmp_path / "metric", kind="metric"))


def test_a_model_of_another_width_is_refused(original: Path) -> None:
    with pytest.raises(WeightsRefused, match=r"with 12 channels; the 'relative' one with 384 \(Small\) is needed"):
        depth.load(original)


def test_a_resnet_is_refused(tmp_path: Path) -> None:
    pets = test_resnet.write(tmp_path / "pets", {0: "cats", 1: "dogs"})
    with pytest.raises(WeightsRefused, match="model type 'resnet'; 'depth_anything' is needed"):
        depth.load(pets)


def test_a_resnet_s_parameters_under_a_depth_config_are_refused(folder: Path, tmp_path: Path) -> None:
    pets = test_resnet.write(tmp_path / "pets", {0: "cats", 1: "dogs"})
    shutil.copy(pets / "model.safetensors", folder)
    with pytest.raises(WeightsRefused, match=r"model\.safetensors is not a whole DepthAnythingForDepthEstimation"):
        depth.load(folder)
