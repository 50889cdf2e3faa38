"""The figures of the ROC, on cosines whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.reid_roc import Crop, Pairs, auc, chosen, equal_error_rate

IMAGE = np.zeros((2, 2, 3), np.uint8)


def test_pairs_are_sorted_by_person_and_scene() -> None:
    crops = [Crop(who, scene, IMAGE) for who, scene in (("a", "1"), ("a", "1"), ("b", "1"), ("c", "2"))]
    matrix = np.array([[1, 0.9, 0.5, 0.1], [0, 1, 0.6, 0.2], [0, 0, 1, 0.3], [0, 0, 0, 1]], np.float32)
    pairs = Pairs.of(crops, matrix)
    for found, expected in ((pairs.same, [0.9]), (pairs.one_scene, [0.5, 0.6]), (pairs.two_scenes, [0.1, 0.2, 0.3])):
        np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(("count", "passing"), [(99, 0), (100, 1), (250, 2)])
def test_at_most_one_percent_of_different_pairs_pass_the_threshold(count: int, passing: int) -> None:
    cosines = np.linspace(0.1, 0.7777, count) ** 0.5
    threshold = chosen(cosines)
    assert round(threshold, 2) == threshold
    assert (cosines >= threshold).sum() <= passing < (cosines >= threshold - 0.0101).sum()


def test_auc_and_equal_error_rate() -> None:
    low, high = np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.6, 0.7, 0.8, 0.9])
    assert (auc(high, low), equal_error_rate(high, low)) == (1.0, 0.0)
    assert auc(low, high) == 0.0
    assert auc(low, low) == 0.5
    assert (auc(np.array([0.2, 0.8]), np.array([0.1, 0.5])), equal_error_rate(low, low)) == (0.75, 0.5)
