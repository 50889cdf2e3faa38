"""A model's whole way, prepare → engine → interpret → answer, in one process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Final

from api.answers import Picture, prepare
from api.schemas import Answer
from models.catalogue import ModelName
from models.store import StoredModel, find
from runners import batches, depth_estimator, person_reid, pet_classifier, pose_estimator, threat_detector
from runners.contract import Result
from runners.engines import Engine
from runners.engines.errors import OutOfMemory
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


@dataclass(frozen=True)
class Pipeline:
    """A stored model on one engine, under the service's settings."""

    stored: StoredModel
    engine: Engine
    settings: Settings

    def run(self, images: list[RGB], box: Box | None = None) -> list[tuple[Result, Answer]]:
        """The runner's results and the API's answers for upright RGB images, batched as the runner batches."""
        name = self.stored.card.name
        models = self.settings.models
        prepared = [prepare(name, Picture.of(image, box), None, models, self.stored.card.input) for image in images]
        items = [one.item for one in prepared]
        least = ROOMS[name].NETWORK.least_score(items, models[name])
        inputs = [item["image"] for item in items]
        outputs = batches.run(self.engine, inputs, models[name].max_batch_size, lambda: None, least)
        answers = []
        for one, output in zip(prepared, outputs, strict=True):
            if isinstance(output, OutOfMemory):
                raise output
            result = ROOMS[name].interpret(output, one.item, self.stored.card, models[name])
            answers.append((result, one.answer(result)))
        return answers


def stored(name: ModelName) -> StoredModel:
    """The imported model. Raises LookupError where it is not in the store."""
    model = find(name)
    if model is None:
        raise LookupError(f"{name} is not in the model store; run: python -m models.import_models {name}")
    return model


def read(path: Path) -> RGB:
    """An image file as the service decodes it."""
    return open_image(path.read_bytes(), OWN_FILES).decode()
