"""The catalogue of the five models: everything known about them without their weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal

from engines.traits import Traits

ModelName = Literal["pose_estimator", "threat_detector", "person_reid", "pet_classifier", "depth_estimator"]


@dataclass(frozen=True)
class Source:
    """One file of a model's public weights.

    path: place below the model's folder. size: bytes, None if unknown. sha256: 64 hex digits; a download with another
    checksum is deleted and refused.
    """

    url: str
    sha256: str
    size: int | None
    path: str


@dataclass(frozen=True)
class Quantization:
    """How a graph is quantized to int8 (importing/int8).

    keeps: regular expressions for the names of operations that stay in f32. keeps_head: the end of a YOLO head stays in
    f32, too, because its values are pixels. transformer: use NNCF's scheme for transformers; otherwise NNCF corrects
    biases layer by layer.
    """

    keeps: tuple[str, ...] = ()
    keeps_head: bool = False
    transformer: bool = False


FOLDER_WEIGHTS: Final = "model.safetensors"
_FOLDER_FILES: Final = (FOLDER_WEIGHTS, "config.json", "preprocessor_config.json")


@dataclass(frozen=True)
class ModelSpec:
    """One model's entry in the catalogue.

    Variables, default paths and folder names are those of the original deployment.

    - `short_name`: the model's second key in /health's `models`, for the newest callers
    - `weights`: name of the model's folder in the model zoo
    - `file`: path of the weights below that folder; empty if the library loads the folder itself (transformers)
    - `licence`: of the weights
    - `homepage`: web page of the weights
    - `sources`: the files that the import step downloads
    - `conversion`: version of the model's recipe in importing/; a new version leads to a new import. Raise it whenever
      the same weights would give other graphs or another card. Raise it with torch, too: graph.pt2 is a torch format
    """

    name: ModelName
    short_name: str
    title: str
    weights: str
    file: str
    route: str
    path_variable: str
    default_path: str
    assignment_variable: str
    licence: str
    homepage: str
    sources: tuple[Source, ...]
    conversion: int
    traits: Traits = field(default_factory=Traits)
    quantization: Quantization = field(default_factory=Quantization)

    @property
    def file_names(self) -> tuple[str, ...]:
        """Names of the weight files in their folder, the one with the parameters first."""
        return (Path(self.file).name,) if self.file else _FOLDER_FILES

    def loaded_path(self, folder: Path) -> Path:
        """Return the path that the official library loads: the weight file in `folder`, or the folder itself."""
        return folder / Path(self.file).name if self.file else folder


_HUB = "https://huggingface.co"
_DEPTH_FILES = f"{_HUB}/depth-anything/Depth-Anything-V2-Small-hf/resolve/5426e4f0f36572d16453bbda7a8389317b1bef99"

_POSE = ModelSpec(
    name="pose_estimator",
    short_name="pose",
    title="YOLOv8n-pose",
    weights="yolov8n-pose",
    file="yolov8n-pose.pt",
    route="/pose-analyze",
    path_variable="POSE_MODEL_PATH",
    default_path="/models/yolov8n-pose/yolov8n-pose.pt",
    assignment_variable="ENRICHMENT_POSE_SERVICE",
    licence="AGPL-3.0",
    homepage="https://github.com/ultralytics/assets/releases",
    sources=(
        Source(
            url="https://github.com/ultralytics/assets/releases/download/v8.3.0/yolov8n-pose.pt",
            sha256="c6fa93dd1ee4a2c18c900a45c1d864a1c6f7aba75d84f91648a30b7fb641d212",
            size=6_832_633,
            path="yolov8n-pose.pt",
        ),
    ),
    conversion=2,
    # Without bias correction some postures change.
    quantization=Quantization(keeps_head=True),
)

_THREAT = ModelSpec(
    name="threat_detector",
    short_name="threat",
    title="Threat Detection YOLOv8n",
    weights="threat-detection-yolov8n",
    file="weights/best.pt",
    route="/threat-detect",
    path_variable="THREAT_MODEL_PATH",
    default_path="/models/threat-detection-yolov8n/weights/best.pt",
    assignment_variable="ENRICHMENT_THREAT_SERVICE",
    licence="AGPL-3.0",
    homepage="https://huggingface.co/Subh775/Threat-Detection-YOLOv8n",
    sources=(
        Source(
            url=f"{_HUB}/Subh775/Threat-Detection-YOLOv8n/resolve/c6d6fa4e6c9bfd4c4fccb46478db23609e5468fb/weights/best.pt",
            sha256="86c43444ae8319d2276dd300edc3e7f7a1137fe7566737f994ca579ad770f6ce",
            size=None,
            path="weights/best.pt",
        ),
    ),
    conversion=2,
    traits=Traits(bf16=True),
    quantization=Quantization(keeps_head=True),
)

_REID = ModelSpec(
    name="person_reid",
    short_name="reid",
    title="OSNet x0.25",
    weights="osnet-x0-25",
    file="osnet_x0_25.pth",
    route="/person-reid",
    path_variable="REID_MODEL_PATH",
    default_path="/models/osnet-x0-25/osnet_x0_25.pth",
    assignment_variable="ENRICHMENT_REID_SERVICE",
    licence="MIT",
    homepage="https://huggingface.co/kaiyangzhou/osnet",
    sources=(
        Source(
            url=(
                f"{_HUB}/kaiyangzhou/osnet/resolve/a5c5cc037c24235cda3b21085b93ad77c9616224/osnet_x0_25_msmt17_"
                "combineall_256x128_amsgrad_ep150_stp60_lr0.0015_b64_fb10_softmax_labelsmooth_flip_jitter.pth"
            ),
            sha256="cf55163d78fc44c62c82f85ab62d39f10438679b5abe8c698ae08cfa84aa6e18",
            size=9_336_983,
            path="osnet_x0_25.pth",
        ),
    ),
    conversion=2,
    # Its many layers are small, so a batch of four is faster than single images. Larger batches gain nothing more.
    traits=Traits(bf16=True, batch=4),
)

_PET = ModelSpec(
    name="pet_classifier",
    short_name="pet",
    title="ResNet-18 cats and dogs",
    weights="pet-classifier",
    file="",
    route="/pet-classify",
    path_variable="PET_MODEL_PATH",
    default_path="/models/pet-classifier",
    assignment_variable="ENRICHMENT_PET_SERVICE",
    licence="none stated; its base microsoft/resnet-18 is Apache-2.0",
    homepage="https://huggingface.co/hilmansw/resnet18-catdog-classifier",
    sources=(),  # no published checksum of the public weights was found
    conversion=3,
    traits=Traits(f32_until="/resnet/encoder/stages.0/layers.1/activation/Relu"),
    # The first and the last layer stay in f32: int8 in them is a little faster, but changes labels.
    quantization=Quantization(keeps=(r".*/embedder/.*", r".*/classifier/.*")),
)

_DEPTH = ModelSpec(
    name="depth_estimator",
    short_name="depth",
    title="Depth Anything V2 Small",
    weights="depth-anything-v2-small",
    file="",
    route="/depth-estimate",
    path_variable="DEPTH_MODEL_PATH",
    default_path="/models/depth-anything-v2-small",
    assignment_variable="ENRICHMENT_DEPTH_SERVICE",
    licence="Apache-2.0",
    homepage="https://huggingface.co/depth-anything/Depth-Anything-V2-Small-hf",
    sources=(
        Source(
            url=f"{_DEPTH_FILES}/model.safetensors",
            sha256="3152477ce0d8d6978d76b995120de97cb5b928701fd0f817769f59e249a16b70",
            size=99_173_660,
            path="model.safetensors",
        ),
        Source(
            url=f"{_DEPTH_FILES}/config.json",
            sha256="c56698d3643dde1f83ea2212759e6b31a22b8f827246a36dd007ee8a22b3ff75",
            size=950,
            path="config.json",
        ),
        Source(
            url=f"{_DEPTH_FILES}/preprocessor_config.json",
            sha256="d41175c0d889477ca8fc67191e540faef14baf6275157b3fdecf78469e6bbf84",
            size=775,
            path="preprocessor_config.json",
        ),
    ),
    conversion=2,
    # Images of one shape are computed faster side by side than one after the other.
    traits=Traits(bf16=True, by_shape=True),
    quantization=Quantization(transformer=True),  # bias correction changes nothing here
)

#: The five models, in the documentation's order.
CATALOGUE: Mapping[ModelName, ModelSpec] = MappingProxyType(
    {spec.name: spec for spec in (_POSE, _THREAT, _REID, _PET, _DEPTH)}
)

#: Every name that a caller may give a model → its own: that name, the short one, and the model zoo's folder.
NAMES: Final[Mapping[str, ModelName]] = MappingProxyType(
    {spec.short_name: name for name, spec in CATALOGUE.items()}
    | {spec.weights: name for name, spec in CATALOGUE.items()}
    | {name: name for name in CATALOGUE}
)
