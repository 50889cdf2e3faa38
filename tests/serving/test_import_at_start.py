"""Weights that lie at the documented paths are imported before anything is served."""

from __future__ import annotations

import signal
from pathlib import Path

import httpx
import pytest

from models.catalogue import CATALOGUE
from tests.serving.pictures import ask, plain
from tests.serving.server import REAL, ROOT, SMALL_BATCHES, Server, serving

pytestmark = pytest.mark.serve


@pytest.fixture
def environment(zoo: Path, tmp_path: Path) -> dict[str, str]:
    """One model's weights in place, another's absent and without a download; the others are served elsewhere."""
    ours = {"person_reid", "pet_classifier"}
    elsewhere = {spec.assignment_variable: "heavy" for name, spec in CATALOGUE.items() if name not in ours}
    return {
        **elsewhere,
        **SMALL_BATCHES,
        "ENRICHMENT_IMPORT_AT_START": "true",
        "REID_MODEL_PATH": str(zoo / "model-zoo" / "osnet-x0-25" / "osnet_x0_25.pth"),
        "AI_MODELS_PATH": str(tmp_path),
        "BENTOML_HOME": str(tmp_path / "home"),
    }


@pytest.mark.slow
def test_weights_are_imported_and_a_model_without_does_not_stop_the_others(
    environment: dict[str, str], tmp_path: Path
) -> None:
    with serving(tmp_path, environment, REAL) as server, httpx.Client(base_url=server.url) as client:
        assert ask(client, "/person-reid", plain((1, 2, 3))).status_code == 200
        assert server.model("pet_classifier")["state"] == "absent"
        assert "person_reid: stored as person_reid:" in server.log
        assert "pet_classifier was not imported: no weights of ResNet-18 cats and dogs were found" in server.log
        assert "some models could not be imported" in server.log
        assert "converting pose_estimator" not in server.log  # it is served elsewhere


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_during_the_import_ends_both_and_leaves_nothing(
    environment: dict[str, str], tmp_path: Path, signum: signal.Signals
) -> None:
    server = Server(tmp_path, environment | {"TMPDIR": str(tmp_path)}, REAL, ROOT)
    try:
        server.wait(lambda: "converting" in server.log, "converting")
        server.process.send_signal(signum)
        assert server.process.wait(60) == 128 + signum
    finally:
        server.stop()
    assert not (tmp_path / "home" / "importing").exists()
    assert not list((tmp_path / "home" / "models").glob("*/*"))
