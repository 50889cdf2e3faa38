"""The task of OSNet x0.25: an embedding by which images of one person are found again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Final, Literal

import numpy as np
from PIL import Image
from pydantic import BaseModel, Field

from engines.batches import Outputs
from models.card import ModelCard, ModelInput
from models.catalogue import ModelName
from tasks.agreement import Figure
from tasks.picture import Picture
from tasks.task import Answer, Item, Options, Prepared, Result, Task, TaskSettings
from vision.arrays import F32
from vision.image import resize

# torchreid/data/transforms.py, build_transforms(height=256, width=128): Resize, bilinear, without the aspect ratio.
HEIGHT: Final = 256
WIDTH: Final = 128


class ReidSettings(TaskSettings):
    """same_person_threshold: the cosine from which two embeddings show one person; auto = as measured."""

    same_person_threshold: Literal["auto"] | Annotated[float, Field(ge=0.0, le=1.0)]


class ReidResult(Result):
    """embedding: (512,) float32, L2-normalised. model_id: ModelCard.model_id of the weights."""

    embedding: F32
    model_id: str


class ReidResponse(Answer):
    """embedding: L2-normalised float32. model_id: its weights; compare only embeddings of one model_id."""

    embedding: list[float]
    embedding_dim: int
    embedding_dimension: int
    model_id: str


class PersonReid(Task[ReidSettings, None, ReidResult, ReidResponse]):
    """See Task."""

    name: ClassVar[ModelName] = "person_reid"
    response: ClassVar[type[BaseModel]] = ReidResponse

    def prepare(
        self,
        picture: Picture,
        options: Options,
        model_input: ModelInput | None = None,  # noqa: ARG002 - OSNet has one size
    ) -> Prepared[None]:
        """Resize the requested part, a person's crop, to the network's input (256, 128, 3)."""
        return Prepared([{"image": resize(picture.part, WIDTH, HEIGHT, Image.Resampling.BILINEAR)}], None, options)

    # Runs beside the engine.

    def warm_up_sizes(self, model_input: ModelInput) -> Sequence[tuple[int, int]]:  # noqa: ARG002 - as above
        """See Task.warm_up_sizes."""
        return ((HEIGHT, WIDTH),)

    def interpret(self, outputs: Outputs, item: Item, card: ModelCard) -> ReidResult:  # noqa: ARG002
        """See Task.interpret. outputs: `embedding` (512,) float32, not normalised.

        Raises ValueError if its length is zero or not finite.
        """
        embedding = outputs[0].astype(np.float64)
        length = float(np.linalg.norm(embedding))
        if not np.isfinite(length) or length == 0:
            raise ValueError(f"the embedding's length is {length}")
        return {"embedding": (embedding / length).astype(np.float32), "model_id": card.model_id}

    # Runs in the API process.

    def answer(self, results: Sequence[ReidResult], prepared: Prepared[None]) -> ReidResponse:  # noqa: ARG002
        """See Task.answer."""
        (result,) = results
        # Rounding shortens the JSON: a float32 holds about seven digits, but a double prints up to seventeen.
        embedding = np.round(result["embedding"].astype(np.float64), 8).tolist()
        length = len(embedding)
        return ReidResponse(
            embedding=embedding, embedding_dim=length, embedding_dimension=length, model_id=result["model_id"]
        )

    # Compares engines and precisions.

    @staticmethod
    def agreement(
        reference: Sequence[tuple[ReidResult, ReidResponse]], other: Sequence[tuple[ReidResult, ReidResponse]]
    ) -> Mapping[str, Figure]:
        """See Task.agreement. A nearest has flipped if an image's most similar reference image is another one."""
        first, second = (np.stack([result["embedding"] for result, _ in side]) for side in (reference, other))
        cosines = (first * second).sum(axis=1)
        nearest = [(side @ first.T - 2 * np.eye(len(first))).argmax(axis=1) for side in (first, second)]
        return {
            "cosine min": Figure(float(cosines.min()), at_least=0.995),
            "cosine mean": Figure(float(cosines.mean())),
            "nearest flipped": Figure(int((nearest[0] != nearest[1]).sum()), at_most=0),
        }
