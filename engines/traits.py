"""What was measured of a graph, and makes it fast on a CPU without changing its answers beyond the bounds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Traits:
    """How OpenVINO computes a graph best.

    bf16: its answers in bf16 stay within the bounds (docs/understand/accuracy.md). f32_until: they do where its first
    layers run in f32; the node after which bf16 begins. batch: images that are computed together with a gain, at most.
    by_shape: images side by side gain where the graph was compiled for their shape, and not else.
    """

    bf16: bool = False
    f32_until: str | None = None
    batch: int = 1
    by_shape: bool = False
