"""Merges the Prometheus metric files of ended processes."""

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
