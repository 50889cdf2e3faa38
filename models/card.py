"""What the import step found out about a model, kept beside its graphs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NotRequired, TypedDict, cast

from models.catalogue import CATALOGUE, ModelName


class ModelInput(TypedDict):
    """What a graph takes, and how the official processor makes it of a picture.

    name: of the graph's input. dtype: "uint8". layout: "NHWC". channels: "RGB". height, width: pixels; None where any
    multiple of `multiple_of` from `minimum` to `maximum` is taken. resample: Pillow's number of the filter.
    shortest_edge, crop_pct: of a classifier that cuts the centre out and does not stretch the whole image. size: of the
    depth estimator's processor.
    """

    name: str
    dtype: str
    layout: str
    channels: str
    height: int | None
    width: int | None
    multiple_of: int
    minimum: NotRequired[int]
    maximum: NotRequired[int]
    resample: NotRequired[int]
    shortest_edge: NotRequired[int]
    crop_pct: NotRequired[float]
    size: NotRequired[Mapping[str, int]]


@dataclass(frozen=True)
class Loss:
    """What a precision costs a model beside f32, over so many pictures; made by tasks.agreement.

    `figures`: name → value, as "OKS min"; `broken`: those of them that are out of bounds (README "Precision").
    """

    pictures: int
    figures: Mapping[str, float]
    broken: tuple[str, ...]

    def __str__(self) -> str:
        """All figures in a line of Markdown, those that are out of bounds in bold."""
        texts = {name: f"{value:.{0 if isinstance(value, int) else 3}f}" for name, value in self.figures.items()}
        return ", ".join(
            f"{name} **{text}**" if name in self.broken else f"{name} {text}" for name, text in texts.items()
        )


@dataclass(frozen=True)
class ModelCard:
    """What the import step found out about a model, kept as metadata beside its graphs.

    - `sha256`: of the weights file; of `model.safetensors` where the weights are a transformers folder
    - `source`: the path or URL the weights came from
    - `labels`: by class index; empty where the model has no classes
    - `outputs`: the graph's outputs in order
    - `tolerance`: metric → the largest difference between graph and original seen on the probe images
    - `conversion`: the version of the recipe in importing/convert.py that made the graphs
    - `untrained`: True for the random stand-ins of the offline trial, False for everything else
    - `int8`: what the int8 form beside the graphs costs, None where there is none
    """

    name: ModelName
    weights: str
    sha256: str
    source: str
    licence: str
    labels: tuple[str, ...]
    input: ModelInput
    outputs: tuple[str, ...]
    tolerance: Mapping[str, float]
    conversion: int
    untrained: bool
    int8: Loss | None = None

    @property
    def model_id(self) -> str:
        """What vectors are compared under, as `osnet-x0-25@osnet_x0_25@6f57607fed9f`: vectors of two ids never are."""
        file = "untrained" if self.untrained else Path(CATALOGUE[self.name].file).stem or "model"
        return f"{self.weights}@{file}@{self.sha256[:12]}"

    def to_metadata(self) -> dict[str, Any]:
        """The card as the plain lists, dicts and scalars that BentoML writes into `model.yaml`."""
        card = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "int8"}
        # BentoML's metadata knows no null: what is None is left out, and comes back as None.
        int8 = {"int8": asdict(self.int8) | {"broken": list(self.int8.broken)}} if self.int8 else {}
        return (
            card
            | int8
            | {
                "labels": list(self.labels),
                "input": {key: value for key, value in self.input.items() if value is not None},
                "outputs": list(self.outputs),
                "tolerance": dict(self.tolerance),
            }
        )

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> ModelCard:
        """The inverse of `to_metadata`.

        Raises KeyError or TypeError where an entry is missing or of another kind, ValueError for an unknown model.
        """
        if metadata["name"] not in CATALOGUE:
            raise ValueError(f"unknown model {metadata['name']!r}")
        card = {field.name: metadata[field.name] for field in fields(cls) if field.name != "int8"}
        return cls(
            **card
            | {
                "labels": tuple(str(label) for label in card["labels"]),
                "input": cast("ModelInput", {"height": None, "width": None} | dict(card["input"])),
                "outputs": tuple(str(output) for output in card["outputs"]),
                "tolerance": {str(metric): float(value) for metric, value in card["tolerance"].items()},
                "conversion": int(card["conversion"]),
                "untrained": bool(card["untrained"]),
                "int8": _loss(metadata["int8"]) if "int8" in metadata else None,
            }
        )


def _loss(metadata: Mapping[str, Any]) -> Loss:
    return Loss(int(metadata["pictures"]), dict(metadata["figures"]), tuple(metadata["broken"]))
