"""The values passed between a request's steps: work for a model, a question about an image, and its outcome."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import Context
from dataclasses import dataclass
from typing import Any, TypeAlias

from api.errors import ApiError
from api.link import Link
from api.request import Received
from engines.deadline import Deadline
from models.catalogue import ModelName
from tasks.task import Answer, Options, Prepared, SecondLook, Timing
from vision.arrays import Box
from vision.canvas import ImageFormat
from vision.decoding import PictureFile

# A model, its answer, and the box that it looked at (None: the whole image), to be drawn.
Seen: TypeAlias = tuple[ModelName, Answer, Box | None]
# Counts the bytes of a prepared image. Raises ApiError if there are too many, and Abandoned after the call.
Take: TypeAlias = Callable[[int], None]


@dataclass(frozen=True)
class Work:
    """Work for one model.

    context: holds the request id and the current span. queued: time of arrival, ns of time.monotonic_ns().
    """

    name: ModelName
    link: Link
    deadline: Deadline
    context: Context
    queued: int


@dataclass(frozen=True)
class Request(Work):
    """A whole request to one model: its route and its content."""

    route: str
    received: Received


@dataclass(frozen=True)
class Question:
    """What a call asks one model about an image. box: the part to look at, None for the whole image."""

    name: ModelName
    link: Link
    box: Box | None
    options: Options


@dataclass(frozen=True)
class Second:
    """The prepared input of a second model, for answers that need a second look."""

    look: SecondLook
    prepared: Prepared[Any]


@dataclass(frozen=True)
class Finding:
    """A model's answer to a question. timing: of its first item, None without one. began: as Work.queued."""

    answer: Answer
    timing: Timing | None
    began: int


@dataclass(frozen=True)
class Opened:
    """An image that was decoded once for several questions.

    size: width, height of the upright image. parts: one for each question, in order. Times in ms.
    """

    size: tuple[int, int]
    parts: Sequence[Ready | ApiError]
    read_ms: float
    decode_ms: float
    prepare_ms: float


@dataclass(frozen=True)
class Drawing:
    """An annotated picture that is still to be drawn.

    file: decoded again for drawing, because a queue may hold no pixels. part: the requested box, None if none was sent.
    """

    file: PictureFile
    form: ImageFormat
    part: Box | None


@dataclass(frozen=True)
class Ready:
    """Work whose items are prepared and whose image is freed.

    drawing: None = no picture. decoded: end of decoding, by time.perf_counter(), less the time that the request waited
    before. untrained: whether stand-in weights answer; recorded here, because the runner may be down when the answer is
    encoded.
    """

    work: Work
    prepared: Prepared[Any]
    second: Second | None
    drawing: Drawing | None
    decoded: float
    untrained: bool

    @property
    def image_bytes(self) -> int:
        """Bytes of all prepared images, those for a second look included."""
        items = [*self.prepared.items, *(self.second.prepared.items if self.second else ())]
        return sum(item["image"].nbytes for item in items)
