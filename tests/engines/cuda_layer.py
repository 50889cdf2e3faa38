"""The fake device layer, CUDA's part: engines.cuda on a CPU. What it can't show: any of it on a GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from engines import cuda
from engines.engine import Shape


class FakeStream:
    cuda_stream = 4711

    def synchronize(self) -> None: ...


@dataclass
class FakeGraph:
    """A graph that runs what was captured once more, as a real one does without Python."""

    forward: Callable[[torch.Tensor], cuda.Tensors]
    replays: int = 0
    captured: Any = None

    def replay(self) -> None:
        self.replays += 1
        for kept, new in zip(self.captured.outputs, self.forward(self.captured.images), strict=True):
            kept.copy_(new)


@dataclass
class FakeCuda:
    """answers: whether the device still does anything. uncapturable: why no batch over `capturable` can be captured."""

    answers: bool = True
    free_mb: float = 3000
    uncapturable: RuntimeError | None = None
    capturable: int = 0
    graphs: dict[Shape, FakeGraph] = field(default_factory=dict)

    def install(self, monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
        monkeypatch.setattr(cuda, "DEVICE", torch.device("cpu"))
        monkeypatch.setattr(cuda, "_answers", lambda: self.answers)
        monkeypatch.setattr(cuda, "stream_of", lambda _: FakeStream())
        monkeypatch.setattr(cuda, "free_mb", lambda: self.free_mb)
        monkeypatch.setattr(torch.cuda, "stream", lambda _: nullcontext())
        monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: "pool")
        monkeypatch.setattr(cuda, "to_device", lambda batch: torch.from_numpy(batch))
        monkeypatch.setattr(cuda, "to_host", self._to_host)
        monkeypatch.setattr(cuda, "capture", self._capture)
        return self

    def _to_host(self, outputs: Sequence[torch.Tensor], stream: FakeStream) -> tuple[NDArray[np.float32], ...]:
        return tuple(output.float().numpy().copy() for output in outputs)

    def _capture(
        self, forward: Callable[[torch.Tensor], cuda.Tensors], shape: Shape, pool: str, stream: FakeStream
    ) -> cuda.Captured:
        assert pool == "pool"
        if self.uncapturable is not None and shape[0] > self.capturable:
            raise self.uncapturable
        images = torch.zeros(shape, dtype=torch.uint8)
        graph = FakeGraph(forward)
        graph.captured = cuda.Captured(graph, images, tuple(output.clone() for output in forward(images)))  # type: ignore[arg-type]
        self.graphs[shape] = graph
        captured: cuda.Captured = graph.captured
        return captured


@contextmanager
def raising(error: Exception) -> Iterator[None]:
    """What a library call does that fails inside `device_errors`."""
    with cuda.device_errors():
        raise error
    yield
