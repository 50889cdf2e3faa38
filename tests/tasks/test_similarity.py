"""Comparing embeddings: cosines, ranking, and where the threshold comes from."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.similarity import (
    BORROWED,
    DIMENSION,
    MEASURED,
    Embedding,
    Side,
    Threshold,
    compare,
    match,
    threshold_for,
    unit,
)
from vision.arrays import F32

SIDE = Side(person_in_view=None)
SOME = Threshold(0.5, "request")


def at(cosine: float) -> F32:
    """A unit vector with this cosine to `at(1)`."""
    return unit([cosine, (1 - cosine**2) ** 0.5, *[0.0] * (DIMENSION - 2)])


def cosine_of(first: F32, second: F32) -> float:
    return compare(Embedding(first, "m"), Embedding(second, "m"), SOME, (SIDE, SIDE)).cosine


@pytest.mark.parametrize("scale", [5e-324, 1e-200, 1e-3, 1.0, 1e39, 1e308])
def test_a_vector_of_any_length_becomes_a_unit_vector(scale: float) -> None:
    vector = unit([scale, *[0.0] * (DIMENSION - 1)])
    assert vector.dtype == np.float32
    np.testing.assert_array_equal(vector, at(1))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_vector_that_is_not_finite_is_refused_with_the_place(bad: float) -> None:
    with pytest.raises(ValueError, match="number 7 is not"):
        unit([1.0] * 7 + [bad] + [1.0] * (DIMENSION - 8))


@pytest.mark.parametrize("count", [0, 1, DIMENSION - 1, DIMENSION + 1])
def test_a_vector_of_another_dimension_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match=f"{count} were received"):
        unit([1.0] * count)


def test_a_zero_vector_is_refused() -> None:
    with pytest.raises(ValueError, match="zero"):
        unit([0.0] * DIMENSION)


def test_cosines_stay_within_their_range() -> None:
    vectors = [unit(row) for row in np.random.default_rng(0).normal(size=(100, DIMENSION))]
    assert {cosine_of(vector, vector) for vector in vectors} == {1.0}
    assert {cosine_of(vector, -vector) for vector in vectors} == {-1.0}
    assert cosine_of(at(1), at(0.25)) == 0.25


@pytest.mark.parametrize(("cosine", "same"), [(0.79, True), (0.78, True), (0.7799, False), (-0.78, False)])
def test_one_person_is_shown_from_the_threshold_on(cosine: float, same: bool) -> None:
    threshold = Threshold(0.78, "measured")
    answer = compare(Embedding(at(1), "m"), Embedding(at(cosine), "m"), threshold, (SIDE, Side(person_in_view=False)))
    assert (answer.cosine, answer.same_person) == (cosine, same)
    assert (answer.threshold, answer.threshold_source, answer.model_id) == (0.78, "measured", "m")
    assert (answer.first.person_in_view, answer.second.person_in_view) == (None, False)


def test_candidates_are_ranked_and_equal_ones_stay_in_their_order() -> None:
    cosines = [0.1, 0.9, 0.5, -0.9, 0.9]
    answer = match(Embedding(at(1), "m"), list("abcde"), np.stack([at(cosine) for cosine in cosines]), SOME, SIDE)
    assert [(one.id, one.cosine) for one in answer.matches] == [("b", 0.9), ("e", 0.9), ("c", 0.5)]
    assert (answer.best, answer.compared) == (answer.matches[0], 5)


def test_the_best_candidate_is_known_without_a_match() -> None:
    answer = match(Embedding(at(1), "m"), ["a", "b"], np.stack([at(0.2), at(0.4)]), SOME, SIDE)
    assert answer.matches == []
    assert (answer.best.id, answer.best.cosine) == ("b", 0.4)


def test_top_shortens_the_list_alone() -> None:
    answer = match(Embedding(at(1), "m"), ["a", "b", "c"], np.stack([at(0.7), at(0.9), at(0.8)]), SOME, SIDE, top=2)
    assert [one.id for one in answer.matches] == ["b", "c"]
    assert answer.compared == 3


def test_the_request_comes_before_the_setting_and_the_setting_before_the_measurement() -> None:
    ((digest, measured),) = MEASURED.items()
    measured_id, other_id = f"osnet-x0-25@osnet_x0_25@{digest}", "osnet-x0-25@osnet_x0_25@cf55163d78fc"
    for model_id in (measured_id, other_id):
        assert threshold_for(model_id, 0.6, 0.0) == Threshold(0.0, "request")
        assert threshold_for(model_id, 0.0, None) == Threshold(0.0, "setting")
    assert threshold_for(measured_id, None, None) == Threshold(measured, "measured")
    assert threshold_for(other_id, None, None) == Threshold(BORROWED, "borrowed")
    assert threshold_for("no id of ours", None, None).source == "borrowed"
