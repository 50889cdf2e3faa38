"""The built bento, served without the checkout and from another model store."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from models import store
from tests.serving.pictures import encoded, plain
from tests.serving.server import ROOT, SMALL_BATCHES, Server, serving

pytestmark = pytest.mark.serve

PACKED = {
    "LICENSE",
    "api",
    "bentofile.yaml",
    "configuration.yaml",
    "engines",
    "importing",
    "models",
    "pyproject.toml",
    "runners",
    "service.py",
    "settings",
    "tasks",
    "vision",
}


def bentoml(home: Path, *arguments: str, cwd: Path) -> str:
    environment = {**os.environ, "BENTOML_HOME": str(home)}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"  # BentoML calls uv by its name
    command = [sys.executable, "-m", "bentoml", *arguments]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def tag(model_store: Path) -> str:
    return bentoml(model_store, "build", "--output", "tag", cwd=ROOT).removeprefix("__tag__:")


def check_answer(server: Server) -> None:
    """It answers; with the real weights of ../shared rightly, too."""
    real = ROOT.parent / "shared" / "images" / "knife_board.jpg"
    picture = real.read_bytes() if real.is_file() else encoded(plain((1, 2, 3)))
    answer = httpx.post(f"{server.url}/threat-detect", files={"image": picture}, timeout=30)
    assert answer.status_code == 200
    if real.is_file():
        assert [threat["class"] for threat in answer.json()["threats_detected"]] == ["knife"]


@pytest.mark.slow
def test_a_bento_as_it_lies_in_its_image_has_its_models_with_it(model_store: Path, tag: str, tmp_path: Path) -> None:
    # `bentoml containerize` copies the models into the bento; BENTOML_HOME is empty there.
    bento = tmp_path / "bento"
    shutil.copytree(model_store / "bentos" / tag.replace(":", "/"), bento)
    shutil.copytree(model_store / "models", bento / "models")
    for useless in [*bento.glob("models/*/*/graph.pt2"), *bento.glob("models/*/*/weights")]:  # as in a CPU's image
        shutil.rmtree(useless) if useless.is_dir() else useless.unlink()
    configuration = {"BENTOML_CONFIG": str(bento / "src" / "configuration.yaml")}
    with serving(tmp_path, SMALL_BATCHES | configuration, str(bento), cwd=tmp_path) as server:
        assert server.health().json()["status"] == "healthy"
        check_answer(server)


@pytest.mark.slow
def test_a_built_bento_serves_the_models_it_was_built_with(model_store: Path, tag: str, tmp_path: Path) -> None:
    archive = tmp_path / "service.tar"  # a .bento is compressed, which takes minutes for the weights
    bentoml(model_store, "export", tag, str(archive), cwd=tmp_path)
    home = tmp_path / "home"
    bentoml(home, "import", str(archive), cwd=tmp_path)
    name, version = tag.split(":")
    assert {path.name for path in (home / "bentos" / name / version / "src").iterdir()} == PACKED
    built = store.require("threat_detector")
    # A model that was imported since then is not what this bento was built with.
    newer = home / "models" / "threat_detector" / "latest"
    newer.write_text("imported-since")
    with serving(tmp_path, SMALL_BATCHES | {"BENTOML_HOME": str(home)}, tag, cwd=tmp_path) as server:
        assert server.model("threat_detector")["weights"] == built.label_for_health
        check_answer(server)
        assert server.health().json()["status"] == "healthy"
