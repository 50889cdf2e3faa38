"""BentoML's model store: which versions of a model are there, complete, and which one is served."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import bentoml
import yaml
from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml._internal.models.model import ModelStore
from bentoml.exceptions import BentoMLException, NotFound

from models.card import ModelCard
from models.catalogue import CATALOGUE, ModelName

logger = logging.getLogger(__name__)

GRAPH = "graph.onnx"
PROGRAM = "graph.pt2"
INT8 = "graph-int8.xml"
_INT8_WEIGHTS = "graph-int8.bin"
_CALIBRATED = "-int8-"  # in a version: before it the version that was quantized, behind it what it was calibrated on
WEIGHTS = "weights"


class StoreError(RuntimeError):
    """A model is in the BentoML store but cannot be used; the text names it and the command that mends it."""


@dataclass(frozen=True)
class StoredModel:
    """One version of a model in the BentoML store, ready to be loaded by an engine."""

    tag: str
    folder: Path
    card: ModelCard

    @property
    def graph(self) -> Path:
        """The ONNX graph, weights inside: uint8 NHWC RGB in, dynamic batch."""
        return self.folder / GRAPH

    @property
    def program(self) -> Path:
        """The same graph as a `torch.export` program."""
        return self.folder / PROGRAM

    @property
    def int8_graph(self) -> Path:
        """The int8 form of the graph as OpenVINO's IR, of the same input and outputs; there if the card has `int8`."""
        return self.folder / INT8

    @property
    def version(self) -> str:
        return self.tag.rpartition(":")[2]

    @property
    def converted_version(self) -> str:
        """The version under which the same graphs were stored before they were calibrated; else the model's own."""
        return self.version.partition(_CALIBRATED)[0]

    @property
    def weights_folder(self) -> Path:
        """The original weights as they came, for exporters that start from them (TensorRT). May hold pickles."""
        return self.folder / WEIGHTS

    @property
    def checkpoint(self) -> Path:
        """Of the original weights what the official library loads: a file, or a folder."""
        return CATALOGUE[self.card.name].loaded_path(self.weights_folder)

    @property
    def label_for_health(self) -> str:
        """`yolov8n-pose@<first 12 hex digits of the sha256>`, or `untrained` for a stand-in."""
        return "untrained" if self.card.untrained else f"{self.card.weights}@{self.card.sha256[:12]}"


def store_name(name: ModelName, *, untrained: bool = False) -> str:
    """The name in the BentoML store: stand-ins have one of their own, so that nothing takes them by accident."""
    return f"{name}-untrained" if untrained else name


def find(name: ModelName, *, untrained: bool = False) -> StoredModel | None:
    """The version of a model that was imported last, or None where there is none.

    Raises StoreError where the entry is there but unreadable or incomplete.
    """
    return find_version(name, "latest", untrained=untrained)


def require(name: ModelName) -> StoredModel:
    """As `find`. Raises LookupError, too, where there is none."""
    model = find(name)
    if model is None:
        raise LookupError(f"{name} is not in the model store; run: python -m models.import_models {name}")
    return model


