"""A fake engine and a fake model store: outputs of the real shapes, computed from the pixels, without weights.

Each answer can be traced to its own image: detections are where the image is green and score by its red, embeddings
hold its colour, depth is its grey. Some colours make the engine misbehave.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from engines.device import Gpu
from engines.engine import Engine, Images, Shape
from engines.errors import DeviceLost, EngineError, OutOfMemory
from models.card import ModelCard, ModelInput
from models.catalogue import CATALOGUE, ModelName
from models.store import StoredModel, StoreError
from settings import Settings
from tests.engines.nvml import Card

F32 = NDArray[np.float32]
Colour = tuple[int, int, int]

MARKER: Final[Colour] = (0, 255, 0)  # a rectangle of it is what the fake detectors see
RAISES: Final[Colour] = (255, 0, 254)  # the engine raises on this image and whatever shares its batch
CRASHES: Final[Colour] = (255, 2, 253)  # the runner process dies
HANGS: Final[Colour] = (255, 9, 246)  # the engine never returns
DROPS: Final[Colour] = (255, 3, 252)  # the engine gives one result fewer than it got images
ADDS: Final[Colour] = (255, 4, 251)  # one more
HUNGRY: Final[Colour] = (255, 6, 249)  # the device has no memory for any batch with it
LOST: Final[Colour] = (255, 7, 248)  # the device is lost
NOT_FINITE: Final[Colour] = (255, 5, 250)  # the image's own outputs are NaN, its neighbours' are right
SECRET: Final = "/secret/weights.onnx"  # stands in what the engine raises, and must never reach a client

THREATS: Final = ("Gun", "explosion", "grenade", "knife")
PET_INPUT: Final[Any] = {"height": 224, "width": 224, "shortest_edge": 224, "crop_pct": 0.875, "resample": 3}
# Environment of the fake store: folders in which a file of a model's name makes it so.
ABSENT: Final = "FAKE_ABSENT"
UNLOADABLE: Final = "FAKE_UNLOADABLE"  # the file's text is the EngineError's
DAMAGED: Final = "FAKE_DAMAGED"  # the file's text is the StoreError's
UNTRAINED: Final = "FAKE_UNTRAINED"
SLOW: Final = "FAKE_SLOW"  # the file's text is the seconds that loading takes
FOLDER: Final = "FAKE_FOLDER"  # of every model in the fake store, with `weights/` in it
MEMORY: Final = "FAKE_MEMORY"  # the file's text is the memory that the engine takes, in 10⁶ bytes

# The made-up card that engines take their memory of, where tests/serving/fake_gpu.py has put one in.
CARD: Card | None = None

# A standing figure in a box: x, y as fractions of its width and height. The left ear is not seen.
# fmt: off
FIGURE: Final = (
    (.50, .06), (.53, .05), (.47, .05), (.56, .06), (.44, .06), (.65, .20), (.35, .20), (.68, .35), (.32, .35),
    (.68, .50), (.32, .50), (.60, .52), (.40, .52), (.60, .75), (.40, .75), (.60, .98), (.40, .98),
)
# fmt: on
LEFT_EAR: Final = 3


def sleeper(seconds: float) -> Colour:
    """The colour of an image on which the engine sleeps; tenths of a second, at most 25.5."""
    return (255, 1, round(seconds * 10))


def busy(seconds: float) -> Colour:
    """The colour of an image on which the engine computes for so long; tenths of a second, at most 25.5."""
    return (255, 8, round(seconds * 10))


def score(red: int) -> float:
    """The confidence with which the detectors see something in an image of that red."""
    return 0.3 + 0.6 * red / 255


class FakeEngine:
    """Runs one model's made-up arithmetic on each image of a batch."""

    precision = "f32"

    def __init__(self, model: ModelName, name: str = "openvino", memory_mb: float = 0) -> None:
        """memory_mb: what it really takes of the process's memory, in 10⁶ bytes."""
        self._model = model
        self.name = name
        self._held = np.ones(int(memory_mb * 1e6), np.uint8)
        self._on_card(self._held.nbytes)

    def warm_up(self, shapes: Sequence[Shape]) -> None:
        for shape in shapes:
            self.run(np.zeros(shape, np.uint8))

    def close(self) -> None:
        self._on_card(-self._held.nbytes)
        del self._held

    def _on_card(self, size: int) -> None:
        if self.name != "openvino" and CARD is not None:
            CARD.processes[os.getpid()] = (CARD.processes.get(os.getpid()) or 0) + size

    def run(self, images: Images, min_confidence: float = 0, **_: object) -> tuple[F32, ...]:
        colours = [_centre(image) for image in images]
        if CRASHES in colours:
            os._exit(9)
        if HANGS in colours:
            threading.Event().wait()
        if HUNGRY in colours:
            raise OutOfMemory(f"CUDA out of memory, made up: {SECRET}")
        if LOST in colours:
            raise DeviceLost("CUDA error: an illegal memory access was encountered (made up)")
        if RAISES in colours:
            raise RuntimeError(f"made up: {SECRET}")
        time.sleep(max((colour[2] / 10 for colour in colours if colour[:2] == (255, 1)), default=0))
        end = time.perf_counter() + max((colour[2] / 10 for colour in colours if colour[:2] == (255, 8)), default=0)
        while time.perf_counter() < end:
            pass
        rows = [self._outputs(image, colour) for image, colour in zip(images, colours, strict=True)]
        for row, colour in zip(rows, colours, strict=True):
            if colour == NOT_FINITE:
                for output in row:
                    output.fill(np.nan)
        outputs = [np.stack(output) for output in zip(*rows, strict=True)]
        if DROPS in colours:
            outputs = [output[1:] for output in outputs]
        if ADDS in colours:
            outputs = [np.concatenate([output[:1], output]) for output in outputs]
        return tuple(outputs)

    def _outputs(self, image: NDArray[np.uint8], colour: Colour) -> tuple[F32, ...]:
        red, green, blue = colour
        match self._model:
            case "pose_estimator":
                return (_candidates(image, colour, 1, _figure(_seen(image))),)
            case "threat_detector":
                return (_candidates(image, colour, len(THREATS), np.zeros(0)),)
            case "person_reid":
                embedding = np.zeros(512, np.float32)
                embedding[:4] = red, green, blue, 64
                return (embedding,)
            case "pet_classifier":
                logit = (red - blue) / 16
                return np.array([-logit, logit], np.float32), np.zeros(512, np.float32)
            case "depth_estimator":
                return (image.mean(axis=2, dtype=np.float32),)


