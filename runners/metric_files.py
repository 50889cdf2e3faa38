"""Prometheus' metric files: a folder for each server; those of ended processes are merged, deleted ones come back."""

from __future__ import annotations

import atexit
import fcntl
import logging
import mmap
import os
import shutil
import struct
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import ClassVar, Final
from weakref import WeakSet

import prometheus_client.values
import psutil
from prometheus_client.mmap_dict import MmapedDict

# prometheus_client names a file `<type>_<process>.db`, and a gauge's `gauge_<mode>_<process>.db`.
_ENDED: Final = "ended"  # in place of a process
_LOOK_S: Final = 1.0  # least time between two checks whether the files still exist
# Sizes in prometheus_client's files: a new file, its header, and an upper bound of an entry without its key.
_FIRST_BYTES: Final = 1 << 16
_HEAD_BYTES: Final = 8
_ENTRY_BYTES: Final = 40

logger = logging.getLogger("bentoml.enrichment.metrics")  # BentoML gives handlers to its own namespace only


class LastingDict(MmapedDict):
    """A process's metric file. If the file or its folder is deleted, it is written again with all its values.

    A cleaner of temporary files may delete the folder. Then each new label would raise an error, and its request would
    get a 500. A write checks all files of the process, at most once a second. Each heartbeat writes.

    Disk space is reserved before a write: a write to mapped memory without disk space ends the process. Without space,
    the values are kept in memory alone, and scrapes don't show them.
    """

    _open: ClassVar[WeakSet[LastingDict]] = WeakSet()
    _looked: ClassVar[float] = 0.0

    def __init__(self, filename: str, read_mode: bool = False) -> None:
        self._in_memory = False
        try:
            _make(Path(filename))
            super().__init__(filename, read_mode)  # type: ignore[no-untyped-call]
        except OSError as error:
            self._begin_in_memory(filename, error)
        self._open.add(self)

    def write_value(self, key: str, value: float, timestamp: float) -> None:
        """See MmapedDict. The caller holds prometheus_client's lock."""
        if (now := time.monotonic()) - LastingDict._looked > _LOOK_S:
            LastingDict._looked = now
            for each in self._open:
                if each._f is not None and (each._in_memory or not Path(each._fname).exists()):
                    each._restore()
        super().write_value(key, value, timestamp)  # type: ignore[no-untyped-call]

    def _init_value(self, key: str) -> None:
        while self._used + len(key.encode()) + _ENTRY_BYTES > self._capacity:
            self._grow(2 * self._capacity)
        super()._init_value(key)  # type: ignore[no-untyped-call]

    def _grow(self, capacity: int) -> None:
        try:
            if self._in_memory:
                raise OSError("there was no room before")
            _reserve(self._f.fileno(), capacity)
            memory = mmap.mmap(self._f.fileno(), capacity)
        except OSError as error:
            self._say_in_memory(error)
            memory = mmap.mmap(-1, capacity)
            memory[: self._capacity] = self._m[:]
        self._m, self._capacity = memory, capacity

    def _begin_in_memory(self, filename: str, error: OSError) -> None:
        self._fname = filename
        self._f = Path(os.devnull).open("rb")  # noqa: SIM115 - open until close()
        self._capacity, self._used, self._positions = _FIRST_BYTES, _HEAD_BYTES, {}
        self._m = mmap.mmap(-1, _FIRST_BYTES)
        struct.pack_into("i", self._m, 0, _HEAD_BYTES)
        self._say_in_memory(error)

    def _say_in_memory(self, error: OSError) -> None:
        if not self._in_memory:
            logger.error("the metric file %s can't be written; its values are kept in memory: %s", self._fname, error)
        self._in_memory = True

    def _restore(self) -> None:
        place = Path(self._fname)
        fresh = place.with_suffix(".fresh")
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            fresh.write_bytes(self._m[:])
            file = fresh.open("r+b")
            memory = mmap.mmap(file.fileno(), self._capacity)
            fresh.replace(place)
        except OSError as error:
            self._say_in_memory(error)
            with suppress(OSError):
                fresh.unlink(missing_ok=True)
            return
        self._m.close()
        self._f.close()
        self._f, self._m, self._in_memory = file, memory, False
        logger.warning("the metric file %s was made anew with all its values", place)


