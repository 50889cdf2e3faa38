"""Lanes of graphs that are compiled for one image shape, in the background."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Final

from engines.lanes import Lane
from engines.priority import step_back

logger = logging.getLogger("bentoml.enrichment.runner")  # BentoML gives handlers to its own namespace only

Shape = tuple[int, ...]  # of an image: height, width, 3
Compile = Callable[[Shape, int], Sequence[Lane]]

_MOST: Final = 2  # shapes at a time: each needs a compiled graph of its own, and cameras have one or two shapes


@dataclass
class _Side:
    """The free lanes of one shape. A background thread compiles them."""

    lanes: SimpleQueue[Lane] = field(default_factory=SimpleQueue)
    is_ready: bool = False


class SideBySide:
    """Lanes for the most recently used shapes. Compiling takes seconds; a shape's first images do not wait for it."""

    def __init__(self, compile_shape: Compile, count: int) -> None:
        """compile_shape: (shape, count) → `count` lanes for this shape. count: lanes per shape."""
        self._compile = compile_shape
        self._count = count
        self._lock = threading.Lock()
        self._sides: OrderedDict[Shape, _Side] = OrderedDict()
        self._compiling: threading.Thread | None = None

    def lanes(self, shape: Shape) -> SimpleQueue[Lane] | None:
        """The free lanes of a shape, to take one and put it back; None if they are not compiled yet."""
        with self._lock:
            side = self._sides.get(shape)
            if side is not None:
                self._sides.move_to_end(shape)
                return side.lanes if side.is_ready else None
            if self._compiling is None:
                while len(self._sides) >= _MOST:
                    self._sides.popitem(last=False)
                side = self._sides[shape] = _Side()
                self._compiling = threading.Thread(target=self._make, args=(shape, side), name="compiler", daemon=True)
                self._compiling.start()
        return None

    def close(self) -> None:
        """Wait for the compilation under way, and free all lanes."""
        compiling = self._compiling
        if compiling is not None:
            compiling.join()
        self._sides.clear()

    def _make(self, shape: Shape, side: _Side) -> None:
        try:
            step_back()
            for lane in self._compile(shape, self._count):
                side.lanes.put(lane)
            side.is_ready = True
        except RuntimeError:  # OpenVINO's
            logger.exception(
                "no graph could be compiled for images of %d×%d: they are computed one at a time", shape[1], shape[0]
            )
        finally:
            self._compiling = None
