from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.vision.decoding.kinds import KINDS

SIDE = 1200
ROOM = 40 * 10**6  # the bound's constant part, for bands and tables


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, int]]:
    """By kind of file: the bytes that decoding took at its peak, and the bound."""
    folder = tmp_path_factory.mktemp("kinds")
    paths = []
    for number, make in enumerate(KINDS.values()):
        paths.append(folder / str(number))
        paths[-1].write_bytes(make(SIDE))
    command = [sys.executable, "-m", "tests.vision.decoding.memory", *map(str, paths)]
    root = Path(__file__).parents[3]
    lines = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout.splitlines()
    found = [tuple(map(int, line.split())) for line in lines]
    return {kind: (peak, bound) for kind, (peak, bound) in zip(KINDS, found, strict=True)}


@pytest.mark.parametrize("kind", KINDS)
def test_the_announced_peak_is_a_bound_and_not_far_off(kind: str, measured: dict[str, tuple[int, int]]) -> None:
    peak, bound = measured[kind]
    assert peak <= bound <= 2 * peak + ROOM
