"""Asks several models about one image, which is decoded once."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Protocol

from api.errors import ApiError, internal_error, refusals
from api.gate import Body
from api.link import Link
from api.work import Finding, Opened, Question, Ready, Seen, Take
from engines.deadline import Abandoned, Deadline
from models.catalogue import ModelName
from tasks.task import Options
from vision.arrays import Box
from vision.canvas import ImageFormat

logger = logging.getLogger("bentoml.enrichment.api")  # BentoML gives handlers to its own namespace only

_SHARE: Final = 0.9  # of the call's time; the rest is left for an answer without the models that were too late
_DEFAULTS: Final = Options()


class Models(Protocol):
    """The models behind their queues. See api.answering.Answering."""

    def check_model(self, name: ModelName, left_s: float, count: int = 1) -> None: ...

    def link(self, name: ModelName) -> Link: ...

    async def open(self, image: bytes, questions: Sequence[Question], deadline: Deadline, take: Take) -> Opened: ...

    async def find(self, part: Ready) -> Finding: ...

    async def draw(
        self, image: bytes, form: ImageFormat, seen: Sequence[Seen], text: str, deadline: Deadline
    ) -> Body: ...


@dataclass(frozen=True)
class Asked:
    """A question of a caller. box: pixels of the upright image, None for the whole image."""

    name: ModelName
    box: Box | None = None
    options: Options = _DEFAULTS


@dataclass(frozen=True)
class Survey:
    """The outcomes of one call. size: width, height of the upright image. findings: one for each question, in order."""

    size: tuple[int, int]
    findings: Sequence[Finding | ApiError]
    read_ms: float
    decode_ms: float
    prepare_ms: float


class PreparedImages:
    """Counts the bytes of prepared images that wait in the models' queues. Thread-safe."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._held = 0
        self._lock = threading.Lock()

    @contextmanager
    def of_call(self) -> Iterator[Take]:
        """Yield the function that counts a prepared image of one call. The images are freed when the block ends.

        It raises ApiError `overloaded` at the limit, and Abandoned after the block's end.
        """
        taken, is_over = 0, False

        def take(size: int) -> None:
            nonlocal taken
            with self._lock:
                if is_over:
                    raise Abandoned
                if self._held and self._held + size > self._most_bytes:
                    text = "too many prepared images wait in memory; ask later, or about fewer boxes at a time"
                    raise ApiError("overloaded", text)
                self._held += size
                taken += size

        try:
            yield take
        finally:
            with self._lock:
                is_over = True
                self._held -= taken


class Surveyor:
    """Makes surveys within a memory limit for the prepared images that wait in the models' queues."""

    def __init__(self, models: Models, most_bytes: int) -> None:
        self._models = models
        self._prepared = PreparedImages(most_bytes)

    async def survey(self, image: bytes, asked: Sequence[Asked], deadline: Deadline) -> Survey:
        """Decode an image once, and ask each question through its model's queue, which batches a model's questions.

        An error of one model or box stands in the place of its answer, `overloaded` if too many prepared images wait.
        Raises ApiError if the image can't be used, and Abandoned if it is not decoded before the deadline.
        """
        refused = self._refused(asked, deadline.left_s)
        questions = [
            Question(each.name, self._models.link(each.name), each.box, each.options)
            for each in asked
            if each.name not in refused
        ]
        own = Deadline.after(deadline.left_s * _SHARE)
        try:
            with self._prepared.of_call() as take:
                opened = await self._models.open(image, questions, own, take)
                found = iter(await asyncio.gather(*map(self._find, opened.parts)))
        finally:
            own.abandon()
        findings = [refused[each.name] if each.name in refused else next(found) for each in asked]
        return Survey(opened.size, findings, opened.read_ms, opened.decode_ms, opened.prepare_ms)

    def _refused(self, asked: Sequence[Asked], left_s: float) -> Mapping[ModelName, ApiError]:
        """Return the errors of the models that can't serve, or not in time."""
        counts = Counter(each.name for each in asked)

        def check(name: ModelName) -> None:
            self._models.link(name)
            self._models.check_model(name, left_s, counts[name])

        return refusals(counts, check)

    async def _find(self, part: Ready | ApiError) -> Finding | ApiError:
        if isinstance(part, ApiError):
            return part
        try:
            async with asyncio.timeout(part.work.deadline.left_s):
                return await self._models.find(part)
        except ApiError as error:
            return error
        except (TimeoutError, Abandoned):
            return ApiError("timeout", f"{part.work.name} had no result in time")
        except Exception:
            logger.exception("%s failed in a call to several models, which is answered without it", part.work.name)
            return internal_error()
