"""BentoML's model store: finds, verifies, saves and selects the versions of a model."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
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
_CALIBRATED = "-int8-"  # in a version, between the converted version and the calibration's digest
WEIGHTS = "weights"


class StoreError(RuntimeError):
    """A stored model cannot be used. The text names the model and the command that repairs it."""


@dataclass(frozen=True)
class StoredModel:
    """One version of a model in the BentoML store, ready for an engine to load.

    sizes, checksums: bytes and sha256 of the files by their paths in `folder`. What an earlier version of the import
    step stored has no checksums.
    """

    tag: str
    folder: Path
    card: ModelCard
    sizes: Mapping[str, int] = field(default_factory=dict)
    checksums: Mapping[str, str] = field(default_factory=dict)

    @property
    def graph(self) -> Path:
        """The ONNX graph with its weights. It takes uint8 NHWC RGB in batches of any size."""
        return self.folder / GRAPH

    @property
    def program(self) -> Path:
        """The same graph as a `torch.export` program."""
        return self.folder / PROGRAM

    @property
    def int8_graph(self) -> Path:
        """The int8 graph as OpenVINO IR, with the same input and outputs. It exists if the card has `int8`."""
        return self.folder / INT8

    @property
    def int8_weights(self) -> Path:
        """The weights of the int8 graph."""
        return self.folder / _INT8_WEIGHTS

    @property
    def version(self) -> str:
        return self.tag.rpartition(":")[2]

    @property
    def converted_version(self) -> str:
        """The version before calibration; the version itself if it is not calibrated."""
        return self.version.partition(_CALIBRATED)[0]

    @property
    def weights_folder(self) -> Path:
        """The original weights, for exporters that start from them (TensorRT). They may hold pickles."""
        return self.folder / WEIGHTS

    @property
    def checkpoint(self) -> Path:
        """The part of the original weights that the official library loads: a file or a folder."""
        return CATALOGUE[self.card.name].loaded_path(self.weights_folder)

    @property
    def label_for_health(self) -> str:
        """`yolov8n-pose@<first 12 hex digits of the sha256>`, or `untrained` for a stand-in."""
        return "untrained" if self.card.untrained else f"{self.card.weights}@{self.card.sha256[:12]}"


def store_name(name: ModelName, *, untrained: bool = False) -> str:
    """Return the name in the BentoML store. Stand-ins have a separate name, so that none is loaded by accident."""
    return f"{name}-untrained" if untrained else name


def find(name: ModelName, *, untrained: bool = False) -> StoredModel | None:
    """Return the latest version of a model, or None if there is none.

    Raises StoreError if the entry is unreadable or incomplete.
    """
    return find_version(name, "latest", untrained=untrained)


def require(name: ModelName) -> StoredModel:
    """Return the latest version of a model. Raises LookupError if there is none, StoreError as `find` does."""
    model = find(name)
    if model is None:
        raise LookupError(f"{name} is not in the model store; {remedy(name)}")
    return model


def remedy(name: ModelName) -> str:
    """Return how to get a model into the store. Importing needs torch, which the CPU image does not have."""
    if find_spec("torch") is None:
        return "build the image again, with AI_MODELS_PATH naming a folder that has them"
    return f"run: python -m models.import_models {name}"


def find_version(
    name: ModelName, version: str, *, untrained: bool = False, packed: Path | None = None
) -> StoredModel | None:
    """Return one version of a model, or None if it is not in the store. Raises StoreError as `find` does.

    packed: the folder of a store inside a bento, as `bentoml containerize` makes it, to use in place of BentoML's.
    """
    tag = f"{store_name(name, untrained=untrained)}:{version}"
    shelf = _shelf(name, untrained=untrained) if packed is None else packed / store_name(name, untrained=untrained)
    if version != "latest" and not (shelf / version).is_dir():
        return None  # BentoML would accept the beginning of a version for the whole
    try:
        store = BentoMLContainer.model_store.get() if packed is None else ModelStore(packed)
        return _read(store.get(tag), untrained=untrained, whole=packed is None)
    except NotFound:
        return None
    except (BentoMLException, yaml.YAMLError, OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise _unusable(tag, name, error) from error


def calibrated_version(stored: StoredModel, digest: str) -> str:
    """Return the version of a model with an int8 graph. digest: identifies the calibration."""
    return f"{stored.converted_version}{_CALIBRATED}{digest}"


def verify(stored: StoredModel, *files: Path) -> None:
    """Read these files of a model, and raise StoreError unless they are those that were imported."""
    for file in files:
        name = file.relative_to(stored.folder).as_posix()
        try:
            _check_size(file, name, stored.sizes.get(name))
            expected = stored.checksums.get(name)
            if expected is not None and (found := sha256_of(file)) != expected:
                raise ValueError(f"{name} is not the file that was imported: sha256 {found} instead of {expected}")
        except (OSError, ValueError) as error:
            raise _unusable(stored.tag, stored.card.name, error) from error


def save(card: ModelCard, version: str, folder: Path) -> StoredModel:
    """Move the contents of `folder` into the store as a version of the card's model, and select it for `find`.

    folder: in that of `exclusive`, on the store's file system. The new version appears whole or not at all, even if the
    process is killed. An entry of the same version is replaced. If this raises, the store is as it was before.
    """
    shelf = _shelf(card.name, untrained=card.untrained)
    entry = shelf / version
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    metadata = {
        "card": card.to_metadata(),
        "files": {name: path.stat().st_size for name, path in files.items()},
        "checksums": {name: sha256_of(path) for name, path in files.items()},
    }
    with tempfile.TemporaryDirectory(prefix="saving-", dir=folder.parent) as aside:
        made, replaced = Path(aside, "models", shelf.name, version), Path(aside, "replaced")
        made.parents[1].mkdir()
        own_store = ModelStore(made.parents[1])
        with bentoml.models.create(f"{shelf.name}:{version}", metadata=metadata, _model_store=own_store):
            pass
        shutil.copytree(folder, made, dirs_exist_ok=True, copy_function=shutil.move)
        shelf.mkdir(exist_ok=True)
        try:
            if entry.exists():
                shutil.move(entry, replaced)
            shutil.move(made, entry)
            return select(card.name, version, untrained=card.untrained)
        except BaseException:
            shutil.rmtree(entry, ignore_errors=True)
            if replaced.exists():
                shutil.move(replaced, entry)
            if not any(shelf.iterdir()):
                shelf.rmdir()
            raise


def versions(name: ModelName) -> list[str]:
    """Return the versions of a model in the store, readable or not, the newest first."""
    shelf = _shelf(name, untrained=False)
    folders = [path for path in shelf.iterdir() if path.is_dir()] if shelf.is_dir() else []
    return [path.name for path in sorted(folders, key=lambda path: path.stat().st_mtime, reverse=True)]


def select(name: ModelName, version: str, *, untrained: bool = False) -> StoredModel:
    """Make a stored version the `latest`, which `find` returns. Raises StoreError if it is absent or unusable."""
    stored = find_version(name, version, untrained=untrained)
    if stored is None:
        raise StoreError(f"{store_name(name, untrained=untrained)}:{version} is not in the BentoML model store")
    latest = _shelf(name, untrained=untrained) / "latest"
    if not latest.is_file() or latest.read_text() != version:
        new = latest.with_name("latest.new")
        new.write_text(version)
        new.replace(latest)  # atomic, as a server may be reading it
    return stored


def home() -> Path:
    """Return BENTOML_HOME as BentoML resolves it. It is writable wherever models can be stored."""
    return Path(BentoMLContainer.bentoml_home.get())


def cache_folder(engine: str, stored: StoredModel) -> Path | None:
    """Return an engine's cache folder for a model, below BENTOML_HOME, and delete those of its other versions.

    Return None if the folder can't be made or written. Only the speed of the next start depends on it.
    """
    shelf = home() / "cache" / engine / stored.tag.partition(":")[0]
    folder = shelf / stored.version
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for other in shelf.iterdir():
            if other != folder:
                shutil.rmtree(other)
    except OSError as error:
        logger.warning("%s caches nothing of %s, so the next start is slower: %s", engine, stored.tag, error)
        return None
    if os.access(folder, os.W_OK):
        return folder
    logger.warning("%s caches nothing of %s, so the next start is slower: %s is read-only", engine, stored.tag, folder)
    return None


@contextmanager
def borrowed_home() -> Iterator[Path]:
    """Make a temporary BENTOML_HOME for another process, with links to this one's models and caches only."""
    (home() / "cache").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for name in ("models", "cache"):
            (Path(folder) / name).symlink_to(home() / name)
        yield Path(folder)


