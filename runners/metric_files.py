"""The files through which the server's processes share their Prometheus metrics, when a process has ended."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import psutil
from prometheus_client.mmap_dict import MmapedDict

# prometheus_client names a file `<type>_<process>.db`, and a gauge's `gauge_<mode>_<process>.db`.
_ENDED: Final = "ended"  # in place of a process


def fold(folder: Path) -> None:
    """Drop the gauges of processes that have ended, and merge their counters and histograms into one file of each type.

    prometheus_client keeps all of them: each restart of a process added a series to some gauges, and files to read.
    What was counted stays counted. Nobody may read the folder meanwhile: some counts are in it twice or not at all.
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
    # By key, as prometheus_client adds up processes: a histogram's file holds the count of each bucket alone.
    values: dict[str, float] = defaultdict(float)
    for file in [*files, *([into] if into.exists() else [])]:
        for key, value, _, _ in MmapedDict.read_all_values_from_file(file):  # type: ignore[no-untyped-call]
            values[key] += value
    fresh = into.with_suffix(".fresh")
    fresh.unlink(missing_ok=True)  # of a process that was killed in the middle of this
    merged = MmapedDict(fresh)  # type: ignore[no-untyped-call]
    for key, value in values.items():
        merged.write_value(key, value, 0.0)  # type: ignore[no-untyped-call]
    merged.close()  # type: ignore[no-untyped-call]
    fresh.replace(into)
    for file in files:
        file.unlink()
