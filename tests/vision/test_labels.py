"""Labels are inside their picture and never on one another."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from vision.arrays import Box
from vision.labels import Places

SIZE = (640, 480)
LABEL = (110.0, 20.0)


def overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def inside(place: Box, size: tuple[int, int] = SIZE) -> bool:
    return place[0] >= 0 and place[1] >= 0 and place[2] <= size[0] and place[3] <= size[1]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("same_place", [False, True], ids=["scattered", "all in one place"])
def test_labels_of_many_boxes_are_inside_and_apart(seed: int, same_place: bool) -> None:
    random = np.random.default_rng(seed)
    corners = random.uniform(0, SIZE, (60, 2))
    boxes = [(*corner, *np.minimum(corner + random.uniform(5, 200, 2), SIZE)) for corner in corners]
    boxes = [boxes[0]] * 60 if same_place else boxes
    heads: list[Box] = [(box[0], box[1], box[0] + 20, box[1] + 20) for box in boxes]
    places = Places(SIZE, heads, 5)
    taken = [places.take(LABEL, box) for box in boxes]
    found = [place for place in taken if place is not None]
    assert len(found) == 60  # the picture has room for about 130
    assert all(inside(place) for place in found)
    assert not any(overlap(one, other) for one, other in itertools.combinations(found, 2))


@pytest.mark.parametrize(
    ("box", "place"),
    [
        ((100, 100, 300, 300), (100, 80)),  # above
        ((-5, 100, 300, 300), (0, 80)),
        ((600, 100, 640, 300), (530, 80)),  # above, but not over the edge
        ((100, 5, 300, 300), (100, 300)),  # below
        ((100, 5, 300, 478), (300, 5)),  # beside
        ((0, 0, 640, 480), (0, 0)),  # inside
    ],
)
def test_a_label_stands_at_its_box(box: Box, place: tuple[float, float]) -> None:
    found = Places(SIZE, (), 5).take(LABEL, box)
    assert found is not None
    assert found[:2] == place


def test_a_label_covers_a_clear_area_only_if_there_is_no_other_place() -> None:
    box, face = (100, 100, 300, 300), (100, 60, 400, 99)
    first = Places(SIZE, [face], 5).take(LABEL, box)
    assert first is not None
    assert not overlap(first, face)
    everything = Places(SIZE, [(0, 0, *SIZE)], 5).take(LABEL, box)
    assert everything is not None
    assert everything[:2] == (100, 80)


def test_a_full_picture_has_no_place() -> None:
    places = Places((120, 45), (), 5)
    taken = [places.take(LABEL, (0, 0, 120, 45)) for _ in range(4)]
    assert [place is not None for place in taken] == [True, True, False, False]
    assert Places((100, 45), (), 5).take(LABEL, (0, 0, 9, 9)) is None
    assert Places((640, 10), (), 5).take(LABEL, (0, 0, 9, 9)) is None
