"""Measured properties of a graph: how OpenVINO runs it fastest within the bounds of accuracy."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Traits:
    """How OpenVINO computes a graph best.

    bf16: the answers in bf16 stay within the bounds (docs/understand/accuracy.md).
    f32_until: the last node in f32, for a graph that stays within the bounds if only its later layers run in bf16.
    batch: the largest batch that is faster than its images one by one.
    by_shape: images side by side are faster only in a graph that is compiled for their shape.
    """

    bf16: bool = False
    f32_until: str | None = None
    batch: int = 1
    by_shape: bool = False
