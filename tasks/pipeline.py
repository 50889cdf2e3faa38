"""A model's whole way, prepare → engine → interpret → answer, in one process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Final

from api.answers import Options, Picture, prepare
from api.schemas import Answer
from engines import Engine, batches
from engines.errors import OutOfMemory
from models.catalogue import ModelName
from models.store import StoredModel, find
from runners import depth_estimator, person_reid, pet_classifier, pose_estimator, threat_detector
from runners.contract import Item, Result
from settings import Settings
from vision.decoding import OWN_FILES, open_image
from vision.image import RGB, Box

ROOMS: Final[dict[ModelName, ModuleType]] = {
    "pose_estimator": pose_estimator,
    "threat_detector": threat_detector,
    "person_reid": person_reid,
    "pet_classifier": pet_classifier,
    "depth_estimator": depth_estimator,
}

_DEFAULTS: Final = Options()


@dataclass(frozen=True)
class Pipeline:
    """A stored model on one engine, under the service's settings."""

    stored: StoredModel
    engine: Engine
    settings: Settings

    def run(
        self, images: Sequence[RGB], box: Box | None = None, options: Options = _DEFAULTS
    ) -> list[tuple[Result, Answer]]:
        """The runner's result for the first view and the API's answer for each upright RGB image, batched as there."""
        name = self.stored.card.name
        pictures = [Picture.of(image, box) for image in images]
        card = self.stored.card
        prepared = [prepare(name, picture, options, self.settings.models, card.input) for picture in pictures]
        results = iter(self.results([item for one in prepared for item in one.items]))
        answers = []
        for one in prepared:
            own = [next(results) for _ in one.items]
            answers.append((own[0], one.answer(own)))
        return answers

    def results(self, items: Sequence[Item]) -> list[Result]:
        """The runner's result for each item."""
        card, settings = self.stored.card, self.settings.models[self.stored.card.name]
        room = ROOMS[card.name]
        images = [item["image"] for item in items]
        least = room.NETWORK.least_score(items, settings)
        results = []
        for output, item in zip(
            batches.run(self.engine, images, settings.max_batch_size, lambda: None, least), items, strict=True
        ):
            if isinstance(output, OutOfMemory):
                raise output
            results.append(room.interpret(output, item, card, settings))
        return results


def stored(name: ModelName) -> StoredModel:
    """The imported model. Raises LookupError where it is not in the store."""
    model = find(name)
    if model is None:
        raise LookupError(f"{name} is not in the model store; run: python -m models.import_models {name}")
    return model


def read(path: Path) -> RGB:
    """An image file as the service decodes it."""
    return open_image(path.read_bytes(), OWN_FILES).decode()
