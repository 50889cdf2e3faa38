from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml._internal.models import ModelStore

from models.catalogue import CATALOGUE


@pytest.fixture(autouse=True, scope="session")
def quiet_libraries(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep the libraries from the network and out of the user's home, as models.workshop does."""
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    os.environ |= {
        "MPLCONFIGDIR": str(tmp_path_factory.mktemp("matplotlib")),
        "YOLO_OFFLINE": "true",
        "YOLO_AUTOINSTALL": "false",
        "HF_HUB_OFFLINE": "1",
    }


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty BENTOML_HOME, for this process and those it starts; no weights are found unless a test provides them."""
    folder = tmp_path / "bentoml"
    (folder / "models").mkdir(parents=True)
    monkeypatch.setenv("BENTOML_HOME", str(folder))
    for spec in CATALOGUE.values():
        monkeypatch.delenv(spec.path_variable, raising=False)
    monkeypatch.setenv("AI_MODELS_PATH", str(tmp_path / "nothing"))
    # BentoML resolves BENTOML_HOME once per process.
    BentoMLContainer.bentoml_home.set(str(folder))
    BentoMLContainer.model_store_dir.set(str(folder / "models"))
    BentoMLContainer.model_store.set(ModelStore(folder / "models"))
    yield folder
    BentoMLContainer.bentoml_home.reset()
    BentoMLContainer.model_store_dir.reset()
    BentoMLContainer.model_store.reset()
