"""The base class of image files whose header was read; each format's module has a subclass."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from vision.arrays import RGB


@dataclass(frozen=True, kw_only=True)
class PictureFile(ABC):
    """An image file whose header was read, but not its pixels. width, height: in pixels, as stored."""

    FORMAT: ClassVar[str]

    width: int
    height: int
    passes: int = 1  # decoding passes over all pixels: the number of a JPEG's scans

    @property
    def pixels(self) -> int:
        return self.width * self.height

    @property
    @abstractmethod
    def peak_bytes(self) -> int:
        """An upper bound of `decode`'s peak memory in bytes, computed from the header. It includes the RGB array."""

    @abstractmethod
    def decode(self) -> RGB:
        """Decode the picture (first frame) to upright (height, width, 3) uint8 sRGB, C-contiguous.

        EXIF's orientation is applied. Transparent parts become white. Raises DamagedImage or UnsupportedFormat.
        """
