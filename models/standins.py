from __future__ import annotations

from pathlib import Path

import torch

from models.catalogue import CATALOGUE, ModelName
from models.weights import loaded_path

SEED = 0
_MEAN, _STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
_BICUBIC = 3


def write(name: ModelName, folder: Path) -> None:
    """Write weights of a model's exact architecture with seeded random parameters, under the names of the real files.

    They make loading, conversion and serving testable without the real ones. Their answers mean nothing.
    """
    torch.manual_seed(SEED)
    path = loaded_path(CATALOGUE[name], folder)
    match name:
        case "pose_estimator":
            _write_yolo("yolov8n-pose.yaml", {0: "person"}, path)
        case "threat_detector":
            _write_yolo("yolov8n.yaml", {0: "Gun", 1: "explosion", 2: "grenade", 3: "knife"}, path)
        case "person_reid":
            _write_osnet(path)
        case "pet_classifier":
            _write_resnet(path)
        case "depth_estimator":
            _write_depth(path)


def _write_yolo(architecture: str, names: dict[int, str], file: Path) -> None:
    from ultralytics.nn.tasks import DetectionModel, PoseModel

    kind = PoseModel if "pose" in architecture else DetectionModel
    model = kind(architecture, nc=len(names), verbose=False)
    model.names = names
    torch.save({"model": model}, file)


def _write_osnet(file: Path) -> None:
    from models.loaders.osnet import build

    torch.save(build(identities=1).state_dict(), file)


def _write_resnet(folder: Path) -> None:
    from transformers import ConvNextImageProcessor, ResNetConfig, ResNetForImageClassification

    config = ResNetConfig(
        embedding_size=64,
        hidden_sizes=[64, 128, 256, 512],
        depths=[2, 2, 2, 2],
        layer_type="basic",
        id2label={0: "cats", 1: "dogs"},
        label2id={"cats": 0, "dogs": 1},
    )
    ResNetForImageClassification(config).save_pretrained(folder)
    ConvNextImageProcessor(
        size={"shortest_edge": 224}, crop_pct=0.875, resample=_BICUBIC, image_mean=_MEAN, image_std=_STD
    ).save_pretrained(folder)


def _write_depth(folder: Path) -> None:
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config, DPTImageProcessor

    backbone = Dinov2Config(
        hidden_size=384,
        num_hidden_layers=12,
        num_attention_heads=6,
        image_size=518,
        patch_size=14,
        apply_layernorm=True,
        reshape_hidden_states=False,
        out_indices=[3, 6, 9, 12],
    )
    config = DepthAnythingConfig(
        backbone_config=backbone,
        patch_size=14,
        reassemble_hidden_size=384,
        reassemble_factors=[4, 2, 1, 0.5],
        neck_hidden_sizes=[48, 96, 192, 384],
        fusion_hidden_size=64,
        head_in_index=-1,
        head_hidden_size=32,
        depth_estimation_type="relative",
    )
    model = DepthAnythingForDepthEstimation(config)
    # An untrained head gives an almost constant map: spread it, so that a comparison on it says something.
    with torch.no_grad():
        for parameter in model.head.parameters():
            parameter.mul_(8.0)
    model.save_pretrained(folder)
    DPTImageProcessor(
        size={"height": 518, "width": 518},
        keep_aspect_ratio=True,
        ensure_multiple_of=14,
        resample=_BICUBIC,
        image_mean=_MEAN,
        image_std=_STD,
    ).save_pretrained(folder)
