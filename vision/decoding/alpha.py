"""Transparency: every format's picture lies on white, as on a browser's page.

Lossy encoders throw the colours of transparent pixels away. So dropping alpha would show another picture per format.
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from vision.image import RGB

WHITE: Final = 255


def on_white(colours: RGB, alpha: NDArray[np.uint8], *, premultiplied: bool = False) -> RGB:
    """(h, w, 3) colours of (h, w) opacities 0…255 over white. premultiplied: the colours were multiplied by alpha."""
    opacity = cv2.merge([alpha] * 3)
    if premultiplied:
        return np.asarray(cv2.add(colours, cv2.bitwise_not(opacity)), dtype=np.uint8)
    shade = cv2.multiply(cv2.bitwise_not(colours), opacity, scale=1 / 255)
    return np.asarray(cv2.bitwise_not(shade), dtype=np.uint8)


def split(rgba: NDArray[np.uint8]) -> tuple[RGB, NDArray[np.uint8] | None]:
    """(h, w, 4) as colours and alpha; None where all pixels are opaque."""
    colours = np.asarray(cv2.cvtColor(rgba, cv2.COLOR_RGBA2RGB), dtype=np.uint8)
    # As whole words: alpha is the highest byte. Looking at every fourth byte takes five times as long.
    words = np.ascontiguousarray(rgba).view("<u4")
    return colours, None if words.min() >= 0xFF000000 else np.ascontiguousarray(rgba[..., 3])
