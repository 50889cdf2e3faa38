"""README and docs: short, plain, without dead links, and as the code says."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from typing import Any, Final, get_args

import pytest
from pydantic import BaseModel

from api.enrich_schemas import EnrichResponse
from models.catalogue import CATALOGUE
from tasks import distance
from tasks.depth_estimator import DepthResponse, DistanceResponse
from tasks.person_reid import ReidResponse
from tasks.pet_classifier import PetResponse
from tasks.pose_estimator import PoseResponse
from tasks.similarity import CompareResponse, MatchResponse
from tasks.threat_detector import Severity, ThreatResponse
from tools.docs import measure
from tools.docs.text import ROOT, fields
from vision.posture import KEYPOINT_NAMES, Alert, Posture

USE: Final = ROOT / "docs" / "use"
README_WORDS: Final = 700
AVERAGE: Final = 16  # words of a sentence
# Page → the models of its answers, and the values that a field may have.
ANSWERS: Final[dict[str, tuple[tuple[type[BaseModel], ...], Iterable[str]]]] = {
    "pose": ((PoseResponse,), [*KEYPOINT_NAMES, *Posture, *Alert]),
    "threat": ((ThreatResponse,), get_args(Severity)),
    "reid": ((ReidResponse, CompareResponse, MatchResponse), ("request", "setting", "measured", "borrowed")),
    "enrich": ((EnrichResponse,), [*CATALOGUE, *(spec.short_name for spec in CATALOGUE.values())]),
    "pet": ((PetResponse,), ("cat", "dog")),
    "depth": ((DepthResponse, DistanceResponse), [*distance.METHODS, *get_args(distance.Proximity)]),
}


# Models that the pages of their own routes explain.
ELSEWHERE: Final = ("PoseResponse", "ThreatResponse", "ReidResponse", "PetResponse")


@pytest.fixture(scope="module")
def pages() -> list[measure.Page]:
    return measure.pages()


def test_the_readme_is_short(pages: list[measure.Page]) -> None:
    readme = pages[0]
    assert readme.name == "README.md"
    assert readme.words <= README_WORDS


def test_sentences_are_short(pages: list[measure.Page]) -> None:
    assert {page.name: page.average for page in pages if page.average > AVERAGE} == {}
    assert {page.name: page.longest for page in pages if page.longest > measure.TOO_LONG} == {}


def test_no_link_is_dead_and_each_page_is_linked(pages: list[measure.Page]) -> None:
    assert measure.problems(pages) == []


def test_generated_pages_say_what_the_code_says() -> None:
    command = [sys.executable, "-m", "tools.docs", "check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_site_has_each_page_in_its_navigation(pages: list[measure.Page]) -> None:
    def files(tree: Any) -> list[str]:
        if isinstance(tree, str):
            return [tree]
        return [file for part in (tree.values() if isinstance(tree, dict) else tree) for file in files(part)]

    site = tomllib.loads((ROOT / "zensical.toml").read_text("utf-8"))["project"]
    expected = {page.name for page in pages if "decisions/0" not in page.name}
    assert expected <= set(files(site["nav"]))


@pytest.mark.parametrize("name", ANSWERS)
def test_a_route_s_page_explains_each_field_and_value_and_what_is_missed(name: str) -> None:
    text = (USE / f"{name}.md").read_text("utf-8")
    tables = " ".join(line for line in text.splitlines() if not line.startswith("```"))
    quoted = re.findall(r"`([^`\n]+)`", tables)
    explained = {*quoted, *re.findall(r"\w+", " ".join(quoted))}
    models, values = ANSWERS[name]
    schemas = [model.model_json_schema(mode="serialization", by_alias=True) for model in models]
    names = {
        path.split(".")[-1].strip("[]*")
        for schema in schemas
        for path, _ in fields(schema, schema.get("$defs", {}), ELSEWHERE if name == "enrich" else ())
    }
    of_every_answer = {"inference_time_ms", "untrained", ""}  # docs/use/images.md
    assert names - of_every_answer - explained == set()
    assert set(values) - explained == set()
    assert "## Known misses" in text


def test_the_threat_detector_s_misses_come_first() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    said = " ".join(readme.replace(">", " ").split())
    assert "without a published score" in said
    assert "two of seven" in said
    assert said.index("two of seven") < said.index("## Start")
    threat = (USE / "threat.md").read_text("utf-8")
    assert threat.index("## Known misses") < threat.index("## Ask")
