"""The image that a caller sent, the part of it that was asked for, and where both are."""

from __future__ import annotations

from dataclasses import dataclass

from vision.arrays import RGB, Box
from vision.image import crop
from vision.views import is_foreign, means_whole


@dataclass(frozen=True)
class Frame:
    """Where a picture's pixels are, without them: an answer needs it when they are long gone.

    size: width, height of the upright image as sent. area: left, top, right, bottom of the part that was asked for, in
    its pixels. box: as asked, None for the whole image.
    """

    size: tuple[int, int]
    area: tuple[int, int, int, int]
    box: Box | None


@dataclass(frozen=True)
class Picture:
    """The upright image as sent, and the part of it that was asked for.

    part: a view into `whole`. is_crop: the caller's box says that the image was cut out of a larger frame.
    """

    whole: RGB
    part: RGB
    frame: Frame
    is_crop: bool

    @classmethod
    def of(cls, image: RGB, box: Box | None) -> Picture:
        """Raises vision.errors.BoxOutside."""
        height, width = image.shape[:2]
        if box is None or means_whole(box, width, height):
            frame = Frame((width, height), (0, 0, width, height), None)
            return cls(image, image, frame, box is not None and is_foreign(box))
        part, (left, top) = crop(image, box)
        area = (left, top, left + part.shape[1], top + part.shape[0])
        return cls(image, part, Frame((width, height), area, box), is_crop=False)
