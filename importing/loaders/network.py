"""The result of a loader: a checked network, ready for export."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from importing.errors import WeightsRefused
from importing.wording import reason
from models.card import ModelInput


@dataclass(frozen=True)
class Multiples:
    """Input sizes: every height and width from `minimum` to `maximum` pixels that is a multiple of `of`."""

    of: int
    minimum: int
    maximum: int


@dataclass(frozen=True)
class ImageInput:
    """A graph's input: uint8 (batch, height, width, 3) RGB, named `image`.

    size: (height, width) in pixels, or the sizes that it accepts. resize: the official processor's settings for
    resizing; empty if it has none.
    """

    size: tuple[int, int] | Multiples
    resize: Mapping[str, Any] = field(default_factory=dict)

    def to_card(self) -> ModelInput:
        """Return the input in the form of `ModelCard.input`."""
        if isinstance(self.size, Multiples):
            size: dict[str, int | None] = {"height": None, "width": None, "multiple_of": self.size.of}
            size |= {"minimum": self.size.minimum, "maximum": self.size.maximum}
        else:
            size = {"height": self.size[0], "width": self.size[1], "multiple_of": 1}
        fixed = {"name": "image", "dtype": "uint8", "layout": "NHWC", "channels": "RGB"}
        return cast("ModelInput", fixed | size | dict(self.resize))


#: Compares the outputs of original and graph. Returns metric → the largest difference.
Comparison = Callable[[tuple[Tensor, ...], tuple[Tensor, ...]], dict[str, float]]


@dataclass(frozen=True)
class Network:
    """A checked model, ready for export.

    - `graph`: uint8 NHWC RGB batch → the tensors named in `outputs`; normalises inside; for inference only
    - `original`: the same batch → the same tensors, by the official library's processor and unchanged network
    - `probes`: (height, width) of the inputs for the comparison of graph and original
    - `limits`: metric → the largest difference that is accepted
    """

    graph: nn.Module
    original: Callable[[Tensor], tuple[Tensor, ...]]
    image: ImageInput
    outputs: tuple[str, ...]
    labels: tuple[str, ...]
    probes: tuple[tuple[int, int], ...]
    compare: Comparison
    limits: Mapping[str, float]

    def __post_init__(self) -> None:
        self.graph.eval().requires_grad_(False)


class Normalise(nn.Module):
    """Normalises uint8 (B, H, W, 3) RGB to float32 (B, 3, H, W): scaled to 0…1, then (x - mean) / std per channel."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        return (image.permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std


def largest(expected: Tensor, actual: Tensor) -> float:
    """Return the largest absolute difference of two tensors of one shape."""
    return float((expected - actual).abs().max())


@contextmanager
def refusing(path: Path, what: str) -> Iterator[None]:
    """Turn any exception in the block into a WeightsRefused with the reason. what: the expected kind of file.

    Only library calls belong inside: transformers and safetensors don't document what they raise on foreign bytes.
    For torch checkpoints use importing.loaders.checkpoint.
    """
    try:
        yield
    except Exception as error:
        raise WeightsRefused(f"{path.name} is not {what}: {reason(error).replace(str(path), path.name)}") from error
