"""PictureFile: an image file whose header was read, as each format's module makes one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from vision.arrays import RGB


@dataclass(frozen=True, kw_only=True)
class PictureFile(ABC):
    """The size of a picture by its header, and the way to its pixels. width, height: in pixels, as stored."""

    FORMAT: ClassVar[str]

    width: int
    height: int
    passes: int = 1  # how often decoding goes over all pixels: the scans of a JPEG

    @property
    def pixels(self) -> int:
        return self.width * self.height

    @property
    @abstractmethod
    def peak_bytes(self) -> int:
        """The most memory that `decode` takes at a time, in bytes: a bound by the header, the RGB array included."""

    @abstractmethod
    def decode(self) -> RGB:
        """The picture (first frame) as upright (height, width, 3) uint8 sRGB, C-contiguous.

        Orientation is EXIF's. Transparent parts lie on white. Raises DamagedImage or UnsupportedFormat.
        """
