"""The version stands in pyproject.toml; what has to repeat it says the same."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
REPEATED = (
    "deploy/.env.example",
    "deploy/compose.cpu.yaml",
    "deploy/compose.yaml",
    "deploy/kubernetes/overlays/cpu/kustomization.yaml",
    "deploy/kubernetes/overlays/gpu/kustomization.yaml",
)


def version_of(file: str) -> str:
    version: str = tomllib.loads((ROOT / file).read_text("utf-8"))["project"]["version"]
    return version


def test_the_client_has_the_projects_version() -> None:
    assert version_of("client/pyproject.toml") == version_of("pyproject.toml")


@pytest.mark.parametrize("file", REPEATED)
def test_the_version_is_the_projects(file: str) -> None:
    version = version_of("pyproject.toml")
    lines = [
        line
        for line in (ROOT / file).read_text("utf-8").splitlines()
        if re.search(r"ENRICHMENT_LIGHT_VERSION|newTag", line)
    ]
    assert lines
    assert all(version in line for line in lines)
