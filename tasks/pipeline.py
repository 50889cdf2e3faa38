"""Runs a model's task and engine in one process (prepare → engine → interpret → answer), to compare and measure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from engines import batches
from engines.engine import Engine
from engines.errors import OutOfMemory
from models.card import ModelCard
from tasks import AnyTask
from tasks.picture import Picture
from tasks.task import Answer, Item, Options, Result
from vision.arrays import RGB, Box
from vision.decoding import OWN_FILES, open_image

Answered: TypeAlias = tuple[Result, Answer]  # for one image: the runner's result and the API's answer
_DEFAULTS: Final = Options()


@dataclass(frozen=True)
class Pipeline:
    """A model on one engine, under the service's settings."""

    task: AnyTask
    card: ModelCard
    engine: Engine

    def run(self, images: Sequence[RGB], box: Box | None = None, options: Options = _DEFAULTS) -> list[Answered]:
        """Return the first view's result and the answer for each upright RGB image, in batches as the service makes.

        images: (h, w, 3) uint8 each. Raises OutOfMemory if the device has too little memory.
        """
        pictures = [Picture.of(image, box) for image in images]
        prepared = [self.task.prepare(picture, options, self.card.input) for picture in pictures]
        results = iter(self.results([item for one in prepared for item in one.items]))
        answers = []
        for one in prepared:
            own = [next(results) for _ in one.items]
            answers.append((own[0], self.task.answer(own, one)))
        return answers

    def results(self, items: Sequence[Item]) -> list[Result]:
        """Return the runner's result for each item. Raises OutOfMemory if the device has too little memory."""
        images = [item["image"] for item in items]
        largest, least = self.task.settings.max_batch_size, self.task.least_confidence(items)
        results: list[Result] = []
        for output, item in zip(batches.run(self.engine, images, largest, lambda: None, least), items, strict=True):
            if isinstance(output, OutOfMemory):
                raise output
            results.append(self.task.interpret(output, item, self.card))
        return results


def read(path: Path) -> RGB:
    """Decode an image file as the service does: (h, w, 3) uint8, upright RGB."""
    return open_image(path.read_bytes(), OWN_FILES).decode()
