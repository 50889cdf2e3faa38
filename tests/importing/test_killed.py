"""An import that is killed at any stage leaves nothing but the store as it was; saving: tests/models/test_saving.py."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import psutil
import pytest
from PIL import Image

from models.catalogue import CATALOGUE
from tests.conftest import CHECKOUT
from tests.importing.hub import serving
from tests.importing.loaders.test_resnet import write

PET: Final = CATALOGUE["pet_classifier"]
PATIENCE_S: Final = 600  # an import takes about 8 s of an idle machine


class Trial:
    """An import of a small pet classifier in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.home.mkdir()
        self.weights = write(folder / "pets", {0: "cats", 1: "dogs"})
        pictures = folder / "pictures"
        pictures.mkdir()
        for number in range(12):  # ten are needed
            Image.new("RGB", (64, 64), (20 * number, 40, 90)).save(pictures / f"{number}.png")
        self.calibration = ("--calibrate", str(pictures))

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        environment = {key: value for key, value in os.environ.items() if not key.endswith("_MODEL_PATH")}
        environment |= {"BENTOML_HOME": str(self.home), "AI_MODELS_PATH": "/nowhere", "NO_PROXY": "127.0.0.1"}
        command = [sys.executable, "-m", "models.import_models", PET.name, *arguments]
        return subprocess.Popen(command, cwd=CHECKOUT, env=environment, start_new_session=True)

    def kill_when(self, pattern: str, *arguments: str) -> None:
        """Start an import, and kill it as soon as there is a file of this pattern; its processes end."""
        importer = self.start(*arguments)
        end = time.monotonic() + PATIENCE_S
        while not list(self.home.glob(pattern)):
            assert importer.poll() is None, "it ended before"
            assert time.monotonic() < end
            time.sleep(0.001)
        importer.kill()
        importer.wait()
        end = time.monotonic() + 60
        while group(importer.pid):
            assert time.monotonic() < end, "its processes live on"
            time.sleep(0.1)

    def tags(self) -> list[str]:
        return sorted(path.name for path in (self.home / "models").glob("*/*") if path.is_dir())


def group(leader: int) -> list[int]:
    """The processes of a group."""
    found = []
    for process in psutil.process_iter(["status"]):
        try:
            if os.getpgid(process.pid) == leader and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except ProcessLookupError:
            continue
    return found


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    return Trial(tmp_path)


def check_as_before(trial: Trial, *arguments: str) -> None:
    """The next import does all that the killed one did not, and nothing of that one is left."""
    assert trial.tags() == []
    assert trial.start(*arguments).wait(PATIENCE_S) == 0
    assert len(trial.tags()) == 1
    assert not (trial.home / "importing").exists()


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["weights/model.safetensors", "graph.pt2", "graph.onnx"])
def test_an_import_that_is_killed_while_it_converts_leaves_nothing(trial: Trial, stage: str) -> None:
    source = ("--source", str(trial.weights))
    trial.kill_when(f"importing/*/{stage}", *source)
    check_as_before(trial, *source)


@pytest.mark.slow
def test_an_import_that_is_killed_while_it_downloads_leaves_nothing(trial: Trial) -> None:
    content = {f"/pets/{file.name}": file.read_bytes() for file in trial.weights.iterdir()}
    source: Sequence[str]
    with serving(content, pause_s=5) as hub:
        source = ("--source", f"{hub.url}/pets")
        trial.kill_when("importing/downloads/*.part", *source)
    with serving(content) as hub:
        source = ("--source", f"{hub.url}/pets")
        check_as_before(trial, *source)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["graph-int8.xml", "graph-int8.bin"])
def test_an_import_that_is_killed_while_it_calibrates_keeps_the_model(trial: Trial, stage: str) -> None:
    source = ("--source", str(trial.weights))
    assert trial.start(*source).wait(PATIENCE_S) == 0
    before = trial.tags()
    trial.kill_when(f"importing/*/{stage}", *source, *trial.calibration)
    assert trial.tags() == before
    assert trial.start(*source, *trial.calibration).wait(PATIENCE_S) == 0
    assert len(trial.tags()) == 2
    assert not (trial.home / "importing").exists()
