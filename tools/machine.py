"""This machine as the service sees it: processor, usable cores, memory, and the limits of its control group."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

_MB: Final = 1e6
# The kernel's names of the instructions that OpenVINO's speed depends on → their usual names.
_INSTRUCTIONS: Final = {
    "avx2": "AVX2",
    "avx_vnni": "AVX-VNNI",
    "avx512f": "AVX-512",
    "avx512_vnni": "AVX-512 VNNI",
    "avx512_bf16": "AVX-512 BF16",
    "amx_bf16": "AMX BF16",
    "amx_int8": "AMX INT8",
}


@dataclass(frozen=True)
class Machine:
    """processor: its name. cores: that this process may use. all_cores: of the machine. quota: processor time in cores,
    as by `docker --cpus`; None = no limit. memory_mb: of the machine, in 10⁶ bytes. limit_mb: as by `docker --memory`;
    None = no limit.
    """

    processor: str
    instructions: tuple[str, ...]
    cores: int
    all_cores: int
    quota: float | None
    memory_mb: float
    limit_mb: float | None

    @property
    def room_mb(self) -> float:
        """The memory that all processes here may use together, in MB."""
        return self.memory_mb if self.limit_mb is None else min(self.memory_mb, self.limit_mb)


def look(root: Path = Path("/")) -> Machine:
    """Read the machine's properties. root: of the file system that has proc and sys."""
    facts = _processor(root / "proc/cpuinfo")
    groups = _groups(root)
    flags = facts.get("flags", "").split()
    quotas = [quota for group in groups if (quota := _quota(group / "cpu.max")) is not None]
    limits = [limit for group in groups if (limit := _limit_mb(group / "memory.max")) is not None]
    return Machine(
        processor=facts.get("model name", platform.machine()),
        instructions=tuple(name for flag, name in _INSTRUCTIONS.items() if flag in flags),
        cores=len(os.sched_getaffinity(0)),
        all_cores=os.cpu_count() or 1,
        quota=min(quotas, default=None),
        memory_mb=psutil.virtual_memory().total / _MB,
        limit_mb=min(limits, default=None),
    )


def _processor(cpuinfo: Path) -> dict[str, str]:
    """The facts about the first core."""
    first, _, _ = cpuinfo.read_text(encoding="utf-8").partition("\n\n")
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _groups(root: Path) -> list[Path]:
    """The folders of this process's control group (version 2) and of those around it. Each may have a limit."""
    lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    mount = root / "sys/fs/cgroup"
    own = next((line.removeprefix("0::") for line in lines if line.startswith("0::")), "/")
    group = mount / own.strip("/")
    return [group, *(parent for parent in group.parents if parent.is_relative_to(mount))]


def _quota(file: Path) -> float | None:
    """`150000 100000` (µs of each period) → 1.5 cores."""
    words = file.read_text(encoding="utf-8").split() if file.is_file() else ["max"]
    return None if words[0] == "max" else int(words[0]) / int(words[1])


def _limit_mb(file: Path) -> float | None:
    word = file.read_text(encoding="utf-8").strip() if file.is_file() else "max"
    return None if word == "max" else int(word) / _MB
