from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

NOTHING: Final[Callable[..., Any]] = lambda *_: None  # noqa: E731


class Loads:
    """A residency.Loader that does nothing but what it is given."""

    def __init__(
        self, find: Callable[..., Any], load: Callable[..., Any], on_ready: Callable[..., None] = NOTHING
    ) -> None:
        self.find = find
        self.load = load
        self.on_ready = on_ready
        self.start = self.warm_up = self.on_device_lost = NOTHING
