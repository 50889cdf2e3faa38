"""Type aliases of the arrays that all packages share."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
RGB = NDArray[np.uint8]  # (height, width, 3)
Box = tuple[float, float, float, float]  # x1, y1, x2, y2 in pixels