def find_version(
    name: ModelName, version: str, *, untrained: bool = False, packed: Path | None = None
) -> StoredModel | None:
    """One version of a model, or None where it is not in the store. Raises StoreError as `find` does.

    packed: a store of its own, as `bentoml containerize` puts it into a bento, in place of BentoML's.
    """
    tag = f"{store_name(name, untrained=untrained)}:{version}"
    shelf = _shelf(name, untrained=untrained) if packed is None else packed / store_name(name, untrained=untrained)
    if version != "latest" and not (shelf / version).is_dir():
        return None  # bentoml.models.get would take the start of a version for the whole of it
    try:
        store = BentoMLContainer.model_store.get() if packed is None else ModelStore(packed)
        return _read(store.get(tag), untrained=untrained, whole=packed is None)
    except NotFound:
        return None
    except (BentoMLException, yaml.YAMLError, OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        remedy = f"delete it with `bentoml models delete {tag}` and run `python -m models.import_models {name}`"
        raise StoreError(f"{tag} in the BentoML model store cannot be used ({error}): {remedy}") from error


def calibrated_version(stored: StoredModel, digest: str) -> str:
    """The version of a model with an int8 form beside its graphs; `digest` names what it was calibrated on."""
    return f"{stored.converted_version}{_CALIBRATED}{digest}"


def save(card: ModelCard, version: str, folder: Path) -> StoredModel:
    """Move what `folder` holds into the store as this version of the card's model and make it the one `find` returns.

    A damaged entry under the same version is replaced. When this raises, the store is as it was before.
    """
    shelf = _shelf(card.name, untrained=card.untrained)
    latest, entry = shelf / "latest", shelf / version
    before = latest.read_text() if latest.is_file() else None
    files = {path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    if entry.exists():
        shutil.rmtree(entry)
    # BentoML compares the creation times of the new entry and of the latest one, which fails where that is damaged.
    latest.unlink(missing_ok=True)
    try:
        metadata = {"card": card.to_metadata(), "files": files}
        with bentoml.models.create(f"{shelf.name}:{version}", metadata=metadata) as model:
            shutil.copytree(folder, model.path, dirs_exist_ok=True, copy_function=shutil.move)
        return select(card.name, version, untrained=card.untrained)
    except BaseException:
        shutil.rmtree(entry, ignore_errors=True)
        if before is not None:
            latest.write_text(before)
        elif shelf.is_dir() and not any(path.is_dir() for path in shelf.iterdir()):
            shutil.rmtree(shelf)
        raise


def select(name: ModelName, version: str, *, untrained: bool = False) -> StoredModel:
    """Make a stored version the one that `find` and BentoML's `latest` return. Raises StoreError as `find` does."""
    stored = find_version(name, version, untrained=untrained)
    if stored is None:
        raise StoreError(f"{store_name(name, untrained=untrained)}:{version} is not in the BentoML model store")
    latest = _shelf(name, untrained=untrained) / "latest"
    if not latest.is_file() or latest.read_text() != version:
        new = latest.with_name("latest.new")
        new.write_text(version)
        new.replace(latest)  # at once: a server may be reading it
    return stored


def home() -> Path:
    """BENTOML_HOME as BentoML resolves it: the one folder that is writable wherever models can be stored."""
    return Path(BentoMLContainer.bentoml_home.get())


def cache_folder(engine: str, stored: StoredModel) -> Path | None:
    """A folder in BENTOML_HOME for what an engine made of a model, without what it made of other versions.

    None, with a line in the log, where it can't be had: nothing but the next start's speed depends on it.
    """
    shelf = home() / "cache" / engine / stored.tag.partition(":")[0]
    folder = shelf / stored.version
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for other in shelf.iterdir():
            if other != folder:
                shutil.rmtree(other)
    except OSError as error:
        logger.warning("%s keeps nothing of %s for the next start: %s", engine, stored.tag, error)
        return None
    return folder if os.access(folder, os.W_OK) else None


@contextmanager
def borrowed_home() -> Iterator[Path]:
    """A BENTOML_HOME for another process, gone afterwards, with this one's models and caches and nothing else of it."""
    (home() / "cache").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for name in ("models", "cache"):
            (Path(folder) / name).symlink_to(home() / name)
        yield Path(folder)


@contextmanager
def exclusive() -> Iterator[None]:
    """Keep every other import out of this store; waits until it is free."""
    with (home() / "import.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.info("Another import into %s is under way: waiting for it to end.", home())
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _shelf(name: ModelName, *, untrained: bool) -> Path:
    return Path(BentoMLContainer.model_store_dir.get()) / store_name(name, untrained=untrained)


def _read(model: bentoml.Model, *, untrained: bool, whole: bool) -> StoredModel:
    metadata = cast("Mapping[str, Any]", model.info.metadata)
    card = ModelCard.from_metadata(metadata["card"])
    if card.untrained is not untrained:
        raise ValueError(f"its card says untrained={card.untrained}")
    folder = Path(model.path)
    # A copy that was cut short (power, SIGKILL) leaves a file of the wrong length behind a readable model.yaml. In an
    # image nothing was cut short, and a CPU's has what OpenVINO loads alone (deploy/slim.Dockerfile).
    needed = [GRAPH, *([INT8, _INT8_WEIGHTS] if card.int8 else [])]
    sizes = metadata["files"] if whole else {name: metadata["files"][name] for name in needed}
    for path, size in sizes.items():
        if not (folder / path).is_file() or (folder / path).stat().st_size != size:
            raise ValueError(f"{path} is missing or not {size} bytes long")
    return StoredModel(tag=str(model.tag), folder=folder, card=card)
