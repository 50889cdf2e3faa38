"""TensorRT engines on disk: found again only by whoever would build the very same one."""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from models.catalogue import ModelName

logger = logging.getLogger("bentoml.enrichment.runner")  # BentoML gives handlers to its own namespace only

_SCRATCH: Final = "building-"


@dataclass(frozen=True)
class EngineInputs:
    """All that an engine depends on. precision: `f16` or `f32`; max_batch, max_side: of the optimization profile."""

    model: ModelName
    weights_sha256: str
    tensorrt: str
    gpu: str
    compute_capability: str
    driver: str
    precision: str
    max_batch: int
    max_side: int

    @property
    def name(self) -> str:
        """`pose_estimator-<16 hex digits of everything above>`."""
        text = json.dumps(asdict(self), sort_keys=True)
        return f"{self.model}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


class EngineCache:
    """A folder of `<name>.engine` files, each with what it was made of and its checksum beside it in `<name>.json`.

    A build that failed leaves `<name>.failed.json` in place of both. Files appear at once or not at all, the engine
    last. Every method may raise OSError: the folder is a volume, and may be missing, read-only or full.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, inputs: EngineInputs) -> Path | None:
        """The engine for these inputs, if it is there unharmed. A harmed one is deleted.

        So are the engines of the same model on the same GPU which other weights, drivers or versions have outdated.
        """
        self._delete_outdated(inputs)
        engine, description = self._engine(inputs), _read(self._description(inputs))
        if not engine.is_file():
            return None
        if description is not None and description.get("sha256") == _sha256(engine):
            return engine
        self.delete(inputs, "it is damaged")
        return None

    def delete(self, inputs: EngineInputs, reason: str) -> None:
        """Delete the engine for these inputs, so that it will be built anew."""
        logger.warning("TensorRT cache: %s is deleted: %s", self._engine(inputs), reason)
        self._description(inputs).unlink(missing_ok=True)
        self._engine(inputs).unlink(missing_ok=True)

    def failure(self, inputs: EngineInputs) -> str | None:
        """Why and when a build from these inputs failed, and what to delete to have it tried again."""
        note = self._failure(inputs)
        content = _read(note)
        return f"{content['reason']} ({content['at']}; delete {note} to try again)" if content else None

    def remember_failure(self, inputs: EngineInputs, reason: str) -> None:
        """Keep a failed build from being tried at each start."""
        self._write(self._failure(inputs), {"reason": reason, "at": time.strftime("%Y-%m-%d %H:%M"), **asdict(inputs)})

    def store(self, inputs: EngineInputs, built: Path) -> Path:
        """Take over a built engine, which lies in a `scratch` folder; returns its place here."""
        description = {"sha256": _sha256(built), **asdict(inputs)}
        with built.open("rb") as file:
            os.fsync(file.fileno())
        self._write(self._description(inputs), description)
        self._failure(inputs).unlink(missing_ok=True)
        return built.replace(self._engine(inputs))

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keep every other process that shares the folder from building; waits until it is free."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "build.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder on the same file system to build in. Only inside `exclusive`: it removes those of dead builds."""
        for left in self.folder.glob(f"{_SCRATCH}*"):
            shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=self.folder) as folder:
            yield Path(folder)

    def _engine(self, inputs: EngineInputs) -> Path:
        return self.folder / f"{inputs.name}.engine"

    def _description(self, inputs: EngineInputs) -> Path:
        return self.folder / f"{inputs.name}.json"

    def _failure(self, inputs: EngineInputs) -> Path:
        return self.folder / f"{inputs.name}.failed.json"

    def _delete_outdated(self, inputs: EngineInputs) -> None:
        for path in [*self.folder.glob(f"{inputs.model}-*.engine"), *self.folder.glob(f"{inputs.model}-*.failed.json")]:
            name = path.name.split(".")[0]
            made_of = _read(path.with_suffix(".json") if path.suffix == ".engine" else path) or {}
            if name == inputs.name or made_of.get("gpu", inputs.gpu) != inputs.gpu:
                continue  # the one looked for, or another card's, which shares the volume
            changed = [key for key, value in asdict(inputs).items() if made_of.get(key) != value]
            logger.warning("TensorRT cache: %s is outdated, it was made with another %s", path, ", ".join(changed))
            try:
                path.with_suffix(".json").unlink(missing_ok=True)
                path.unlink(missing_ok=True)
            except OSError as error:  # read-only: the engine that is looked for may be there all the same
                logger.warning("TensorRT cache: %s can't be deleted: %s", path, error.strerror)

    def _write(self, path: Path, content: dict[str, Any]) -> None:
        new = path.with_suffix(".new")
        new.write_text(json.dumps(content, indent=1), encoding="utf-8")
        new.replace(path)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
