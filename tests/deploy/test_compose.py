from __future__ import annotations

import re
import shutil
import subprocess

import pytest
import yaml

from settings import ENVIRONMENT
from tests.serving.server import ROOT

DEPLOY = ROOT / "deploy"
COMPOSE = DEPLOY / "compose.cpu.yaml"


def test_the_example_has_every_variable_of_the_compose_file_with_its_default() -> None:
    used = dict(re.findall(r"\$\{(\w+):-([^}]*)\}", COMPOSE.read_text(encoding="utf-8")))
    lines = (DEPLOY / ".env.example").read_text(encoding="utf-8").splitlines()
    example = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    assert example == used


def test_what_it_passes_into_the_container_is_what_the_service_reads() -> None:
    service = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"]["ai-enrichment-light"]
    assert set(service["environment"]) <= {variable for variable, _ in ENVIRONMENT}


def test_compose_takes_it() -> None:
    if (
        shutil.which("docker") is None
        or subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode
    ):
        pytest.skip("docker compose is not installed")
    done = subprocess.run(["docker", "compose", "-f", str(COMPOSE), "config", "-q"], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
