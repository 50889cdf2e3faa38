"""The rules of the rooms that no import linter knows, and the figures that tools/house.py counts."""

from __future__ import annotations

import json
import re

import pytest

import models.store
import runners
from runners import engine_choice
from settings import get_settings
from tests.serving import fake
from tests.serving.pictures import encoded, plain
from tools import house


def test_a_model_has_a_home() -> None:
    assert len(house.naming("pet_classifier", "PetClassifier")) <= 6
    assert len(house.naming("depth_estimator", "DepthEstimator")) <= 7  # /object-distance is of the same model


def test_no_file_imports_itself_by_way_of_others() -> None:
    assert house.circles() == []


def test_every_file_says_what_it_is_for() -> None:
    assert house.unsaid() == []


def test_settings_are_read_while_the_service_is_imported_and_nowhere_else() -> None:
    assert house.reading_settings() == ["service.py"]


def test_the_service_is_routes_and_wiring() -> None:
    assert len((house.ROOT / "service.py").read_text("utf-8").splitlines()) <= 150


async def test_the_way_of_a_request_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models.store, "find", fake.find)
    monkeypatch.setattr(engine_choice, "load", fake.load)
    runner = runners.compose(get_settings())["pose_estimator"].inner()
    image = encoded(plain((200, 200, 0)), "JPEG")
    try:
        await house.ask("/pose-analyze", image, runner)  # loads the model
        way, body = await house.ask("/pose-analyze", image, runner)
    finally:
        runner.close()
    assert json.loads(body)["num_people"] == 1
    flow = {(file, name) for file, name in way.functions if not file.startswith("vision/")}
    assert len(flow) <= 135
    assert ("tasks/pose_estimator.py", "PoseEstimator.answer") in flow
    assert not {file for file in way.files if file.startswith("importing/")}


_NAMED = re.compile(
    r"(?<![\w/.-])((?:{}|tools|benchmarks|tests|deploy|docs|examples)/[\w/.-]*\.\w+)".format("|".join(house.ROOMS))
)


def test_the_files_that_documents_name_are_there() -> None:
    documents = [
        *house.ROOT.glob("*.md"),
        *(house.ROOT / "docs").rglob("*.md"),
        *(house.ROOT / "benchmarks").glob("*.md"),
    ]
    missing = {
        (str(document.relative_to(house.ROOT)), named)
        for document in documents
        for named in _NAMED.findall(document.read_text("utf-8"))
        if not (house.ROOT / named).exists() and "NAME" not in named
    }
    assert missing == set()


def test_the_tests_that_the_advisories_point_to_are_there() -> None:
    named = re.findall(r"(tests/[\w/]+\.py)::(\w+)", (house.ROOT / "SECURITY.md").read_text("utf-8"))
    assert len(named) > 10
    for file, test in named:
        assert f"def {test}(" in (house.ROOT / file).read_text("utf-8"), f"{file}::{test}"
