"""What the soak's slopes tell apart: growth, noise, a rise that ends, and series that come late."""

from __future__ import annotations

import itertools
import os

import numpy as np
import pytest

from benchmarks.slopes import Samples, Slope, slope

CALLS = 2000


def watched(name: str, values: list[float]) -> Samples:
    """Samples of a value, one for each of as many calls."""
    calls = itertools.count()
    at = 0

    def now() -> int:
        return at

    samples = Samples(os.getpid(), now)
    for value, number in zip(values, calls, strict=False):
        at = number
        samples.note(name, value)
    return samples


def noise(size: float, seed: int = 1) -> list[float]:
    return list(np.random.default_rng(seed).normal(600, size, CALLS))


@pytest.mark.parametrize("rise", [0.0, 0.01, -3.0])
def test_the_interval_holds_the_true_slope_95_times_of_100(rise: float) -> None:
    found = [slope(range(CALLS), [rise * at + one for at, one in enumerate(noise(5, seed))]) for seed in range(200)]
    assert 0.9 <= sum(abs(one.value - rise) < one.within for one in found) / len(found) <= 0.99
    assert all(one.within < 0.001 for one in found)


def test_without_noise_the_slope_is_exact() -> None:
    assert slope(range(40), [7.0] * 40) == Slope(0, 0)


def test_too_few_points_have_no_slope() -> None:
    with pytest.raises(ValueError, match="19 samples"):
        slope(range(19), range(19))


@pytest.mark.parametrize("name", ["API 7: memory, MB", "API 7: descriptors", "API 7: threads", "Prometheus series"])
def test_what_grows_with_the_calls_is_named(name: str) -> None:
    (found,) = watched(name, [600 + 0.1 * number for number in range(CALLS)]).growing()
    assert found.startswith(f"{name}: +100.00 ± 0.00 for 1,000 calls")


def test_a_rise_that_ends_in_the_first_half_and_noise_are_no_growth() -> None:
    assert watched("API 7: memory, MB", [min(600.0, number) for number in range(CALLS)]).growing() == []
    assert watched("API 7: memory, MB", noise(20)).growing() == []
    assert watched("API 7: memory, MB", [600 - number / 100 for number in range(CALLS)]).growing() == []


def test_one_picture_more_is_no_growth_and_the_same_a_thousand_times_is() -> None:
    assert watched("API 7: memory, MB", [600 + 2.7 * (number > 1500) for number in range(CALLS)]).growing() == []
    assert watched("API 7: memory, MB", [600 + 2.7 * (number // 100) for number in range(CALLS)]).growing()


@pytest.mark.parametrize("samples", [1, 30])
def test_too_short_a_soak_is_no_proof(samples: int) -> None:
    (found,) = watched("Prometheus series", [5.0] * samples).growing()
    assert "samples in the last half" in found


def test_a_soak_without_a_sample_in_its_last_half_is_no_proof() -> None:
    at = 1
    samples = Samples(os.getpid(), lambda: at)
    samples.note("Prometheus series", 5)
    at = 300
    (found,) = samples.growing()
    assert "0 samples in the last half" in found


def test_a_process_that_ended_in_the_first_half_is_no_fault_and_stays_in_the_table() -> None:
    samples = watched("API 7: threads", [3.0] * CALLS)
    samples.values["helper 8: threads"] = [one for one in samples.values["API 7: threads"] if one.calls < CALLS / 4]
    assert samples.growing() == []
    assert "| helper 8: threads | 3 | 3 | 3 | – | – |" in samples.table()


def test_series_that_come_late_are_named_once_by_their_labels() -> None:
    at = 0
    samples = Samples(os.getpid(), lambda: at)
    early, late = '{endpoint="/a"', '{endpoint="/b",status="429"'
    first = f'# HELP asked -\nasked_total{early}}} 1.0\nasked_bucket{early},le="0.1"}} 1.0\n'
    samples.note_metrics(first)
    at = 100
    samples.note_metrics(
        f'{first}took_sum{late}}} 2.0\ntook_bucket{late},le="5"}} 2.0\ntook_bucket{late},le="+Inf"}} 2.0'
    )
    assert [sample.value for sample in samples.values["Prometheus series"]] == [2, 5]
    assert samples.late() == ['endpoint="/b",status="429"']