@contextmanager
def exclusive() -> Iterator[Path]:
    """Wait for any other import into this store to end, and keep others out while the block runs.

    Return an empty folder on the store's file system, for files under way. Nothing in it outlives the block; what an
    import that was killed left there is deleted.
    """
    with (home() / "import.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.info("Another import into %s is running. This one waits for it to end.", home())
            fcntl.flock(lock, fcntl.LOCK_EX)
        scratch = home() / "importing"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        try:
            yield scratch
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def sha256_of(file: Path) -> str:
    """Return the sha256 of a file as 64 hex digits."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _shelf(name: ModelName, *, untrained: bool) -> Path:
    return Path(BentoMLContainer.model_store_dir.get()) / store_name(name, untrained=untrained)


def _read(model: bentoml.Model, *, untrained: bool, whole: bool) -> StoredModel:
    metadata = cast("Mapping[str, Any]", model.info.metadata)
    card = ModelCard.from_metadata(metadata["card"])
    if card.untrained is not untrained:
        raise ValueError(f"its card says untrained={card.untrained}")
    folder = Path(model.path)
    # An interrupted copy (power, SIGKILL) leaves a file of the wrong length beside a readable model.yaml. A packed
    # store is never interrupted, and the CPU image holds only the files that OpenVINO loads (Dockerfile).
    needed = [GRAPH, *([INT8, _INT8_WEIGHTS] if card.int8 else [])]
    sizes = metadata["files"]
    for name in sizes if whole else needed:
        _check_size(folder / name, name, sizes[name])
    return StoredModel(str(model.tag), folder, card, sizes, metadata.get("checksums", {}))


def _check_size(file: Path, name: str, size: int | None) -> None:
    if not file.is_file() or file.stat().st_size != size:
        raise ValueError(f"{name} is missing or not {size} bytes long")


def _unusable(tag: str, name: ModelName, error: Exception) -> StoreError:
    remedy = f"delete it with `bentoml models delete {tag}` and run `python -m models.import_models {name}`"
    return StoreError(f"{tag} in the BentoML model store cannot be used ({error}): {remedy}")
