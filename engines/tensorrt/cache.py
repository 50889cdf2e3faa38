"""The cache of TensorRT engines on disk: it returns an engine only for exactly the inputs it was built from."""

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

logger = logging.getLogger("bentoml.enrichment.runner")  # BentoML gives handlers to its own namespace only

_SCRATCH: Final = "building-"
_CONFIGURATION: Final = ("gpu", "compute_capability", "driver", "precision", "max_batch", "max_side")  # see find
FIRST_RETRY_S: Final = 600.0  # until the next try of a build whose failure may pass; doubled with each failure
LONGEST_RETRY_S: Final = 6 * 3600.0


@dataclass(frozen=True)
class EngineInputs:
    """Everything that an engine depends on.

    precision: `f16` or `f32`. max_batch: images. max_side: pixels. Both are of the optimization profile.
    """

    model: str
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
        """`MODEL-<16 hex digits of everything above>`."""
        text = json.dumps(asdict(self), sort_keys=True)
        return f"{self.model}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


@dataclass(frozen=True)
class BuildFailure:
    """Why a build is not tried now. again_s: seconds until the next try; None: not before a restart."""

    text: str
    again_s: float | None


class EngineCache:
    """A folder of `<name>.engine` files, each with its inputs and checksum in `<name>.json`.

    A failed build leaves `<name>.failed.json` instead. Files are written atomically, the engine last. Every method may
    raise OSError: the folder is a volume, and may be missing, read-only or full.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, inputs: EngineInputs) -> Path | None:
        """The engine for these inputs; None if there is none. A damaged engine is deleted.

        Outdated engines are deleted, too: same model and configuration (GPU, driver, precision, profile), but other
        weights or another TensorRT. Engines of other configurations stay: another process may share the folder.
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
        """Delete the engine for these inputs, so that it is built again."""
        logger.warning("TensorRT cache: deleting %s: %s", self._engine(inputs), reason)
        self._description(inputs).unlink(missing_ok=True)
        self._engine(inputs).unlink(missing_ok=True)

    def failure(self, inputs: EngineInputs, since: float) -> BuildFailure | None:
        """The failure of a build from these inputs; None if it can be tried now.

        since: seconds since the epoch. Permanent failures before that are tried again.
        """
        note = self._failure(inputs)
        content = _read(note)
        if not content:
            return None
        text = f"{content.get('reason')} ({content.get('at')}; "
        failed_at = _number(content, "failed_at")
        if failed_at > time.time():
            return None  # the clock was put back since, so nobody knows how long ago that was
        if content.get("may_pass") is True:
            again_s = failed_at + _wait_s(_number(content, "failures")) - time.time()
            again_at = time.strftime("%Y-%m-%d %H:%M", time.localtime(time.time() + again_s))
            return BuildFailure(f"{text}it is tried again at {again_at})", again_s) if again_s > 0 else None
        return BuildFailure(f"{text}restart, or delete {note}, to try again)", None) if failed_at >= since else None

    def remember_failure(self, inputs: EngineInputs, reason: str, *, may_pass: bool) -> None:
        """Note a failed build, so that it is not tried again for a while (may_pass) or until a restart."""
        note = self._failure(inputs)
        failures = _number(_read(note) or {}, "failures") + 1
        at = time.strftime("%Y-%m-%d %H:%M")
        failure = {"reason": reason, "at": at, "failed_at": time.time(), "may_pass": may_pass, "failures": failures}
        self._write(note, failure | asdict(inputs))

    def store(self, inputs: EngineInputs, built: Path) -> Path:
        """Move a built engine from a `scratch` folder into the cache. Returns its path there."""
        description = {"sha256": _sha256(built), **asdict(inputs)}
        with built.open("rb") as file:
            os.fsync(file.fileno())
        self._write(self._description(inputs), description)
        self._failure(inputs).unlink(missing_ok=True)
        return built.replace(self._engine(inputs))

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the folder's build lock, so that only one process builds. Waits until the lock is free."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "build.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A build folder on the same file system. Use it only inside `exclusive`: it removes those of dead builds."""
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
            try:
                made_of = _read(path.with_suffix(".json") if path.suffix == ".engine" else path) or {}
                changed = [key for key, value in asdict(inputs).items() if made_of.get(key) != value]
                if not changed or set(changed) & {"model", *_CONFIGURATION}:
                    continue
                path.with_suffix(".json").unlink(missing_ok=True)
                path.unlink(missing_ok=True)
                logger.warning("TensorRT cache: %s is deleted: it was built with another %s", path, ", ".join(changed))
            except OSError as error:  # a read-only cache may still hold the engine we look for
                logger.warning("TensorRT cache: %s can't be read or deleted: %s", path, error.strerror)

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


def _number(content: dict[str, Any], key: str) -> float:
    value = content.get(key)
    return float(value) if isinstance(value, int | float) else 0.0


def _wait_s(failures: float) -> float:
    return min(FIRST_RETRY_S * (1 << min(max(int(failures), 1), 16) - 1), LONGEST_RETRY_S)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
