"""The task of the ResNet-18 for cats and dogs. A second look for people guards it: it calls children dogs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
from PIL import Image
from pydantic import BaseModel, Field

from engines.batches import Outputs
from models.card import ModelCard, ModelInput
from models.catalogue import ModelName
from tasks.agreement import Figure
from tasks.picture import Picture
from tasks.pose_estimator import PoseResponse
from tasks.task import Answer, Item, Label, Options, Prepared, Result, SecondLook, Task, TaskSettings
from vision.arrays import Box
from vision.canvas import Canvas
from vision.colours import GREEN, SKY
from vision.image import resize, resize_shortest_edge


class PetSettings(TaskSettings):
    """min_confidence: of a household pet. person_veto: confidence of a person who rules one out; 0 = no second look."""

    min_confidence: float = Field(ge=0.0, le=1.0)
    person_veto: float = Field(ge=0.0, le=1.0)


class PetResult(Result):
    """probabilities: the checkpoint's label → softmax probability."""

    probabilities: dict[str, float]


class PetResponse(Answer):
    """confidence: the softmax probability of pet_type."""

    pet_type: str
    breed: str
    confidence: float
    is_household_pet: bool
    cat_score: float
    dog_score: float
    probabilities: dict[str, float]
    person_in_view: bool | None = Field(
        None,
        description="whether the pose model found a person; absent if it was not asked, null if it could not answer",
        json_schema_extra={"type": ["boolean", "null"]},
    )

    @property
    def labels(self) -> Sequence[Label]:
        """See Answer.labels. Only a household pet has one, because the softmax calls everything a cat or a dog."""
        return [Label(self.pet_type, self.confidence, None)] if self.is_household_pet else []


class PetClassifier(Task[PetSettings, None, PetResult, PetResponse]):
    """See Task."""

    name: ClassVar[ModelName] = "pet_classifier"
    response: ClassVar[type[BaseModel]] = PetResponse
    draws: ClassVar[bool] = True
    gives_labels: ClassVar[bool] = True

    def prepare(self, picture: Picture, options: Options, model_input: ModelInput | None) -> Prepared[None]:
        """Resize an image to the network's input (height, width, 3), as the checkpoint's processor does.

        With `shortest_edge` and `crop_pct` of transformers' ConvNextImageProcessor, the shorter side becomes
        shortest_edge / crop_pct, and the centre is cropped. Otherwise the whole image is stretched.
        """
        assert model_input is not None
        resample = Image.Resampling(model_input["resample"])
        if "shortest_edge" in model_input:
            side = model_input["shortest_edge"]
            image = resize_shortest_edge(picture.part, int(side / model_input["crop_pct"]), side, resample)
        else:
            height, width = _size(model_input)
            image = resize(picture.part, width, height, resample)
        return Prepared([{"image": image}], None, options)

    # Runs beside the engine.

    def warm_up_sizes(self, model_input: ModelInput) -> Sequence[tuple[int, int]]:
        """See Task.warm_up_sizes."""
        return (_size(model_input),)

    def interpret(self, outputs: Outputs, item: Item, card: ModelCard) -> PetResult:  # noqa: ARG002
        """See Task.interpret. outputs: `logits` (classes,) float32 in the card's order of labels, then `features`."""
        logits = outputs[0].astype(np.float64)
        exponentials = np.exp(logits - logits.max())
        probabilities = exponentials / exponentials.sum()
        return {"probabilities": dict(zip(card.labels, probabilities.tolist(), strict=True))}

    # Runs in the API process.

    def answer(self, results: Sequence[PetResult], prepared: Prepared[None]) -> PetResponse:  # noqa: ARG002
        """See Task.answer."""
        (result,) = results
        probabilities = {_species(label): value for label, value in result["probabilities"].items()}
        pet_type, confidence = max(probabilities.items(), key=lambda pair: pair[1])
        return PetResponse(
            pet_type=pet_type,
            breed="unknown",
            confidence=round(confidence, 4),
            is_household_pet=pet_type in {"cat", "dog"} and confidence >= self.settings.min_confidence,
            cat_score=round(probabilities.get("cat", 0.0), 4),
            dog_score=round(probabilities.get("dog", 0.0), 4),
            probabilities={label: round(value, 4) for label, value in probabilities.items()},
        )

    def second_look(self) -> SecondLook | None:
        """The pose estimator looks for people."""
        veto = self.settings.person_veto
        return SecondLook("pose_estimator", Options(min_confidence=veto)) if veto else None

    def needs_second_look(self, answer: PetResponse) -> bool:
        """See Task.needs_second_look. Only a household pet can be ruled out."""
        return answer.is_household_pet

    def after_second_look(self, answer: PetResponse, seen: Answer | None) -> None:
        """See Task.after_second_look. It stays a household pet only if the second look saw no person."""
        answer.person_in_view = seen.num_people > 0 if isinstance(seen, PoseResponse) else None
        answer.is_household_pet = answer.person_in_view is False

    def draw(self, canvas: Canvas, answer: PetResponse, part: Box | None = None) -> None:
        """See Task.draw. The verdict labels the requested box, or the whole picture."""
        verdict = "household pet" if answer.is_household_pet else "no household pet"
        why = " (person in view)" if answer.person_in_view else ""
        text = f"{answer.pet_type} {answer.confidence:.2f}, {verdict}{why}"
        colour = GREEN if answer.is_household_pet else SKY
        if part is None:
            canvas.note(text, colour)
        else:
            canvas.box(part, colour, text)

    # Compares engines and precisions.

    @staticmethod
    def agreement(
        reference: Sequence[tuple[PetResult, PetResponse]], other: Sequence[tuple[PetResult, PetResponse]]
    ) -> Mapping[str, Figure]:
        """Compare the answers, whose probabilities stand under the contract's names."""
        pairs = [(one, two) for (_, one), (_, two) in zip(reference, other, strict=True)]
        changes = [
            abs(value - two.probabilities[label]) for one, two in pairs for label, value in one.probabilities.items()
        ]
        return {
            "probability ±": Figure(max(changes), at_most=0.03),
            "labels flipped": Figure(sum(one.pet_type != two.pet_type for one, two in pairs), at_most=0),
            "is_household_pet flipped": Figure(
                sum(one.is_household_pet != two.is_household_pet for one, two in pairs), at_most=0
            ),
        }


def _size(model_input: ModelInput) -> tuple[int, int]:
    """Return the fixed height and width of a classifier's input."""
    height, width = model_input["height"], model_input["width"]
    assert height is not None
    assert width is not None
    return height, width


def _species(label: str) -> str:
    """Return the contract's `cat` or `dog` for `cats`, `Cat`, `dogs` …, and any other label unchanged."""
    name = label.casefold()
    return next((species for species in ("cat", "dog") if name in {species, f"{species}s"}), label)
