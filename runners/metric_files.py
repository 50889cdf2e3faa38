"""Prometheus' metric files: those of ended processes are merged, and deleted ones of living processes come back."""

from __future__ import annotations

import logging
import mmap
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Final
from weakref import WeakSet

import prometheus_client.values
import psutil
from prometheus_client.mmap_dict import MmapedDict

# prometheus_client names a file `<type>_<process>.db`, and a gauge's `gauge_<mode>_<process>.db`.
_ENDED: Final = "ended"  # in place of a process
_LOOK_S: Final = 1.0  # between two looks whether a file is still there

logger = logging.getLogger("bentoml.enrichment.metrics")  # BentoML gives handlers to its own namespace only


class LastingDict(MmapedDict):
    """A process's metric file. It comes back with all its values after it or its folder was deleted.

    A cleaner of temporary files may delete the folder. Without it each new label was an error, and so a 500. A write
    looks after all files of the process, and each heartbeat writes.
    """

    _open: ClassVar[WeakSet[LastingDict]] = WeakSet()
    _looked: ClassVar[float] = 0.0

    def __init__(self, filename: str, read_mode: bool = False) -> None:
        Path(filename).parent.mkdir(parents=True, exist_ok=True)
        super().__init__(filename, read_mode)  # type: ignore[no-untyped-call]
        self._open.add(self)

    def write_value(self, key: str, value: float, timestamp: float) -> None:
        """See MmapedDict. The caller holds prometheus_client's lock."""
        if (now := time.monotonic()) - LastingDict._looked > _LOOK_S:
            LastingDict._looked = now
            for each in self._open:
                if each._f is not None and not Path(each._fname).exists():
                    each._restore()
        super().write_value(key, value, timestamp)  # type: ignore[no-untyped-call]

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
            logger.warning("the metric file %s was deleted and can't be made anew: %s", place, error)
            return
        self._m.close()
        self._f.close()
        self._f, self._m = file, memory
        logger.warning("the metric file %s was deleted; it was made anew with all its values", place)


def keep_files() -> None:
    """Make this process's metric files lasting. Call it before any metric is made: that opens its file."""
    prometheus_client.values.MmapedDict = LastingDict  # type: ignore[attr-defined]


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
