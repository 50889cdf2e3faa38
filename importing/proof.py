"""Compares exported graphs with the original network on probe images."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import openvino
import torch
from PIL import Image
from torch import Tensor

from importing.errors import GraphInexact, ImportFailure
from importing.loaders.network import Network
from models.store import GRAPH, PROGRAM

_PHOTO = "assets/bus.jpg"  # a street with four people, part of the ultralytics package


def prove(network: Network, folder: Path) -> dict[str, float]:
    """Compare both graphs in `folder` with the original network, and return the largest difference of each metric.

    The graphs are loaded from their files and run as by the engines, in float32. The inputs are one image and a batch
    of three, at each of the network's probe sizes. Raises GraphInexact if a difference exceeds its limit.
    """
    program = torch.export.load(folder / PROGRAM).module()
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    graph = openvino.Core().compile_model(folder / GRAPH, "CPU", settings)
    reached: dict[str, float] = {}
    for batch in _batches(network):
        with torch.inference_mode():
            expected = network.original(batch)
            answers = {PROGRAM: _tuple(program(batch))}
        answers[GRAPH] = tuple(torch.from_numpy(graph([batch.numpy()])[name]) for name in network.outputs)
        for file, actual in answers.items():
            for metric, value in _differences(network, file, expected, actual).items():
                reached[metric] = max(value, reached.get(metric, 0.0))
    return reached


def _differences(
    network: Network, file: str, expected: tuple[Tensor, ...], actual: tuple[Tensor, ...]
) -> dict[str, float]:
    shapes = [tuple(output.shape) for output in expected], [tuple(output.shape) for output in actual]
    if shapes[0] != shapes[1]:
        raise GraphInexact(f"{file} gives outputs of shape {shapes[1]} where the original gives {shapes[0]}")
    figures = network.compare(expected, actual)
    for metric, value in figures.items():
        if not value <= network.limits[metric]:  # NaN exceeds any limit
            limit = network.limits[metric]
            raise GraphInexact(f"{file} differs from the original: {metric} by {value:.2g}, allowed is {limit:.2g}")
    return figures


def _batches(network: Network) -> Iterator[Tensor]:
    """Yield uint8 (1, H, W, 3) and (3, H, W, 3) RGB for each probe size: the photo; then with its mirror and a crop."""
    with Image.open(_photo()) as image:
        photo = image.convert("RGB")
    part = photo.crop((0, photo.height // 4, photo.width // 2, photo.height))
    for height, width in network.probes:
        whole, half = (np.asarray(picture.resize((width, height))) for picture in (photo, part))
        yield torch.from_numpy(whole[None].copy())
        yield torch.from_numpy(np.stack([whole, whole[:, ::-1], half]))


def _photo() -> Path:
    package = find_spec("ultralytics")
    if package is None or package.origin is None:
        raise ImportFailure("the package ultralytics, which the import step needs, is not installed")
    return Path(package.origin).parent / _PHOTO


def _tuple(outputs: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return outputs if isinstance(outputs, tuple) else (outputs,)
