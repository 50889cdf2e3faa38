"""The steps of one request that run on a thread: read, decode and prepare, then answer and encode."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import copy_context
from itertools import count
from types import MappingProxyType
from typing import Any, Final

from api import metrics
from api.errors import ApiError, ErrorCode, internal_error, invalid_field
from api.gate import Body, request_id
from api.picture_memory import MemoryBudget
from api.pictures import overlay
from api.request import parse
from api.tracing import Spans
from api.work import Drawing, Finding, Opened, Question, Ready, Request, Second, Seen, Take, Work
from engines.deadline import Abandoned, Deadline
from models.catalogue import CATALOGUE, ModelName
from models.state import ModelStatus
from settings import Settings
from tasks import TASKS, AnyTask
from tasks.picture import Picture
from tasks.task import Answer, FileAnswer, Options
from vision import decoding as images
from vision.arrays import RGB, Box
from vision.canvas import Canvas, ImageFormat, canvas_bytes, encode
from vision.colours import VERMILION

logger = logging.getLogger("bentoml.enrichment.api")  # BentoML gives handlers to its own namespace only
audit = logging.getLogger("bentoml.enrichment.audit")

DISTANCE_ROUTE: Final = "/object-distance"
MODEL_OF: Final[Mapping[str, ModelName]] = MappingProxyType(
    {spec.route: name for name, spec in CATALOGUE.items()} | {DISTANCE_ROUTE: "depth_estimator"}
)
_MAP_ROUTE: Final = CATALOGUE["depth_estimator"].route
# Routes with annotated pictures.
_DRAWN: Final = tuple(CATALOGUE[name].route for name, task in TASKS.items() if task.draws)
_IMAGE_ERRORS: Final[Mapping[type[images.ImageError], ErrorCode]] = {
    images.DamagedImage: "invalid_image",
    images.UnsupportedFormat: "unsupported_media_type",
    images.ImageTooLarge: "image_too_large",
}


class Steps:
    """The steps for requests of all routes. Its methods may run on any thread."""

    def __init__(self, settings: Settings, spans: Spans) -> None:
        self._limits = settings.limits
        self._decoding = images.Limits(settings.limits.max_pixels, settings.limits.max_jpeg_scan_pixels)
        self._spans = spans
        self._memory = MemoryBudget(settings.limits.max_picture_bytes)
        self._numbers = count(1)
        self._tasks: Mapping[ModelName, AnyTask] = {name: task(settings.models[name]) for name, task in TASKS.items()}

    def ready(self, work: Request) -> Ready:
        """Read, decode and prepare a request.

        Raises ApiError, or Abandoned after the deadline. The request is checked before the model's state: a client's
        mistake must never be a 5xx.
        """
        waited_s = (time.monotonic_ns() - work.queued) / 1e9
        self._spans.past("wait", work.queued)
        with self._spans.step("read"):
            request = parse(
                work.received,
                self._limits.max_image_bytes,
                wants_distance=work.route == DISTANCE_ROUTE,
                wants_map=work.route == _MAP_ROUTE,
            )
            task = self._tasks[work.name]
            if request.render is not None and not task.draws:
                raise invalid_field("render", f"there is no picture of {work.route}; there are of {', '.join(_DRAWN)}")
            with _image_errors():
                file = images.open_image(request.image, self._decoding)
        status = work.link.model(work.name)  # raises before the costly decoding if the model can't serve
        options = Options(
            request.min_confidence,
            request.min_keypoint_confidence,
            distance=request.distance,
            depth_file=request.depth_file,
        )
        began = time.perf_counter()
        with self._memory.hold(file.peak_bytes, work.deadline):
            waited_s += time.perf_counter() - began
            with self._spans.step("decode"), _image_errors():
                picture = Picture.of(file.decode(), request.box)
            decoded = time.perf_counter() - waited_s  # the latency includes queueing, but not decoding
            with self._spans.step("prepare"):
                form = overlay(request.render, work.received.accept) if task.draws else None
                drawing = None if form is None else Drawing(file, form, picture.frame.box and picture.frame.area)
                return self._prepared(work, picture, options, status, decoded, drawing)

    def opened(self, image: bytes, questions: Sequence[Question], deadline: Deadline, take: Take) -> Opened:
        """Decode an image once, and prepare each question's items.

        deadline: of all questions together. take: called with the bytes that each question's items have.

        Raises ApiError if the image can't be used, and Abandoned. A fault of one question stands in its place.
        """
        began = time.perf_counter()
        with self._spans.step("read"), _image_errors():
            file = images.open_image(image, self._decoding)
        read = time.perf_counter()
        with self._memory.hold(file.peak_bytes, deadline):
            with self._spans.step("decode"), _image_errors():
                upright = file.decode()
            decoded = time.perf_counter()
            pictures: dict[Box | None, Picture] = {}
            with self._spans.step("prepare"):
                parts = [self._part(upright, question, deadline, pictures, decoded, take) for question in questions]
        prepared = time.perf_counter()
        size = (upright.shape[1], upright.shape[0])
        return Opened(size, parts, (read - began) * 1000, (decoded - read) * 1000, (prepared - decoded) * 1000)

    def _part(
        self,
        upright: RGB,
        question: Question,
        deadline: Deadline,
        pictures: dict[Box | None, Picture],
        decoded: float,
        take: Take,
    ) -> Ready | ApiError:
        """Prepare one question's items. pictures: those made so far, by their box. Raises Abandoned."""
        deadline.check()
        try:
            if question.box not in pictures:
                with _image_errors():
                    pictures[question.box] = Picture.of(upright, question.box)
            status = question.link.model(question.name)
            work = Work(question.name, question.link, deadline, copy_context(), time.monotonic_ns())
            ready = self._prepared(work, pictures[question.box], question.options, status, decoded)
            take(ready.image_bytes)
            return ready
        except ApiError as error:
            return error
        except Abandoned:
            raise
        except Exception:
            logger.exception("%s can't take this image; the call is answered without it", question.name)
            return internal_error()

    def _prepared(
        self,
        work: Work,
        picture: Picture,
        options: Options,
        status: ModelStatus,
        decoded: float,
        drawing: Drawing | None = None,
    ) -> Ready:
        task = self._tasks[work.name]
        prepared = task.prepare(picture, options, status["input"])
        for item in prepared.items:
            item["id"] = f"{request_id()}#{next(self._numbers)}"  # callers may repeat a request id
        return Ready(work, prepared, self._second(task, picture), drawing, decoded, status["untrained"])

    def _second(self, task: AnyTask, picture: Picture) -> Second | None:
        look = task.second_look()
        return None if look is None else Second(look, self._tasks[look.name].prepare(picture, look.options, None))

    def answer(self, ready: Ready, results: Sequence[Any]) -> Answer:
        """Return the response, before any second look. Raises Abandoned after the deadline."""
        size, deadline = ready.prepared.answer_bytes, ready.work.deadline
        with self._spans.step("post"), self._memory.hold(size, deadline) if size else nullcontext():
            answer: Answer = self._tasks[ready.work.name].answer(results, ready.prepared)
            return answer

    def second_look(self, ready: Ready, answer: Answer) -> Second | None:
        """Return the second model's input, or None if a second look would not change the answer."""
        return ready.second if self._tasks[ready.work.name].needs_second_look(answer) else None

    def after_second_look(self, ready: Ready, second: Second, answer: Answer, seen: Sequence[Any] | Exception) -> None:
        """Update an answer by the second model's results. seen: the results, or the error that prevented them."""
        other: Answer | None = None
        if isinstance(seen, Exception):
            expected = isinstance(seen, ApiError | Abandoned | TimeoutError)
            logger.warning(
                "%s failed as the second look of %s, whose answer goes out without it: %r",
                second.look.name,
                ready.work.name,
                seen,
                exc_info=None if expected else seen,
            )
        else:
            other = self._tasks[second.look.name].answer(seen, second.prepared)
        self._tasks[ready.work.name].after_second_look(answer, other)

    def finish(self, ready: Ready, results: Sequence[Any], answer: Answer) -> Body | Finding:
        """Return a request's answer as JSON, a file or a picture, or a question's finding.

        Write the audit log and observe the latency. Raises Abandoned after the deadline if it draws a picture.
        """
        work = ready.work
        if (found := self._tasks[work.name].audit(answer)) is not None:
            audit.warning("request %s found %s", request_id(), found)
        elapsed = time.perf_counter() - ready.decoded
        answer.inference_time_ms = round(elapsed * 1000, 2)
        if ready.untrained:
            answer.untrained = True
        if not isinstance(work, Request):
            return Finding(answer, results[0].get("timing") if results else None, work.queued)
        with self._spans.step("encode"):
            metrics.LATENCY.labels(endpoint=work.route).observe(elapsed)
            if isinstance(answer, FileAnswer):
                return Body(answer.data, answer.media_type)
            text = answer.model_dump_json(exclude_unset=True)  # not exclude_none: some answers hold null
        drawing = ready.drawing
        if drawing is None:
            return Body(text.encode())
        return self._drawn(drawing.file, drawing.form, [(work.name, answer, drawing.part)], text, work.deadline)

    def drawn(self, image: bytes, form: ImageFormat, seen: Sequence[Seen], text: str, deadline: Deadline) -> Body:
        """Return an image with several models' answers drawn on it. text: as JSON, which becomes its comment.

        Raises ApiError if the image can't be used, and Abandoned after the deadline.
        """
        with _image_errors():
            return self._drawn(images.open_image(image, self._decoding), form, seen, text, deadline)

    def _drawn(
        self, file: images.PictureFile, form: ImageFormat, seen: Sequence[Seen], text: str, deadline: Deadline
    ) -> Body:
        size = file.peak_bytes + canvas_bytes(file.height, file.width)
        with self._spans.step("draw"), self._memory.hold(size, deadline):
            canvas = Canvas(file.decode())
            if any(answer.untrained for _, answer, _ in seen):
                canvas.note("UNTRAINED stand-in: means nothing", VERMILION)
            for name, answer, part in seen:
                self._tasks[name].draw(canvas, answer, part)
            return Body(encode(canvas.drawn(), form, text), f"image/{form.lower()}")


@contextmanager
def _image_errors() -> Iterator[None]:
    try:
        yield
    except images.BoxOutside as error:
        raise invalid_field("bbox", str(error)) from None
    except images.ImageError as error:
        raise ApiError(_IMAGE_ERRORS[type(error)], str(error)) from None
