"""The model card: the facts about a model that the import step stores beside its graphs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NotRequired, TypedDict, cast

from models.catalogue import CATALOGUE, ModelName


class ModelInput(TypedDict):
    """A graph's input, and how the official processor makes it from an image.

    name: of the graph's input. dtype: "uint8". layout: "NHWC". channels: "RGB". height, width: pixels; None if any
    multiple of `multiple_of` from `minimum` to `maximum` fits. resample: Pillow's number of the filter.
    shortest_edge, crop_pct: of a classifier that crops the centre in place of stretching the image. size: of the depth
    estimator's processor.
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
    """The loss of a precision against f32, as measured by tasks.agreement.

    pictures: number of images compared. figures: name (such as "OKS min") → value. broken: names of the figures that
    are out of bounds (docs/understand/accuracy.md).
    """

    pictures: int
    figures: Mapping[str, float]
    broken: tuple[str, ...]

    def __str__(self) -> str:
        """Return all figures as one line of Markdown, with those out of bounds in bold."""
        texts = {name: f"{value:.{0 if isinstance(value, int) else 3}f}" for name, value in self.figures.items()}
        return ", ".join(
            f"{name} **{text}**" if name in self.broken else f"{name} {text}" for name, text in texts.items()
        )


class CardSummary(TypedDict):
    """The facts of a model card that callers may want to know. See ModelCard."""

    sha256: str
    source: str
    licence: str
    labels: list[str]


@dataclass(frozen=True)
class ModelCard:
    """The facts about an imported model, stored as metadata beside its graphs.

    - `sha256`: of the weights file; of `model.safetensors` if the weights are a transformers folder
    - `source`: the weights' original path or URL
    - `labels`: by class index; empty if the model has no classes
    - `outputs`: names of the graph's outputs, in order
    - `tolerance`: metric → the largest difference between graph and original on the probe images
    - `conversion`: version of the recipe in importing/ that made the graphs
    - `untrained`: True only for the random stand-ins of the offline trial
    - `int8`: loss of the int8 graph; None if there is none
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
        """The id of the weights, such as `osnet-x0-25@osnet_x0_25@6f57607fed9f`.

        Only embeddings of one id are comparable.
        """
        file = "untrained" if self.untrained else Path(CATALOGUE[self.name].file).stem or "model"
        return f"{self.weights}@{file}@{self.sha256[:12]}"

    @property
    def summary(self) -> CardSummary:
        """The facts for callers, as plain lists and strings."""
        return {
            "sha256": self.sha256,
            "source": self.source,
            "licence": self.licence,
            "labels": list(self.labels),
        }

    def to_metadata(self) -> dict[str, Any]:
        """Return the card as plain lists, dicts and scalars, which BentoML writes into `model.yaml`."""
        card = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "int8"}
        # BentoML's metadata has no null. Values that are None are left out, and `from_metadata` restores them.
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
        """Return the card of metadata from `to_metadata`.

        Raises KeyError for a missing entry, TypeError for one of another type, ValueError for an unknown model.
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
