"""How many images are decoded at a time on machines of several sizes."""

from __future__ import annotations

import os

import pytest

from engines.cores import decoded_at_a_time


@pytest.mark.parametrize(
    ("available", "threads", "expected"),
    [(1, 0, 2), (2, 0, 2), (4, 0, 4), (16, 0, 8), (16, 4, 4), (16, 1, 2)],
)
def test_one_image_for_each_core_that_may_be_used(
    available: int, threads: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(available)))
    assert decoded_at_a_time(threads) == expected
