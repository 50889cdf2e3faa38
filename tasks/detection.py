"""The part that the two YOLO tasks share: views of an image as inputs, and coordinates mapped back to the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from models.card import ModelInput
from tasks.picture import Frame, Picture
from tasks.task import AnswerT, Item, Options, Prepared, ResultT, Task, TaskSettings
from vision.arrays import F32, Box
from vision.image import LETTERBOX_SIZES, Letterbox, letterbox
from vision.views import WHOLE, has_centre, share_inside, views

INPUT_SIZE: Final = 640  # pixels; ultralytics' default imgsz, at which the public weights were trained
STRIDE: Final = 32  # pixels; stride of the head's coarsest level


class DetectorSettings(TaskSettings):
    """A detector's settings in configuration.yaml."""

    use_tensorrt: bool
    min_confidence: float = Field(ge=0.0, le=1.0)
    iou_threshold: float = Field(ge=0.0, le=1.0)


@dataclass(frozen=True)
class Look:
    """A view of an image as a detector's input, with the data that maps its coordinates back.

    corner, core: see vision.views.View. fitted: the letterboxed pixels.
    """

    corner: tuple[int, int]
    core: Box
    fitted: Letterbox
    frame: Frame

    def to_image(self, points: F32) -> F32:
        """Map points (..., 2) from the network's input to the image's pixels, clipped to the image."""
        points = self.fitted.to_image(points) + np.array(self.corner, dtype=np.float32)
        return np.clip(points, 0, np.array(self.frame.size, dtype=np.float32))

    def counts(self, boxes: F32, least_share: float) -> NDArray[np.bool_]:
        """Return (n,) bool: whether each of the image's boxes (n, 4) belongs to this view and to the requested box.

        least_share: least share of a box that must lie inside the requested box.
        """
        counted = has_centre(boxes, self.core, INPUT_SIZE * WHOLE / self.fitted.scale[0])
        if self.frame.box is not None:
            counted &= share_inside(boxes, self.frame.box) >= least_share
        return counted


class Detector(Task[DetectorSettings, Sequence[Look], ResultT, AnswerT]):
    """A YOLO model's task: letterboxed views of the image in, boxes with scores out."""

    sees: ClassVar[Literal["frame", "box", "scene"]] = "frame"
    gives_labels: ClassVar[bool] = True
    #: The least share of a detection's box that must lie inside the requested box.
    least_share: ClassVar[float]

    def prepare(
        self,
        picture: Picture,
        options: Options,
        model_input: ModelInput | None = None,  # noqa: ARG002 - the network takes any multiple of its stride
    ) -> Prepared[Sequence[Look]]:
        """See Task.prepare. An item's height and width are at most 640 and multiples of 32."""
        seen = views(picture.whole, picture.frame.box, is_crop=picture.is_crop, input_size=INPUT_SIZE)
        looks = [
            Look(view.corner, view.core, letterbox(view.pixels, INPUT_SIZE, STRIDE), picture.frame) for view in seen
        ]
        return Prepared([_item(look, options) for look in looks], looks, options)

    def warm_up_sizes(self, model_input: ModelInput) -> Sequence[tuple[int, int]]:  # noqa: ARG002 - as above
        """See Task.warm_up_sizes."""
        return LETTERBOX_SIZES

    def min_confidence(self, item: Item) -> float:
        """Return the caller's min_confidence, else the setting."""
        return item.get("min_confidence", self.settings.min_confidence)

    def boxes_in_image(self, boxes: F32, look: Look) -> tuple[F32, NDArray[np.bool_]]:
        """Return a view's boxes (n, 4) in the image's pixels, and which (n,) of them count for it."""
        moved = look.to_image(boxes.reshape(-1, 2, 2)).reshape(-1, 4)
        return moved, look.counts(moved, self.least_share)


def _item(look: Look, options: Options) -> Item:
    item: Item = {"image": look.fitted.image}
    return item if options.min_confidence is None else {**item, "min_confidence": options.min_confidence}
