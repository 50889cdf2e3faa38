"""The Dockerfile and its list of files, as far as they can be checked without Docker."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest
import yaml

from models.catalogue import CATALOGUE
from tests.serving.server import ROOT
from tools.image import REQUIREMENTS

TEXT: Final = (ROOT / "Dockerfile").read_text(encoding="utf-8")
LINES: Final = [line for line in TEXT.replace("\\\n", " ").splitlines() if line and not line.startswith("#")]
STAGES: Final = [match.groups() for line in LINES if (match := re.fullmatch(r"FROM (\S+)(?: AS (\S+))?", line))]
IGNORED: Final = (ROOT / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()


def stage(name: str | None) -> list[str]:
    """A stage's instructions; None = the last one's."""
    (start,) = [
        number for number, line in enumerate(LINES) if re.fullmatch(r"FROM \S+" + (f" AS {name}" if name else ""), line)
    ]
    later = [number for number, line in enumerate(LINES) if number > start and line.startswith("FROM ")]
    return LINES[start + 1 : min(later, default=len(LINES))]


def makefile(variable: str) -> str:
    (value,) = re.findall(rf"^{variable} := (\S+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    return str(value)


def test_every_image_from_elsewhere_is_the_bento_s_python_by_its_usual_name() -> None:
    own = {name for _, name in STAGES} | {"scratch", "${FULL}", "packages-${VARIANT}"}
    docker = yaml.safe_load((ROOT / "bentofile.yaml").read_text(encoding="utf-8"))["docker"]
    assert {base for base, _ in STAGES} - own == {f"python:{docker['python_version']}-slim"}
    assert "# syntax" not in TEXT  # it would be one more image from a registry


def test_the_requirements_are_the_locked_ones_of_the_variant_with_hashes() -> None:
    for variant, file in REQUIREMENTS.items():
        (line,) = stage(f"packages-{variant}")
        assert line.endswith(f"uv pip sync --require-hashes /src/{file}")
    assert f"uv=={makefile('UV_VERSION')}" in TEXT


def test_the_stages_that_bentoml_s_image_replaces_end_before_the_last_two() -> None:
    assert LINES[:2] == ["ARG VARIANT=gpu", "ARG FULL=built"]  # the seed's `build:` passes no arguments
    assert STAGES[-2:] == [("${FULL}", "full"), ("python:3.11-slim", None)]
    assert all("--from=full" in line for line in stage(None) if line.startswith("COPY"))


def test_the_last_stage_is_nobody_in_particular_and_serves_the_bento() -> None:
    last = stage(None)
    assert "USER bentoml" in last
    assert not [line for line in last[last.index("USER bentoml") :] if line.startswith(("RUN", "COPY", "ADD"))]
    assert last[-1].startswith("ENTRYPOINT")
    assert "exec bentoml serve" in last[-1]
    assert "EXPOSE 8096" in last


def test_each_model_s_folder_of_the_model_zoo_is_taken_if_it_is_there() -> None:
    """The last letter of the folder is in brackets: as a pattern it may match nothing."""
    copies = [line.split()[2:] for line in stage("bento") if line.startswith("COPY --from=models")]
    assert copies == [
        [f"/model-zo[o]/{spec.weights[:-1]}[{spec.weights[-1]}]", f"/export/ai_models/model-zoo/{spec.weights}"]
        for spec in CATALOGUE.values()
    ]
    assert ("scratch", "models") in STAGES  # without the build context


def test_a_part_of_the_models_is_enough_for_an_image() -> None:
    (run,) = [line for line in stage("bento") if line.startswith("RUN")]
    assert "python -m models.import_models || [ $? = 3 ]" in run


@pytest.mark.parametrize("checkout", ["", "ai/enrichment-light/"])
def test_the_context_has_all_that_the_bento_includes_and_nothing_large(checkout: str) -> None:
    bentofile = yaml.safe_load((ROOT / "bentofile.yaml").read_text(encoding="utf-8"))
    needed = [path.strip("/") for path in bentofile["include"]] + ["bentofile.yaml", "requirements", "tools"]
    assert [path for path in needed if not sent(f"{checkout}{path}")] == []
    present = {path.name for path in ROOT.iterdir()} | {".venv", ".git"}
    left_out = {".venv", ".git", "tests", "docs", "benchmarks", "deploy", "examples"}
    assert [path for path in present & left_out if sent(f"{checkout}{path}")] == []
    assert not sent(f"{checkout}api/__pycache__")


def sent(path: str) -> bool:
    """Whether Docker sends this path: the last pattern that matches it, or a folder around it, decides."""
    result = True
    around = [path, *(str(parent) for parent in Path(path).parents if str(parent) != ".")]
    for pattern in IGNORED:
        if pattern.startswith("#"):
            continue
        bare = re.escape(pattern.lstrip("!")).replace(r"\*\*/", "(.*/)?").replace(r"\*", "[^/]*")
        if any(re.fullmatch(bare, one) for one in around):
            result = pattern.startswith("!")
    return result


def test_bentoml_reports_no_usage() -> None:
    assert "BENTOML_DO_NOT_TRACK=True" in " ".join(stage(None)).split()
    assert "\nexport BENTOML_DO_NOT_TRACK ?= True\n" in (ROOT / "Makefile").read_text(encoding="utf-8")
