"""Quantizes a model's graph to int8 with NNCF, calibrated on the user's pictures, and measures the loss."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import nncf
import numpy as np
import openvino
from numpy.typing import NDArray

from engines.openvino import OpenVinoEngine, OwnPrecision
from importing.errors import ImportFailure
from importing.int8.exempt import exempt
from models.card import Loss
from models.catalogue import CATALOGUE, Quantization
from models.store import INT8, StoredModel
from settings import get_settings
from tasks import TASKS, AnyTask
from tasks.agreement import loss
from tasks.picture import Picture
from tasks.pipeline import Answered, Pipeline, read
from tasks.task import Options
from vision.arrays import RGB
from vision.errors import ImageError

logger = logging.getLogger(__name__)

#: NNCF's default number. More pictures improve the ranges little.
MAX_PICTURES: Final = 300
MIN_PICTURES: Final = 10

# Correct biases layer by layer, each after the layers before it. This takes a few seconds more.
_LAYER_BY_LAYER: Final[Mapping[str, Any]] = MappingProxyType({"fast_bias_correction": False})
_TRANSFORMER: Final[Mapping[str, Any]] = MappingProxyType({"model_type": nncf.ModelType.TRANSFORMER})


def calibrate(stored: StoredModel, pictures: Sequence[Path], folder: Path) -> Loss:
    """Write a model's int8 graph into `folder`, and return its loss against f32 on this processor.

    At most MAX_PICTURES pictures are used, evenly spaced. Every other one calibrates; the loss is over all of them.
    Raises ImportFailure if fewer than MIN_PICTURES can be read.
    """
    settings = get_settings()
    task = TASKS[stored.card.name](settings.models[stored.card.name])
    exact = _pipeline(task, stored, stored.graph, "f32", settings.cpu_threads)
    readable: list[Path] = []
    inputs: list[NDArray[np.uint8]] = []
    reference: list[Answered] = []
    for path, image in _images(pictures):
        if len(readable) % 2 == 0:
            inputs.append(_input(task, stored, image))
        reference += exact.run([image])
        readable.append(path)
    if len(readable) < MIN_PICTURES:
        raise ImportFailure(f"int8 needs {MIN_PICTURES} pictures to be calibrated on; {len(readable)} could be read")
    exact.engine.close()
    openvino.save_model(
        quantize(CATALOGUE[stored.card.name].quantization, stored.graph, inputs), folder / INT8, compress_to_fp16=False
    )
    reduced = _pipeline(task, stored, folder / INT8, "int8", settings.cpu_threads)
    other = [seen for path in readable for seen in reduced.run([read(path)])]
    return loss(len(readable), task.agreement(reference, other))


def quantize(quantization: Quantization, graph: Path, inputs: Sequence[NDArray[np.uint8]]) -> openvino.Model:
    """Quantize the weights and activations of an ONNX graph to int8.

    inputs: (1, h, w, 3) uint8 RGB each, from which the ranges are taken. Raises ImportFailure if a detector's head
    can't be found.
    """
    nncf.set_log_level(logging.ERROR)
    # convert_model fuses x·sigmoid(x) into one operation. read_model would leave two, which are slow in int8.
    model = openvino.convert_model(graph)
    return nncf.quantize(
        model,
        nncf.Dataset(inputs),
        preset=nncf.QuantizationPreset.MIXED,  # asymmetric ranges for activations
        subset_size=len(inputs),
        ignored_scope=nncf.IgnoredScope(patterns=exempt(quantization, model)),
        **(_TRANSFORMER if quantization.transformer else _LAYER_BY_LAYER),
    )


def _images(pictures: Sequence[Path]) -> Iterator[tuple[Path, RGB]]:
    """Yield the readable pictures, at most MAX_PICTURES, evenly spaced. One is in memory at a time."""
    step = max(1.0, len(pictures) / MAX_PICTURES)
    for index in range(min(len(pictures), MAX_PICTURES)):
        path = pictures[int(index * step)]
        try:
            yield path, read(path)
        except (ImageError, OSError) as error:
            logger.warning("%s is skipped, as it can't be read: %s", path, error)


def _pipeline(task: AnyTask, stored: StoredModel, graph: Path, precision: OwnPrecision, threads: int) -> Pipeline:
    engine = OpenVinoEngine(graph, precision, CATALOGUE[task.name].traits, threads=threads)
    return Pipeline(task, stored.card, engine)


def _input(task: AnyTask, stored: StoredModel, image: RGB) -> NDArray[np.uint8]:
    """Return an image as the network's input (1, h, w, 3) uint8, with one white and one black pixel.

    NNCF ends a range at the mean of the images' largest values, which would clip bright pixels. With the two pixels
    the range is 0 to 255, and int8's 256 steps represent every value exactly.
    """
    prepared = task.prepare(Picture.of(image, None), Options(), stored.card.input)
    marked = prepared.items[0]["image"][None].copy()
    marked[0, 0, :2] = [[255], [0]]
    return marked
