"""Blends transparent pictures of all formats onto white, as on a browser's page.

Lossy encoders discard the colours of transparent pixels. If alpha was dropped, each format would show another picture.
"""

from __future__ import annotations

from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from vision.arrays import RGB
from vision.bands import in_bands

WHITE: Final = 255


def on_white(colours: RGB, alpha: NDArray[np.uint8], *, premultiplied: bool = False) -> RGB:
    """Blend colours (h, w, 3) with alpha (h, w), 0…255, onto white. premultiplied: colours are multiplied by alpha."""

    def blend(rows: slice) -> RGB:
        opacity = cv2.merge([np.ascontiguousarray(alpha[rows])] * 3)
        if premultiplied:
            return np.asarray(cv2.add(colours[rows], cv2.bitwise_not(opacity)), dtype=np.uint8)
        shade = cv2.multiply(cv2.bitwise_not(colours[rows]), opacity, scale=1 / 255)
        return np.asarray(cv2.bitwise_not(shade), dtype=np.uint8)

    return in_bands(blend, *alpha.shape)


def is_opaque(alpha: NDArray[Any]) -> bool:
    """Whether all pixels are fully opaque. alpha: uint8 or uint16."""
    return bool(alpha.min() == np.iinfo(alpha.dtype).max)
