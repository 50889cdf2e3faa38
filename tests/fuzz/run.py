"""Runs each fuzzer over numbered cases: a number makes the same case every time."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import numpy as np
from hypothesis import HealthCheck, given, seed, settings
from numpy.typing import NDArray

from api.request import Received
from tests.fuzz import bodies, mutator, parsers, pictures, postures
from tests.fuzz.findings import Finding

CORPUS: Final = Path(__file__).parent / "corpus"


def run_pictures(numbers: Iterable[int], keep: Path | None = None) -> Counter[str]:
    """Decode the changed files of these numbers, and count what came of them. Raises Finding for the first one.

    keep: the folder for its file.
    """
    outcomes: Counter[str] = Counter()
    for number in numbers:
        data = mutator.case(pictures.seeds(), number)
        try:
            outcomes[pictures.check(data)] += 1
        except Finding as finding:
            if keep is not None:
                (keep / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
            raise Finding(f"picture {number}: {finding}") from finding
    return outcomes


def run_bodies(number: int, cases: int) -> Counter[str]:
    """Parse `cases` requests, and count what came of them. hypothesis shrinks the first finding and raises it."""
    outcomes: Counter[str] = Counter()

    @seed(number)
    @settings(max_examples=cases, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(bodies.requests())
    def parse(request: tuple[str, Received]) -> None:
        outcomes[parsers.check(*request)] += 1

    parse()
    return outcomes


def run_postures(number: int, cases: int) -> Counter[str]:
    """Judge `cases` people, and count their postures. Raises Finding, as `run_bodies` does."""
    outcomes: Counter[str] = Counter()

    @seed(number)
    @settings(max_examples=cases, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(postures.keypoints)
    def judge(person: NDArray[np.float32]) -> None:
        outcomes[postures.check(person)] += 1

    judge()
    return outcomes