def colour_of(embedding: list[float]) -> Colour:
    """The colour of the image that an embedding was made of."""
    red, green, blue = (round(value / embedding[3] * 64) for value in embedding[:3])
    return red, green, blue


def find(name: ModelName, *, untrained: bool = False) -> StoredModel | None:
    """Stands in for models.store.find."""
    if (damage := _note(DAMAGED, name)) is not None:
        raise StoreError(damage)
    if _note(ABSENT, name) is not None or (_note(UNTRAINED, name) is not None) is not untrained:
        return None
    spec = CATALOGUE[name]
    labels = {
        "pose_estimator": ("person",),
        "threat_detector": THREATS,
        "pet_classifier": ("cats", "dogs"),
    }.get(name, ())
    card = ModelCard(
        name=name,
        weights=spec.weights,
        sha256="0123456789abcdef" * 4,
        source="made up",
        licence=spec.licence,
        labels=labels,
        input=PET_INPUT if name == "pet_classifier" else cast("ModelInput", {"height": None, "width": None}),
        outputs=(),
        tolerance={},
        conversion=1,
        untrained=untrained,
    )
    return StoredModel(f"{name}:fake", Path(os.environ.get(FOLDER, "/nowhere")), card)


def load(stored: StoredModel, settings: Settings, gpu: Gpu | None) -> Engine:
    """Stands in for runners.engine_choice.load."""
    name = stored.card.name
    time.sleep(float(_note(SLOW, name) or 0))
    if (complaint := _note(UNLOADABLE, name)) is not None:
        raise EngineError(complaint)
    return FakeEngine(name, "openvino" if gpu is None else "torch", float(_note(MEMORY, name) or 0))


def _note(variable: str, name: ModelName) -> str | None:
    folder = os.environ.get(variable)
    note = Path(folder, name) if folder else None
    return note.read_text(encoding="utf-8") if note and note.is_file() else None


def _centre(image: NDArray[np.uint8]) -> Colour:
    red, green, blue = (int(value) for value in image[image.shape[0] // 2, image.shape[1] // 2])
    return red, green, blue


def _seen(image: NDArray[np.uint8]) -> tuple[float, float, float, float]:
    """Left, top, right, bottom of the marker; of the middle half of the image where there is none."""
    height, width = image.shape[:2]
    rows, columns = np.nonzero((image[..., 1] > 180) & (image[..., 0] < 80) & (image[..., 2] < 80))
    if not len(rows):
        return width / 4, height / 4, width * 3 / 4, height * 3 / 4
    return float(columns.min()), float(rows.min()), float(columns.max()) + 1, float(rows.max()) + 1


def _figure(box: tuple[float, float, float, float]) -> NDArray[np.float64]:
    left, top, right, bottom = box
    points = np.array(FIGURE) * (right - left, bottom - top) + (left, top)
    confidences = np.full((len(FIGURE), 1), 0.9)
    confidences[LEFT_EAR] = 0.1
    return np.hstack([points, confidences]).ravel()


def _candidates(image: NDArray[np.uint8], colour: Colour, classes: int, extras: NDArray[np.float64]) -> F32:
    """A YOLO head's output: what is seen twice, the second time a little worse and to the side, and a faint nothing."""
    left, top, right, bottom = _seen(image)
    certainty = 0.0 if colour == (0, 0, 0) else score(colour[0])
    scores = np.zeros(classes)
    scores[colour[2] * classes // 256] = certainty
    box = ((left + right) / 2, (top + bottom) / 2, right - left, bottom - top)
    beside = (box[0] + 1, box[1], box[2], box[3])
    head = [(*box, *scores, *extras), (*beside, *(scores * 0.9), *extras), (*box, *(scores * 0.1), *extras)]
    return np.array(head, np.float32).T
