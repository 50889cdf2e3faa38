"""The base class of all tasks: turns an image into a model's input, and the model's outputs into an answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Literal, NamedTuple, NotRequired, TypedDict, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from engines.batches import Outputs
from models.card import ModelCard, ModelInput
from models.catalogue import ModelName
from tasks.agreement import Figure
from tasks.distance import DistanceOptions
from tasks.picture import Picture
from vision.arrays import Box
from vision.canvas import Canvas
from vision.depth_map import FileForm


class TaskSettings(BaseModel):
    """The settings in configuration.yaml that every model has."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    assignment: Literal["light", "heavy"]
    max_batch_size: int = Field(ge=2, le=64)  # BentoML refuses a batchable method with less than 2
    idle_ttl_s: float = Field(ge=0)


@dataclass(frozen=True)
class SceneOptions:
    """What a call wants of a scene. boxes: in pixels of the upright image. wants_map: whether to return the map."""

    boxes: tuple[Box, ...]
    wants_map: bool


@dataclass(frozen=True)
class Options:
    """A caller's options. None means the setting or the documented default."""

    min_confidence: float | None = None
    min_keypoint_confidence: float | None = None
    distance: DistanceOptions | None = None  # only for /object-distance
    scene: SceneOptions | None = None  # only for a model that sees a scene
    depth_file: FileForm | None = None  # only for /depth-estimate; None = JSON


class Item(TypedDict):
    """One input of a model.

    image: (h, w, 3) uint8 RGB in the network's input size. id: the key for `Runner.abandon`. expires: the request's
    deadline by time.monotonic(), which on Linux is one clock for all processes of a machine.
    """

    image: NDArray[np.uint8]
    min_confidence: NotRequired[float]
    id: NotRequired[str]
    expires: NotRequired[float]


class Timing(TypedDict):
    """The times of a runner's work on an item, in ns of time.monotonic_ns(), which the processes of a machine share.

    taken: its batch left the queue. loaded: the model was loaded and the forward pass began. forwarded: the forward
    pass ended. interpreted: the item's result was ready. batch: number of items in the batch.
    """

    taken: int
    loaded: int
    forwarded: int
    interpreted: int
    batch: int
    engine: str


class Result(TypedDict):
    """The part that all models' results share. The runner adds the timing."""

    timing: NotRequired[Timing]


class Label(NamedTuple):
    """A name for a part of the image. box: x1, y1, x2, y2 in its pixels; None for the part that the model was shown."""

    name: str
    confidence: float
    box: Box | None


class Answer(BaseModel):
    """The part that all 200 answers share. inference_time_ms: from the decoded image to the result, with queueing."""

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)

    inference_time_ms: float = 0.0
    untrained: Literal[True] | None = Field(None, description="present if random weights answered, in a trial only")

    @property
    def of_boxes(self) -> Sequence[BaseModel | None]:
        """The answer for each box in SceneOptions, None for a box outside of the image."""
        return ()

    @property
    def labels(self) -> Sequence[Label]:
        """What it names, for clients that read labels and boxes alone. See Task.gives_labels."""
        return ()


class FileAnswer(Answer):
    """An answer that is a file of its own, not JSON."""

    data: bytes
    media_type: str


SettingsT = TypeVar("SettingsT", bound=TaskSettings)
ViewT = TypeVar("ViewT")
ResultT = TypeVar("ResultT")
AnswerT = TypeVar("AnswerT", bound=Answer)


@dataclass(frozen=True)
class Prepared(Generic[ViewT]):
    """An image as a model's input, and the data that the answer needs.

    items: for the runner. view: maps the items' pixels back to the image. answer_bytes: memory that `answer` takes;
    0 if it is small beside an image.
    """

    items: Sequence[Item]
    view: ViewT
    options: Options = field(default_factory=Options)
    answer_bytes: int = 0


@dataclass(frozen=True)
class SecondLook:
    """Another model that analyses the same image before an answer is final."""

    name: ModelName
    options: Options


class Task(ABC, Generic[SettingsT, ViewT, ResultT, AnswerT]):
    """One model's way from an image to an answer.

    `prepare` and `answer` run in the API process. `interpret` runs beside the engine: in a runner process, or in the
    API process with the placement `embedded`.
    """

    name: ClassVar[ModelName]
    #: The model's input in a call to several models about several boxes: the frame, each box, or the frame once as the
    #: scene of all boxes.
    sees: ClassVar[Literal["frame", "box", "scene"]] = "box"
    #: The response of its own route, and its answers in a call to several models: on the frame and on a box.
    response: ClassVar[type[BaseModel]]
    frame_response: ClassVar[type[BaseModel]]
    box_response: ClassVar[type[BaseModel]]
    #: Names of the options that it takes in a call to several models.
    option_names: ClassVar[tuple[str, ...]] = ()
    #: Whether its answers have labels.
    gives_labels: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Default frame_response and box_response to the class's `response`."""
        super().__init_subclass__(**kwargs)
        if "response" in cls.__dict__:
            cls.frame_response = cls.__dict__.get("frame_response", cls.response)
            cls.box_response = cls.__dict__.get("box_response", cls.response)

    #: Whether `draw` draws anything.
    draws: ClassVar[bool] = False

    def __init__(self, settings: SettingsT) -> None:
        self.settings = settings

    @abstractmethod
    def prepare(self, picture: Picture, options: Options, model_input: ModelInput | None) -> Prepared[ViewT]:
        """Make the model's items from a picture.

        model_input: the model card's; None if the card is unknown. Only the pet classifier needs it.
        """

    @abstractmethod
    def warm_up_sizes(self, model_input: ModelInput) -> Sequence[tuple[int, int]]:
        """Return height and width of usual inputs in pixels, the largest first."""

    def min_confidence(self, item: Item) -> float:  # noqa: ARG002 - only detectors have candidates
        """Return the confidence that a candidate must exceed to be interpreted (see Engine.run)."""
        return 0

    def least_confidence(self, items: Sequence[Item]) -> float:
        """Return the least `min_confidence` in a batch. Each item may have its own."""
        return min((self.min_confidence(item) for item in items), default=0)

    @abstractmethod
    def interpret(self, outputs: Outputs, item: Item, card: ModelCard) -> ResultT:
        """Turn one item's outputs into a result. It is small: raw tensors never travel between processes."""

    @abstractmethod
    def answer(self, results: Sequence[ResultT], prepared: Prepared[ViewT]) -> AnswerT:
        """Return the response of one request. results: one for each of its items, in order."""

    @staticmethod
    @abstractmethod
    def agreement(
        reference: Sequence[tuple[ResultT, AnswerT]], other: Sequence[tuple[ResultT, AnswerT]]
    ) -> Mapping[str, Figure]:
        """Compare another engine's or precision's answers with the reference's, for the same images."""

    def second_look(self) -> SecondLook | None:
        """Return the model that also has to analyse each image, or None."""
        return None

    def needs_second_look(self, answer: AnswerT) -> bool:  # noqa: ARG002 - there is none
        """Whether an answer is final only after the second look."""
        return False

    def after_second_look(self, answer: AnswerT, seen: Answer | None) -> None:
        """Update an answer in place by the second model's answer. seen: None if the second look failed."""

    def draw(self, canvas: Canvas, answer: AnswerT, part: Box | None = None) -> None:
        """Draw an answer onto its picture. part: the requested box, None for the whole image."""

    def audit(self, answer: AnswerT) -> str | None:  # noqa: ARG002 - there is nothing to keep
        """Return the audit log's entry for an answer, or None."""
        return None
