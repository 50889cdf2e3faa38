"""A progress bar on stderr, drawn only on a terminal."""

from __future__ import annotations

import sys
from typing import Final

_WIDTH: Final = 30  # characters
_ERASE: Final = "\r\x1b[K"


class Progress:
    """Counts pictures. `clear` before anything else is printed."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._done = 0
        self._failed = 0
        self._is_shown = total > 1 and sys.stderr.isatty()

    def clear(self) -> None:
        """Erase the bar."""
        self._write(_ERASE)

    def step(self, *, failed: bool = False) -> None:
        """Count a picture and draw the bar."""
        self._done += 1
        self._failed += failed
        self.draw()

    def draw(self) -> None:
        """Draw the bar."""
        bar = "#" * (_WIDTH * self._done // self._total)
        failed = f", {self._failed} failed" if self._failed else ""
        self._write(f"{_ERASE}[{bar:{_WIDTH}}] {self._done}/{self._total}{failed}")

    def _write(self, text: str) -> None:
        if self._is_shown:
            sys.stderr.write(text)
            sys.stderr.flush()
