"""The documented way to serve, `make import && bentoml serve`, with weights of four of the five models."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import httpx
import pytest

from models.catalogue import CATALOGUE
from tests.serving.pictures import ask, plain
from tests.serving.server import REAL, ROOT, SMALL_BATCHES, serving

pytestmark = [pytest.mark.serve, pytest.mark.weights]

MISSING: Final = "pet_classifier"  # no public download of it is known, so that no network is needed


@pytest.fixture
def environment(model_store: Path, zoo: Path, tmp_path: Path) -> dict[str, str]:
    """A store and a model zoo, both without one model."""
    for name, spec in CATALOGUE.items():
        if name != MISSING:
            shutil.copytree(model_store / "models" / name, tmp_path / "home/models" / name, copy_function=os.link)
            (tmp_path / "zoo/model-zoo").mkdir(parents=True, exist_ok=True)
            (tmp_path / "zoo/model-zoo" / spec.weights).symlink_to(zoo / "model-zoo" / spec.weights)
    return {"BENTOML_HOME": str(tmp_path / "home"), "AI_MODELS_PATH": str(tmp_path / "zoo")}


@pytest.mark.slow
def test_a_missing_model_stops_neither_the_import_nor_the_service(environment: dict[str, str], tmp_path: Path) -> None:
    ours = {key: value for key, value in os.environ.items() if not key.endswith("_MODEL_PATH")}
    command = ["make", "import", f"VENV={sys.prefix}", "--old-file", f"{sys.prefix}/.installed"]
    done = subprocess.run(command, cwd=ROOT, env=ours | environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("already there") == len(CATALOGUE) - 1
    assert re.search(rf"^{MISSING} +MISSING", done.stdout, re.MULTILINE)
    served = environment | SMALL_BATCHES | {"ENRICHMENT_PRELOAD_MODELS": f"person_reid,{MISSING}"}
    served["ENRICHMENT_IMPORT_AT_START"] = "true"
    with serving(tmp_path, served, REAL) as server, httpx.Client(base_url=server.url) as client:
        assert client.get("/readyz").status_code == 200
        assert server.log.count("already there") == len(CATALOGUE) - 1  # nothing is imported twice
        health = client.get("/health")
        assert (health.status_code, health.json()["status"]) == (200, "degraded")
        assert [name for name in CATALOGUE if server.model(name)["state"] == "absent"] == [MISSING]
        assert ask(client, "/person-reid", plain((1, 2, 3))).status_code == 200
        refused = ask(client, CATALOGUE[MISSING].route, plain((1, 2, 3)))
        assert refused.status_code == 503
        assert f"python -m models.import_models {MISSING}" in refused.json()["error"]["message"]
