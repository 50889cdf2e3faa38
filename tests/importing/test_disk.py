"""Imports on disks that are full or read-only, and without shared memory: a sentence, and the store as it was."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.conftest import CHECKOUT
from tests.importing.loaders.test_resnet import write
from tests.machine import NO_SHARED_MEMORY, full, read_only, small, within

FAULTS: Final = {
    "full home": "No space left on device",
    "small home": "No space left on device",
    "read-only home": "Read-only file system",
}


def run(home: Path, weights: Path, commands: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.endswith("_MODEL_PATH")}
    environment |= {"BENTOML_HOME": str(home), "AI_MODELS_PATH": "/nowhere"}
    command = [*within(*commands), sys.executable, "-m", "models.import_models", "pet_classifier"]
    return subprocess.run(
        [*command, "--source", str(weights)], cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_disk_that_takes_nothing_ends_the_import_with_a_sentence(tmp_path: Path, home: Path, fault: str) -> None:
    weights = write(tmp_path / "pets", {0: "cats", 1: "dogs"})
    room = weights.joinpath("model.safetensors").stat().st_size // 1024 + 32  # for the weights, and for no graph
    commands = {"full home": full(home), "small home": small(home, room), "read-only home": read_only(home)}
    done = run(home, weights, (commands[fault],))
    assert done.returncode == 1, done.stderr
    assert FAULTS[fault] in done.stderr
    assert str(home) in done.stderr
    assert "Traceback" not in done.stderr


def test_an_import_without_shared_memory_ends_with_a_sentence(tmp_path: Path, home: Path) -> None:
    done = run(home, write(tmp_path / "pets", {0: "cats", 1: "dogs"}), (NO_SHARED_MEMORY,))
    assert done.returncode == 1, done.stderr
    assert "without shared memory: make /dev/shm writable" in done.stderr
    assert "Traceback" not in done.stderr
