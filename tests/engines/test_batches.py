from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from engines import batches
from engines.batches import batch_sizes, cut
from engines.engine import Images, Shape
from engines.errors import OutOfMemory

F32 = NDArray[np.float32]


class Means:
    """An engine that gives each image's mean and shape.

    extra: how many more means than images, or fewer. room: images at a time for which the device has memory.
    """

    name = "openvino"
    precision = "f32"

    def __init__(self, extra: int = 0, room: int = 64) -> None:
        self.batches: list[tuple[int, ...]] = []
        self.frees = 0
        self.room = room
        self._extra = extra

    def warm_up(self, shapes: Sequence[Shape]) -> None:
        raise AssertionError("not asked for")

    def close(self) -> None:
        raise AssertionError("not asked for")

    def free(self) -> None:
        self.frees += 1

    def run(self, images: Images, min_confidence: float = 0, **_: object) -> tuple[F32, ...]:
        batch = np.asarray(images)
        self.batches.append(batch.shape)
        if len(batch) > self.room:
            raise OutOfMemory("CUDA out of memory")
        assert batch.dtype == np.uint8
        means = batch.mean(axis=(1, 2, 3), dtype=np.float32)
        shapes = np.tile(np.array(batch.shape[1:], np.float32), (len(batch), 1))
        if self._extra < 0:
            return means[: self._extra], shapes
        return np.concatenate([means[: self._extra], means]), shapes


def run(engine: Means, images: Sequence[NDArray[np.uint8]], largest: int) -> list[tuple[F32, ...]]:
    """The outputs of a run for which there is memory enough."""
    results = batches.run(engine, images, largest, engine.free)
    return [result for result in results if not isinstance(result, OutOfMemory)]


def means(engine: Means, values: Sequence[int], largest: int = 8) -> list[float | None]:
    """Each image's mean; None where there was no memory for it."""
    results = batches.run(engine, [image(value) for value in values], largest, engine.free)
    return [None if isinstance(result, OutOfMemory) else float(result[0]) for result in results]


def image(value: int, height: int = 4, width: int = 6) -> NDArray[np.uint8]:
    return np.full((height, width, 3), value, np.uint8)


@pytest.mark.parametrize(
    ("largest", "sizes"), [(1, [1]), (2, [1, 2]), (4, [1, 2, 4]), (7, [1, 2, 4]), (8, [1, 2, 4, 8]), (9, [1, 2, 4, 8])]
)
def test_batch_sizes_are_the_powers_of_two_up_to_the_largest(largest: int, sizes: list[int]) -> None:
    assert batch_sizes(largest) == sizes


@pytest.mark.parametrize(
    ("count", "largest", "cuts"),
    [
        (0, 8, []),
        (1, 8, [1]),
        (7, 8, [4, 2, 1]),
        (8, 8, [8]),
        (21, 8, [8, 8, 4, 1]),
        (3, 2, [2, 1]),
        (7, 6, [4, 2, 1]),
    ],
)
def test_items_are_cut_into_such_sizes_largest_first(count: int, largest: int, cuts: list[int]) -> None:
    assert list(cut(count, largest)) == cuts


@pytest.mark.parametrize("largest", [1, 2, 3, 4, 8, 64])
def test_any_number_of_items_is_cut_without_rest(largest: int) -> None:
    for count in range(100):
        cuts = list(cut(count, largest))
        assert sum(cuts) == count
        assert set(cuts) <= set(batch_sizes(largest))


@pytest.mark.parametrize("largest", [1, 2, 4, 8])
def test_each_image_gets_its_own_outputs_in_its_own_place(largest: int) -> None:
    rng = np.random.default_rng(largest)
    shapes = [(4, 6), (6, 4), (2, 2)]
    values = rng.integers(0, 256, size=37).tolist()
    picked = [shapes[index] for index in rng.integers(0, 3, size=37)]
    engine = Means()
    results = run(engine, [image(value, *shape) for value, shape in zip(values, picked, strict=True)], largest)
    assert [float(mean) for mean, _ in results] == values
    assert [tuple(shape.astype(int)) for _, shape in results] == [(*shape, 3) for shape in picked]
    assert {batch[0] for batch in engine.batches} <= set(batch_sizes(largest))


def test_images_of_one_shape_share_batches() -> None:
    engine = Means()
    run(engine, [image(1), image(2, 6, 4), image(3), image(4), image(5, 6, 4)], 8)
    assert engine.batches == [(2, 4, 6, 3), (1, 4, 6, 3), (2, 6, 4, 3)]


def test_no_images_are_no_batches() -> None:
    engine = Means()
    assert run(engine, [], 8) == []
    assert engine.batches == []


@pytest.mark.parametrize("extra", [-1, 1, 2])
@pytest.mark.parametrize("count", [1, 2, 5, 8])
def test_another_number_of_results_than_images_is_an_error(count: int, extra: int) -> None:
    # Not an answer for somebody else: shifted by one, each image would get its neighbour's.
    with pytest.raises(ValueError, match=r"results for \d images"):
        run(Means(extra), [image(value) for value in range(count)], 8)


def test_a_batch_that_is_too_large_for_the_memory_is_run_in_halves_after_freeing() -> None:
    engine = Means(room=4)
    assert means(engine, range(8)) == list(range(8))
    assert [shape[0] for shape in engine.batches] == [8, 4, 4]
    assert engine.frees == 1


def test_every_try_asks_for_the_same_scores() -> None:
    asked: list[float] = []

    class Asked(Means):
        def run(self, images: Images, min_confidence: float = 0, **_: object) -> tuple[F32, ...]:
            asked.append(min_confidence)
            return super().run(images)

    engine = Asked(room=4)
    batches.run(engine, [image(value) for value in range(8)], 8, engine.free, 0.25)
    assert asked == [0.25] * 3


def test_it_is_halved_once_and_the_rest_is_refused() -> None:
    engine = Means(room=2)
    assert means(engine, range(8)) == [None] * 8
    assert [shape[0] for shape in engine.batches] == [8, 4]
    assert engine.frees == 1  # and counted once


def test_what_the_first_half_gave_is_kept_when_the_second_is_too_much() -> None:
    class Filling(Means):
        def run(self, images: Images, min_confidence: float = 0, **_: object) -> tuple[F32, ...]:
            outputs = super().run(images)
            self.room = 2
            return outputs

    engine = Filling(room=4)
    assert means(engine, range(8)) == [0, 1, 2, 3, None, None, None, None]
    assert means(engine, [8, 9]) == [8, 9]


@pytest.mark.parametrize(("room", "expected"), [(0, [None]), (1, [5])])
def test_one_image_is_tried_twice_at_most(room: int, expected: list[float | None]) -> None:
    engine = Means(room=room)
    assert means(engine, [5]) == expected
    assert len(engine.batches) == 2 - room


def test_other_batches_of_the_same_call_are_not_refused_along() -> None:
    engine = Means(room=2)
    assert means(engine, range(11)) == [None] * 8 + [8, 9, 10]
