"""The comparison with the plain server: that it runs and that the two agree, not how fast they are."""

from __future__ import annotations

import base64
import io
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks.agreement import Disagreement, difference
from benchmarks.comparison import OTHER, SERVICE, Bars, Cell, draw
from benchmarks.load import Load
from models.catalogue import CATALOGUE
from tests.serving.server import ROOT


@pytest.mark.slow
@pytest.mark.weights
@pytest.mark.serve
def test_it_runs_and_both_sides_agree(model_store: Path, shared: Path, tmp_path: Path) -> None:
    only = ["person_reid", "threat_detector"]
    command = [sys.executable, "-m", "benchmarks.compare", str(shared / "images"), "--quick", "--out", str(tmp_path)]
    others = {spec.assignment_variable: "heavy" for name, spec in CATALOGUE.items() if name not in only}
    environment = os.environ | {"BENTOML_HOME": str(model_store), "BENTOML_DO_NOT_TRACK": "True", **others}
    done = subprocess.run(
        [*command, "--picture", "knife_board.jpg", "--only", *only],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    table = (tmp_path / "compare.md").read_text(encoding="utf-8")
    assert "| /person-reid | 640×480 JPEG | 32 |" in table
    assert "1 threats, boxes' IoU" in table
    assert table.count(" 0 errors.") == 2
    assert (tmp_path / "compare.png").read_bytes().startswith(b"\x89PNG")


def load(seconds: float, *latencies: float) -> Load:
    return Load(seconds, latencies, Counter())


def test_ratios_are_of_medians_with_the_spread_of_the_pairs() -> None:
    cell = Cell({OTHER: [load(1, 1), load(1, 1, 1), load(1, 1)], SERVICE: [load(1, *[0.1] * n) for n in (3, 4, 5)]})
    assert cell.rate_ratio() == (4.0, 2.0, 5.0)
    assert cell.p50_ratio() == pytest.approx(0.1)
    assert cell.ms(SERVICE, 99) == pytest.approx(100)
    assert cell.failures(OTHER) == 0


@pytest.mark.parametrize(("first", "later", "slow"), [(8, 1, True), (7, 100, False)])
def test_what_is_slow_is_told_by_the_first_round_of_both_sides(first: float, later: float, slow: bool) -> None:
    assert not Cell().slow
    assert Cell({side: [load(first, 1), load(later, 1)] for side in (OTHER, SERVICE)}).slow is slow


def test_bars_are_as_long_as_what_they_say_with_units_and_direction() -> None:
    figure = draw({"/a": Bars((1, 20, 300), (40, 5)), "/b": Bars((7, 8, 9), (2, 1))}, "plain", "a machine")
    for axes in figure.axes:
        assert axes.get_yscale() == "linear"
        assert axes.get_ylim()[0] == 0
    assert [bar.get_height() for bar in figure.axes[0].patches] == [1, 20, 300]  # type: ignore[attr-defined]
    labels = {axes.get_ylabel() for axes in figure.axes if axes.get_ylabel()}
    assert any("requests per second" in label and "higher is better" in label for label in labels)
    assert any("latency in ms" in label and "lower is better" in label for label in labels)


def picture(shift: int) -> str:
    png = io.BytesIO()
    Image.fromarray(np.roll(np.arange(64, dtype=np.uint8).reshape(8, 8) * 4, shift)).save(png, "PNG")
    return base64.b64encode(png.getvalue()).decode()


def box(x: float) -> dict[str, float]:
    return {"x": x, "y": 0, "width": 10, "height": 10}


def pose(x: float, posture: str = "standing") -> dict[str, Any]:
    return {"posture": posture, "persons": [{"bbox": box(x)}]}


def pet(kind: str, confidence: float, household: bool = True) -> dict[str, Any]:
    return {"pet_type": kind, "confidence": confidence, "is_household_pet": household}


@pytest.mark.parametrize(
    ("route", "one", "same", "other"),
    [
        ("/pose-analyze", pose(0), pose(0.1), pose(5)),
        (
            "/threat-detect",
            {"threats_detected": [{"class": "knife", "bbox": box(0)}]},
            {"threats_detected": [{"class": "knife", "bbox": box(0.1)}]},
            {"threats_detected": [{"class": "knife", "bbox": box(5)}]},
        ),
        ("/person-reid", {"embedding": [1.0, 0.0]}, {"embedding": [1.0, 0.01]}, {"embedding": [0.9, 0.4]}),
        ("/pose-analyze", pose(0), pose(0), pose(0, "lying")),
        ("/pose-analyze", pose(0), pose(0), {"posture": "standing", "persons": []}),
        ("/pet-classify", pet("cat", 0.9), pet("cat", 0.8), pet("dog", 0.9)),
        ("/pet-classify", pet("cat", 0.9), pet("cat", 0.8), pet("cat", 0.9, household=False)),
        (
            "/depth-estimate",
            {"depth_map_base64": picture(0)},
            {"depth_map_base64": picture(0)},
            {"depth_map_base64": picture(30)},
        ),
    ],
)
def test_answers_that_mean_something_else_are_a_disagreement(route: str, one: Any, same: Any, other: Any) -> None:
    assert difference(route, one, same)
    with pytest.raises(Disagreement):
        difference(route, one, other)
