from __future__ import annotations

import threading
import time

import pytest

from runners import progress
from runners.progress import Progress

TICK_S = 0.02
HUNG_S = 5 * TICK_S


class Watched:
    def __init__(self) -> None:
        self.said: list[str] = []
        self.progress = Progress(HUNG_S, self.said.append)

    def takes(self, seconds: float, count: int = 1) -> list[str]:
        """What is said while a batch takes so long."""
        self.said.clear()
        with self.progress.of("person_reid", count):
            time.sleep(seconds)
        return [*self.said]


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    monkeypatch.setattr(progress, "TICK_S", TICK_S)
    return Watched()


def test_a_batch_that_does_not_end_is_told(watched: Watched) -> None:
    assert "a batch of 3 for person_reid has not ended" in watched.takes(HUNG_S * 10, 3)[0]


def test_a_batch_that_ends_is_nothing_to_tell(watched: Watched) -> None:
    assert watched.takes(HUNG_S / 5) == []


def test_where_batches_are_slow_one_may_take_ten_times_as_long(watched: Watched) -> None:
    with watched.progress.measured("person_reid", 4):  # a warm-up
        time.sleep(HUNG_S * 2)
    assert watched.takes(HUNG_S * 3, 1) == []  # of 5
    assert watched.takes(HUNG_S * 4, 2) == []
    assert watched.progress._slowest_s["person_reid"] > HUNG_S * 2


def test_another_models_slowness_is_no_excuse(watched: Watched) -> None:
    with watched.progress.measured("depth_estimator", 1):
        time.sleep(HUNG_S * 4)
    assert watched.takes(HUNG_S * 10)


def test_a_failed_batch_is_over(watched: Watched) -> None:
    with pytest.raises(ValueError, match="made up"), watched.progress.of("person_reid", 1):
        raise ValueError("made up")
    time.sleep(HUNG_S * 3)
    assert watched.said == []


def test_one_hung_batch_is_found_beside_others_that_end(watched: Watched) -> None:
    over = threading.Event()

    def hang() -> None:
        with watched.progress.of("pet_classifier", 1):
            over.wait()

    hung = threading.Thread(target=hang)
    hung.start()
    end = time.monotonic() + 10
    while not watched.said and time.monotonic() < end:
        with watched.progress.of("person_reid", 1):
            time.sleep(HUNG_S / 5)
    over.set()
    hung.join()
    assert watched.said
    assert all("pet_classifier" in said for said in watched.said)


def test_it_stops_to_watch(watched: Watched) -> None:
    watched.progress.close()
    assert watched.takes(HUNG_S * 3) == []
