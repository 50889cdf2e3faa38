"""Transparency: every format's picture lies on white, as on a browser's page.

Lossy encoders throw the colours of transparent pixels away. So dropping alpha would show another picture per format.
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
    """(h, w, 3) colours of (h, w) opacities 0…255 over white. premultiplied: the colours were multiplied by alpha."""

    def blend(rows: slice) -> RGB:
        opacity = cv2.merge([np.ascontiguousarray(alpha[rows])] * 3)
        if premultiplied:
            return np.asarray(cv2.add(colours[rows], cv2.bitwise_not(opacity)), dtype=np.uint8)
        shade = cv2.multiply(cv2.bitwise_not(colours[rows]), opacity, scale=1 / 255)
        return np.asarray(cv2.bitwise_not(shade), dtype=np.uint8)

    return in_bands(blend, *alpha.shape)


def is_opaque(alpha: NDArray[Any]) -> bool:
    """Whether no pixel is transparent in any degree. alpha: uint8 or uint16."""
    return bool(alpha.min() == np.iinfo(alpha.dtype).max)
