"""The protocol that all models follow: how a picture becomes a model's input, and its outputs an answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Generic, Literal, NotRequired, TypedDict, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from engines.batches import Outputs
from models.card import ModelCard, ModelInput
from models.catalogue import ModelName
from tasks.agreement import Figure
from tasks.distance import DistanceOptions
from tasks.picture import Picture


class TaskSettings(BaseModel):
    """What configuration.yaml says of every model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    assignment: Literal["light", "heavy"]
    max_batch_size: int = Field(ge=2, le=64)  # BentoML refuses a batchable method with less than two
    idle_ttl_s: float = Field(ge=0)


@dataclass(frozen=True)
class Options:
    """What a caller may choose beside the picture. None is the configuration's value or the documented default."""

    min_confidence: float | None = None
    min_keypoint_confidence: float | None = None
    distance: DistanceOptions | None = None  # of /object-distance alone


class Item(TypedDict):
    """One request to a model: `image` (h, w, 3) uint8 RGB, already of the size that the network takes.

    id: by which `Runner.abandon` finds it. expires: when nobody waits any more, by time.monotonic(), which on Linux is
    one clock for all processes of a machine.
    """

    image: NDArray[np.uint8]
    min_confidence: NotRequired[float]
    id: NotRequired[str]
    expires: NotRequired[float]


class Timing(TypedDict):
    """When a runner was at an item: ns since the epoch, by the clock that all processes of a machine share.

    taken: its batch came out of the queue. loaded: the model was there, and the forward pass began. forwarded: it had
    ended. interpreted: the item's result was there. batch: items in the batch.
    """

    taken: int
    loaded: int
    forwarded: int
    interpreted: int
    batch: int
    engine: str


class Result(TypedDict):
    """What every model's result has beside its own. The runner adds it to what `interpret` gives."""

    timing: NotRequired[Timing]


class Answer(BaseModel):
    """What every 200 has. inference_time_ms: from the decoded image to the result, queueing included."""

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)

    inference_time_ms: float = 0.0
    untrained: Literal[True] | None = Field(None, description="present where random weights answered: a trial only")


SettingsT = TypeVar("SettingsT", bound=TaskSettings)
ViewT = TypeVar("ViewT")
ResultT = TypeVar("ResultT")
AnswerT = TypeVar("AnswerT", bound=Answer)


@dataclass(frozen=True)
class Prepared(Generic[ViewT]):
    """A picture as a model's input, and what is kept of it for the answer.

    items: for the runner. view: where the items' pixels are in the picture. answer_bytes: the memory that `answer`
    takes, where it is as much as a picture.
    """

    items: Sequence[Item]
    view: ViewT
    options: Options = field(default_factory=Options)
    answer_bytes: int = 0


@dataclass(frozen=True)
class SecondLook:
    """Another model that looks at the same picture before an answer stands."""

    name: ModelName
    options: Options


class Task(ABC, Generic[SettingsT, ViewT, ResultT, AnswerT]):
    """One model, from a picture to its answer.

    `prepare` and `answer` run in the API process. `interpret` runs where the engine is: in a runner process, or in the
    API process where the placement is `embedded`.
    """

    name: ClassVar[ModelName]

    def __init__(self, settings: SettingsT) -> None:
        self.settings = settings

    @abstractmethod
    def prepare(self, picture: Picture, options: Options, model_input: ModelInput | None) -> Prepared[ViewT]:
        """Make the model's items out of a picture.

        model_input: the model card's. None where the card is not known; only the pet classifier needs it.
        """

    @abstractmethod
    def warm_up_sizes(self, model_input: ModelInput) -> Sequence[tuple[int, int]]:
        """Height and width of usual inputs, the largest one first."""

    def min_score(self, item: Item) -> float:  # noqa: ARG002 - only detectors have scores
        """The score up to which `interpret` passes a candidate over (see Engine.run)."""
        return 0

    def least_score(self, items: Sequence[Item]) -> float:
        """The `min_score` of a batch, in which each item may have its own."""
        return min((self.min_score(item) for item in items), default=0)

    @abstractmethod
    def interpret(self, outputs: Outputs, item: Item, card: ModelCard) -> ResultT:
        """One image's outputs as a result, which is small: no raw tensors travel between processes."""

    @abstractmethod
    def answer(self, results: Sequence[ResultT], prepared: Prepared[ViewT]) -> AnswerT:
        """The response of one request. results: of its items, in their order."""

    @staticmethod
    @abstractmethod
    def agreement(
        reference: Sequence[tuple[ResultT, AnswerT]], other: Sequence[tuple[ResultT, AnswerT]]
    ) -> Mapping[str, Figure]:
        """How far the answers of another engine or precision to the same pictures are from the reference's."""

    def second_look(self) -> SecondLook | None:
        """Who else has to look at each picture; None: nobody."""
        return None

    def needs_second_look(self, answer: AnswerT) -> bool:  # noqa: ARG002 - there is none
        """Whether an answer stands only after the second look."""
        return False

    def after_second_look(self, answer: AnswerT, seen: Answer | None) -> None:
        """Change an answer by what was seen; None: nobody could look."""

    def audit(self, answer: AnswerT) -> str | None:  # noqa: ARG002 - there is nothing to keep
        """What the audit log has to keep of an answer; None: nothing."""
        return None
