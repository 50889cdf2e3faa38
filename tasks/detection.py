"""What the two YOLO models share: where they look in a picture, and the way back from their input to its pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from models.card import ModelInput
from tasks.picture import Frame, Picture
from tasks.task import AnswerT, Item, Options, Prepared, ResultT, Task, TaskSettings
from vision.arrays import F32, Box
from vision.image import LETTERBOX_SIZES, Letterbox, letterbox
from vision.views import has_centre, share_inside, views

INPUT_SIZE: Final = 640  # ultralytics' default imgsz, what the public weights were trained at
STRIDE: Final = 32  # of the coarsest head


class DetectorSettings(TaskSettings):
    """What configuration.yaml says of a detector."""

    use_tensorrt: bool
    min_confidence: float = Field(ge=0.0, le=1.0)
    iou_threshold: float = Field(ge=0.0, le=1.0)


@dataclass(frozen=True)
class Look:
    """A view of a picture as a detector's input, and the way back. corner, core: of the View."""

    corner: tuple[int, int]
    core: Box
    fitted: Letterbox
    frame: Frame

    def to_image(self, points: F32) -> F32:
        """Points (..., 2) of the network's input in the image's pixels, kept inside the image."""
        points = self.fitted.to_image(points) + np.array(self.corner, dtype=np.float32)
        return np.clip(points, 0, np.array(self.frame.size, dtype=np.float32))

    def counts(self, boxes: F32, least_share: float) -> NDArray[np.bool_]:
        """Which (n,) of the image's boxes (n, 4) belong to this view, and lie in the box asked for by `least_share`."""
        counted = has_centre(boxes, self.core)
        if self.frame.box is not None:
            counted &= share_inside(boxes, self.frame.box) >= least_share
        return counted


class Detector(Task[DetectorSettings, Sequence[Look], ResultT, AnswerT]):
    """A YOLO model: letterboxed views of the picture in, boxes with scores out."""

    #: The least share of a detection's box that lies in the box asked for.
    least_share: ClassVar[float]

    def prepare(
        self,
        picture: Picture,
        options: Options,
        model_input: ModelInput | None = None,  # noqa: ARG002 - it takes any multiple of its stride
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

    def min_score(self, item: Item) -> float:
        """What the caller asks for, else the configuration."""
        return item.get("min_confidence", self.settings.min_confidence)


def _item(look: Look, options: Options) -> Item:
    item: Item = {"image": look.fitted.image}
    return item if options.min_confidence is None else {**item, "min_confidence": options.min_confidence}


class BoundingBox(BaseModel):
    """Left upper corner and size in pixels of the image as sent, EXIF-upright."""

    x: float
    y: float
    width: float
    height: float


def bounding_box(box: F32) -> BoundingBox:
    """box: (4,) x1, y1, x2, y2."""
    left, top, right, bottom = box.tolist()
    return BoundingBox(x=pixels(left), y=pixels(top), width=pixels(right - left), height=pixels(bottom - top))


def pixels(value: float) -> float:
    """A coordinate as answers give it."""
    return round(value, 2)
