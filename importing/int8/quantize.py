"""Quantizing a model's graph to int8 on pictures of the user's (NNCF), and what that costs."""

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

from api.answers import Options, Picture, prepare
from engines.openvino import OpenVinoEngine, OwnPrecision
from importing.errors import ImportFailure
from importing.int8.exempt import exempt
from models.catalogue import ModelName
from models.store import INT8, Loss, StoredModel
from settings import Settings, get_settings
from tasks.agreement import Seen, measure
from tasks.pipeline import Pipeline, read
from vision.errors import ImageError
from vision.image import RGB

logger = logging.getLogger(__name__)

#: More teach the ranges little: the number that NNCF takes by default.
MAX_PICTURES: Final = 300
MIN_PICTURES: Final = 10

# Biases are corrected layer by layer, each after the layers before it: some seconds, and a mean OKS of 0.991 instead of
# 0.981 (two postures flipped). It changed nothing for depth's transformer.
_OPTIONS: Final[Mapping[ModelName, Mapping[str, Any]]] = MappingProxyType(
    {
        "pose_estimator": {"fast_bias_correction": False},
        "threat_detector": {"fast_bias_correction": False},
        "person_reid": {"fast_bias_correction": False},
        "pet_classifier": {"fast_bias_correction": False},
        "depth_estimator": {"model_type": nncf.ModelType.TRANSFORMER},
    }
)


def calibrate(stored: StoredModel, pictures: Sequence[Path], folder: Path) -> Loss:
    """Write the int8 form of a model's graph into `folder` and say what it costs against f32 on this processor.

    Every other picture calibrates; the loss is over all of them. Of more than MAX_PICTURES so many are taken, evenly.
    Raises ImportFailure where fewer than MIN_PICTURES can be read.
    """
    settings = get_settings()
    exact = _pipeline(stored, stored.graph, "f32", settings)
    readable: list[Path] = []
    inputs: list[NDArray[np.uint8]] = []
    reference: list[Seen] = []
    for path, image in _images(pictures):
        if len(readable) % 2 == 0:
            inputs.append(_input(stored, image, settings))
        reference += exact.run([image])
        readable.append(path)
    if len(readable) < MIN_PICTURES:
        raise ImportFailure(f"int8 needs {MIN_PICTURES} pictures to be calibrated on; {len(readable)} could be read")
    exact.engine.close()
    openvino.save_model(quantize(stored.card.name, stored.graph, inputs), folder / INT8, compress_to_fp16=False)
    reduced = _pipeline(stored, folder / INT8, "int8", settings)
    return measure(stored.card.name, reference, [seen for path in readable for seen in reduced.run([read(path)])])


def quantize(name: ModelName, graph: Path, inputs: Sequence[NDArray[np.uint8]]) -> openvino.Model:
    """An ONNX graph with weights and activations in int8, their ranges taken from inputs (1, h, w, 3) uint8 RGB.

    Raises ImportFailure for a detector in which no head is found: in int8 its boxes would be useless.
    """
    nncf.set_log_level(logging.ERROR)
    # Converted and not just read: that makes one operation of x·sigmoid(x), which else is quantized in two, and slow.
    model = openvino.convert_model(graph)
    return nncf.quantize(
        model,
        nncf.Dataset(inputs),
        preset=nncf.QuantizationPreset.MIXED,  # activations that have a sign keep it
        subset_size=len(inputs),
        ignored_scope=nncf.IgnoredScope(patterns=exempt(name, model)),
        **_OPTIONS[name],
    )


def _images(pictures: Sequence[Path]) -> Iterator[tuple[Path, RGB]]:
    """The pictures that can be read, of too many so many as are used, evenly; one at a time, as they may be large."""
    step = max(1.0, len(pictures) / MAX_PICTURES)
    for index in range(min(len(pictures), MAX_PICTURES)):
        path = pictures[int(index * step)]
        try:
            yield path, read(path)
        except (ImageError, OSError) as error:
            logger.warning("%s is passed over: %s", path, error)


def _pipeline(stored: StoredModel, graph: Path, precision: OwnPrecision, settings: Settings) -> Pipeline:
    engine = OpenVinoEngine(graph, precision, model=stored.card.name, threads=settings.cpu_threads)
    return Pipeline(stored, engine, settings)


def _input(stored: StoredModel, image: RGB, settings: Settings) -> NDArray[np.uint8]:
    """A picture as the network gets it (1, h, w, 3), with a white and a black pixel.

    NNCF takes the mean of the pictures' largest values for the end of a range: without these two pixels everything
    brighter than 226 was clipped, and each value rounded to another. So a detector's 0 to 255 are int8's 256 steps.
    """
    picture = Picture.of(image, None)
    prepared = prepare(stored.card.name, picture, Options(), settings.models, stored.card.input)
    marked = prepared.items[0]["image"][None].copy()
    marked[0, 0, :2] = [[255], [0]]
    return marked
