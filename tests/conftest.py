from __future__ import annotations

import atexit
import fcntl
import gc
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

# Before anything imports BentoML, which reads it once: no test may see or touch the user's own model store.
# The workers of pytest-xdist have that of the process that starts them, so that the weights are imported once for all.
WORKER = os.environ.get("PYTEST_XDIST_WORKER", "")
HOME = Path(os.environ["BENTOML_HOME"] if WORKER else tempfile.mkdtemp(prefix="enrichment-tests-"))
if not WORKER:
    atexit.register(shutil.rmtree, HOME, ignore_errors=True)
os.environ |= {
    "BENTOML_HOME": str(HOME),
    "BENTOML_DO_NOT_TRACK": "True",
    "YOLO_CONFIG_DIR": str(HOME / f"ultralytics{WORKER}"),
    # torch's threads wait for each other spinning: where others compute, too, two took four times as long as one.
    "OMP_NUM_THREADS": "1",
}

_PILLOWS_OPEN = Image.open

CHECKOUT = Path(__file__).parents[1]


@pytest.fixture(autouse=True, scope="module")
def cheap_collections() -> None:
    """Keep the libraries' objects out of Python's garbage collections, which the runners ask for again and again.

    A worker holds the objects of all test modules, and torch's: a collection of them all takes seconds.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def pillow_as_in_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    """No serving process imports ultralytics, which replaces Image.open; the parity tests' process does."""
    monkeypatch.setattr(Image, "open", _PILLOWS_OPEN)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder `shared` beside the checkout: images, real weights, documents."""
    folder = CHECKOUT.parent / "shared"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent: it holds the images and the real weights")
    return folder


@pytest.fixture(scope="session")
def zoo() -> Path:
    """A folder for AI_MODELS_PATH: the real weights of ../shared, and a stand-in for each that is not there.

    A stand-in has the exact architecture and random parameters. Here it is imported like real weights.
    """
    from models.catalogue import CATALOGUE

    folder = HOME / "zoo"
    with (HOME / "zoo.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one worker of pytest-xdist makes it, the others wait
        if folder.exists():
            return folder
        for name, spec in CATALOGUE.items():
            real, here = CHECKOUT.parent / "shared" / "model-zoo" / spec.weights, folder / "model-zoo" / spec.weights
            here.parent.mkdir(parents=True, exist_ok=True)
            if (real / spec.file).exists():
                here.symlink_to(real)
                continue
            (here / spec.file).parent.mkdir(parents=True, exist_ok=True)
            code = f"from pathlib import Path; from importing.loaders import write_standin as w; w({name!r}, Path(r'"
            place = (here / spec.file).parent if spec.file else here
            subprocess.run([sys.executable, "-c", f"{code}{place}'))"], cwd=CHECKOUT, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="session")
def depth_weights(zoo: Path) -> Path:
    """Depth Anything V2 Small's exact architecture with random weights, as a transformers folder."""
    return zoo / "model-zoo" / "depth-anything-v2-small"


@pytest.fixture(scope="session")
def model_store(zoo: Path) -> Path:
    """A BENTOML_HOME with all five models imported from the zoo."""
    from models.catalogue import CATALOGUE

    environment = {**os.environ, "AI_MODELS_PATH": str(zoo)}
    for spec in CATALOGUE.values():
        environment.pop(spec.path_variable, None)
    command = [sys.executable, "-m", "models.import_models"]
    done = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return HOME


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty BENTOML_HOME, for this process and those it starts; no weights are found unless a test provides them."""
    from bentoml._internal.configuration.containers import BentoMLContainer
    from bentoml._internal.models import ModelStore

    from models.catalogue import CATALOGUE

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
