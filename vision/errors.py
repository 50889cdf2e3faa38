"""The errors of images and boxes that a client sent."""

from __future__ import annotations


class ImageError(ValueError):
    """The image or box is not usable. The text says why."""


class DamagedImage(ImageError):
    """The bytes are no image, or a part of its pixels is missing or damaged."""


class UnsupportedFormat(ImageError):
    """The bytes are an image, but its format or its variant of the format is not accepted."""


class ImageTooLarge(ImageError):
    """The header announces more pixels, or more decoding work, than is allowed. Nothing was decoded."""


class BoxOutside(ImageError):
    """The box has no pixel in common with the image."""
