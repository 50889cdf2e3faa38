"""The last batches and latencies of a model: counted once each, and never more than a limited number."""

from __future__ import annotations

from typing import Any

import pytest

from api.recent import BATCHES, LATENCIES, RecentBatches, RecentLatencies


def result(began: int, batch: int) -> dict[str, Any]:
    return {"embedding": [], "timing": {"taken": 7, "loaded": began, "batch": batch}}


def test_a_batch_counts_once_however_many_requests_share_it() -> None:
    batches = RecentBatches()
    for _ in range(3):  # three requests in one batch
        batches.note([result(1, 3)])
    batches.note([result(2, 4)] * 4)  # one request of four images
    batches.note([result(3, 1)])
    batches.note([result(4, 1)])
    assert batches.sizes == {1: 2, 3: 1, 4: 1}
    assert list(batches.sizes) == [1, 3, 4]


def test_failures_and_results_without_times_tell_no_batch() -> None:
    batches = RecentBatches()
    batches.note([{"error": "internal", "message": "no"}, {"embedding": []}, result(1, 2)])
    batches.note([])
    assert batches.sizes == {2: 1}


def test_only_the_last_batches_are_kept() -> None:
    batches = RecentBatches()
    for began in range(10 * BATCHES):
        batches.note([result(began, 1 if began < 10 * BATCHES - 20 else 8)])
    assert batches.sizes == {1: BATCHES - 20, 8: 20}
    batches.note([result(began, 2) for began in range(10_000, 10_000 + 3 * BATCHES)])
    assert batches.sizes == {2: BATCHES}


@pytest.mark.parametrize(
    ("seconds", "p50", "p95"),
    [
        ([0.25], 250, 250),
        ([0.1, 0.3], 200, 290),
        ([number / 1000 for number in range(101)], 50, 95),
        ([number / 1000 for number in reversed(range(101))], 50, 95),
        ([0.01] * 94 + [1] * 6, 10, 1000),
    ],
)
def test_the_quantiles_are_those_of_the_samples(seconds: list[float], p50: float, p95: float) -> None:
    latencies = RecentLatencies()
    for each in seconds:
        latencies.note(each)
    assert latencies.summary == {"p50": p50, "p95": p95, "samples": len(seconds)}


def test_without_samples_there_are_no_quantiles() -> None:
    assert RecentLatencies().summary == {"p50": None, "p95": None, "samples": 0}


def test_only_the_last_latencies_are_kept() -> None:
    latencies = RecentLatencies()
    for _ in range(10 * LATENCIES):
        latencies.note(9)
    for _ in range(LATENCIES):
        latencies.note(0.5)
    assert latencies.summary == {"p50": 500, "p95": 500, "samples": LATENCIES}
