"""The fake device layer, NVML's part: cards and processes as a test makes them up."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import wraps
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pynvml

if TYPE_CHECKING:
    import pytest  # servers over the fake engine import this file, too


@dataclass
class Card:
    """processes: pid → bytes, None where the driver gives no figure; other_bytes: used, and of no listed process."""

    name: str
    uuid: str
    total: int = 4_294_967_296
    processes: dict[int, int | None] = field(default_factory=dict)
    other_bytes: int = 0
    capability: tuple[int, int] = (8, 6)


@dataclass
class FakeNvml:
    """Takes the place of pynvml's functions. error: what every call raises; broken: function → its NVML error."""

    cards: list[Card]
    error: Exception | None = None
    broken: dict[str, int] = field(default_factory=dict)
    cuda: int = 13000

    def install(self, monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
        for name, function in self.functions().items():
            monkeypatch.setattr(pynvml, name, function)
        return self

    def functions(self) -> dict[str, Any]:
        """By their names in pynvml."""
        return {name: self._function(name) for name in dir(self) if name.startswith("nvml")}

    def _function(self, name: str) -> Any:
        function = getattr(self, name)

        @wraps(function)
        def call(*arguments: Any) -> Any:
            if name in self.broken:
                raise pynvml.NVMLError(self.broken[name])
            return function(*arguments)

        return call

    def nvmlInit(self) -> None:  # noqa: N802 - NVML's own names, here and below
        self._raise()

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        self._raise()
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Card:  # noqa: N802
        if index >= len(self.cards):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_INVALID_ARGUMENT)
        return self.cards[index]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> Card:  # noqa: N802
        return next(card for card in self.cards if card.uuid == uuid)

    def nvmlDeviceGetIndex(self, card: Card) -> int:  # noqa: N802
        return self.cards.index(card)

    def nvmlDeviceGetName(self, card: Card) -> str:  # noqa: N802
        return card.name

    def nvmlDeviceGetUUID(self, card: Card) -> str:  # noqa: N802
        return card.uuid

    def nvmlDeviceGetMemoryInfo(self, card: Card) -> Any:  # noqa: N802
        self._raise()
        return SimpleNamespace(total=card.total, used=card.other_bytes + sum(v or 0 for v in card.processes.values()))

    def nvmlDeviceGetCudaComputeCapability(self, card: Card) -> tuple[int, int]:  # noqa: N802
        return card.capability

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        return "580.95.05"

    def nvmlSystemGetCudaDriverVersion(self) -> int:  # noqa: N802
        return self.cuda

    def nvmlDeviceGetComputeRunningProcesses(self, card: Card) -> list[Any]:  # noqa: N802
        self._raise()
        return [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in card.processes.items()]

    def _raise(self) -> None:
        if self.error is not None:
            raise self.error


def a5500() -> Card:
    return Card("NVIDIA RTX A5500", "GPU-aaaa", 25_757_220_864)


def a400() -> Card:
    return Card("NVIDIA RTX A400", "GPU-bbbb")