def _make(place: Path) -> None:
    """Make a metric file, unless it is there, with its first room on the disk. A scrape can't read one without."""
    if place.exists():
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    fresh = place.with_suffix(".fresh")
    try:
        with fresh.open("wb") as file:
            _reserve(file.fileno(), _FIRST_BYTES)
        fresh.replace(place)
    finally:
        with suppress(OSError):
            fresh.unlink(missing_ok=True)


def _reserve(descriptor: int, size: int) -> None:
    """Make a file at least `size` bytes long, with room on the disk where the system can promise it."""
    if sys.platform == "linux":
        os.posix_fallocate(descriptor, 0, size)
    elif os.fstat(descriptor).st_size < size:
        os.ftruncate(descriptor, size)


def keep_files() -> None:
    """Make this process's metric files lasting. Call it before any metric is made: that opens its file."""
    prometheus_client.values.MmapedDict = LastingDict  # type: ignore[attr-defined]


def own_folder(parent: Path) -> str:
    """Make a folder below `parent` for the metric files of this server, and delete those of servers that have died.

    Two servers may share BENTOML_HOME. Each server locks its folder as long as it lives, so an unlocked folder belongs
    to a dead server. Process numbers could not tell this in containers. If `parent` is read-only or full, the folder is
    a temporary one.
    """
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with _locked(parent):
            for left in parent.iterdir():
                if left.is_dir() and not _is_locked(left):
                    shutil.rmtree(left, ignore_errors=True)
            folder = _hold(tempfile.mkdtemp(prefix="server-", dir=parent))
    except OSError as error:
        folder = _hold(tempfile.mkdtemp(prefix="bentoml-metrics-"))
        logger.warning("%s can't hold the metric files (%s): they are in %s", parent, error.strerror, folder)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _is_locked(folder: Path) -> bool:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _hold(folder: str) -> str:
    """Lock a folder until this process ends: its descriptor is never closed."""
    fcntl.flock(os.open(folder, os.O_RDONLY), fcntl.LOCK_EX)
    return folder


def fold(folder: Path) -> None:
    """Delete the gauges of ended processes, and merge their counters and histograms into one file per type.

    prometheus_client keeps all files, so each restart of a process would add series and files. Merging keeps the
    counts. Nobody may read the folder meanwhile: some counts are there twice or not at all.
    """
    ended: dict[str, list[Path]] = defaultdict(list)
    for file in folder.glob("*.db"):
        kind, _, rest = file.stem.partition("_")
        process = rest.rpartition("_")[2]
        if not process.isdecimal() or psutil.pid_exists(int(process)):
            continue
        if kind == "gauge":
            file.unlink(missing_ok=True)
        else:
            ended[kind].append(file)
    for kind, files in ended.items():
        _merge(files, folder / f"{kind}_{_ENDED}.db")


def _merge(files: Sequence[Path], into: Path) -> None:
    # Summed by key, as prometheus_client does: a histogram's file has a separate count for each bucket.
    values: dict[str, float] = defaultdict(float)
    for file in [*files, *([into] if into.exists() else [])]:
        for key, value, _, _ in MmapedDict.read_all_values_from_file(file):  # type: ignore[no-untyped-call]
            values[key] += value
    fresh = into.with_suffix(".fresh")
    fresh.unlink(missing_ok=True)  # left by a process that was killed during a merge
    merged = MmapedDict(fresh)  # type: ignore[no-untyped-call]
    for key, value in values.items():
        merged.write_value(key, value, 0.0)  # type: ignore[no-untyped-call]
    merged.close()  # type: ignore[no-untyped-call]
    fresh.replace(into)
    for file in files:
        file.unlink()
