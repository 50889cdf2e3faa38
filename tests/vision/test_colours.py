"""Text is readable on every colour, and severities can be told apart without seeing colours."""

from __future__ import annotations

import itertools

import pytest

from vision.colours import BLACK, ORANGE, VERMILION, WHITE, YELLOW, contrast, text_on


@pytest.mark.parametrize("colour", list(itertools.product(range(0, 256, 51), repeat=3)))
def test_text_has_the_contrast_that_wcag_asks_for(colour: tuple[int, int, int]) -> None:
    assert contrast(text_on(colour), colour) >= 4.5


def test_contrast_is_wcags() -> None:
    assert contrast(BLACK, WHITE) == pytest.approx(21)
    assert contrast((119, 119, 119), WHITE) == pytest.approx(4.48, abs=0.01)  # the well-known grey that just fails


def test_severities_differ_in_lightness() -> None:
    for darker, lighter in itertools.pairwise((VERMILION, ORANGE, YELLOW)):
        assert contrast(darker, WHITE) / contrast(lighter, WHITE) > 1.5
