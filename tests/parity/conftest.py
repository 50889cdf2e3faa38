from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.precision import pipeline
from models.catalogue import ModelName
from settings import EngineChoice, Precision
from tasks.pipeline import Pipeline, read
from tests.conftest import CHECKOUT
from vision.arrays import RGB

Make = Callable[[ModelName, EngineChoice, Precision], Pipeline]

#: Each import proves torch's program against the original already (importing.proof), so that its pictures may wait.
ENGINES = pytest.mark.parametrize("engine", ["openvino", pytest.param("torch", marks=pytest.mark.slow)])


@pytest.fixture(scope="session")
def make(model_store: Path) -> Make:
    """Pipelines on the real weights, each loaded once."""
    made: dict[tuple[str, str, str], Pipeline] = {}

    def get(name: ModelName, engine: EngineChoice, precision: Precision) -> Pipeline:
        key = (name, engine, precision)
        if key not in made:
            made[key] = pipeline(name, engine, precision)
        return made[key]

    return get


@pytest.fixture(scope="session")
def image_files(shared: Path) -> list[Path]:
    """Every image of ../shared: scenes, formats and person crops."""
    return sorted(path for path in (shared / "images").rglob("*") if path.suffix in {".jpg", ".png", ".webp"})


class MadeUp(dict[str, RGB]):
    """Pictures of nothing in particular, for stand-ins: whatever name is asked for, of a size that goes by it."""

    def __missing__(self, name: str) -> RGB:
        random = np.random.default_rng(zlib.crc32(name.encode()))
        height, width = random.choice([(480, 640), (720, 1280), (640, 427), (300, 300), (512, 384)])
        coarse = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        self[name] = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
        return self[name]


@pytest.fixture(scope="session")
def images(request: pytest.FixtureRequest) -> dict[str, RGB]:
    """File name → the image as the service decodes it. Without ../shared they are made up."""
    if not (CHECKOUT.parent / "shared").is_dir():
        made_up = MadeUp()
        for name in "abcdef":  # some to begin with, for tests of all pictures
            _ = made_up[name]
        return made_up
    files: list[Path] = request.getfixturevalue("image_files")
    return {path.name: read(path) for path in files}
