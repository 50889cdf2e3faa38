from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engines.engine import Images, Rows
from models.store import StoredModel
from settings import DEFAULT_FILE, load
from tests.models.cards import card
from tools import measuring
from tools.doctor import _PICTURE
from tools.measuring import Measuring


class Engine:
    name, precision = "openvino", "f32"

    def __init__(self, seconds: float) -> None:
        self.seconds, self.runs = seconds, 0

    def run(self, images: Images, min_confidence: float = 0, **_: object) -> tuple[Rows, ...]:
        self.runs += 1
        time.sleep(self.seconds)
        return np.zeros((len(images), 2), np.float32), np.zeros((len(images), 512), np.float32)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    made = Engine(0.02)
    monkeypatch.setattr("runners.engine_choice.load", lambda *_: made)
    return made


def measure(until: float) -> measuring.Measured | None:
    known = card()
    size: dict[str, int] = {"height": 224, "width": 224, "resample": 3}
    stored = StoredModel("pet_classifier:1", Path(), replace(known, input={**known.input, **size}))  # type: ignore[typeddict-item]
    return Measuring(load(DEFAULT_FILE, {}), None, _PICTURE, until).measure(stored)


def test_the_time_is_that_of_whole_passes_after_a_first_one(engine: Engine) -> None:
    measured = measure(time.monotonic() + 60)
    assert measured is not None
    assert 20 <= measured.ms < 5000
    assert 2 <= engine.runs <= 1 + measuring._PASSES


def test_a_slow_model_gets_one_pass(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "_SECONDS", 0.0)
    assert measure(time.monotonic() + 60) is not None
    assert engine.runs == 2


def test_after_the_time_nothing_is_loaded(engine: Engine) -> None:
    assert measure(time.monotonic() - 1) is None
    assert engine.runs == 0
