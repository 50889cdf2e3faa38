"""What can be wrong with an image or a box that a client sent, for every room that looks at one."""

from __future__ import annotations


class ImageError(ValueError):
    """The bytes or the box sent can't be used as an image; the text says why."""


class DamagedImage(ImageError):
    """The bytes are no image, or a part of its pixels is missing or damaged."""


class UnsupportedFormat(ImageError):
    """The bytes are an image, of a format or of a kind of it that is not accepted."""


class ImageTooLarge(ImageError):
    """The header announces more pixels, or more work for them, than is allowed; nothing was decoded."""


class BoxOutside(ImageError):
    """The box has no pixel in common with the image."""
