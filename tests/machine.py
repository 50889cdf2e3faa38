"""Machines with faults that only started processes see: other disks, a clock that jumps, names that hang."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Final

import pytest

_CLOCK: Final = """
import os, time

_real, _real_ns = time.time, time.time_ns

def _ahead():
    with open({file!r}) as file:
        return float(file.read() or 0)

time.time = lambda: _real() + _ahead()
time.time_ns = lambda: _real_ns() + int(_ahead() * 10**9)
"""

_NAMES: Final = """
import ipaddress, socket, time

_real = socket.getaddrinfo

def _hanging(host, *arguments, **options):
    try:
        host is None or ipaddress.ip_address(host)
    except ValueError:
        time.sleep(600)
    return _real(host, *arguments, **options)

socket.getaddrinfo = _hanging
"""


def within(*commands: str) -> list[str]:
    """The beginning of a command that runs the rest of it in a namespace of its own, after these shell commands."""
    if not _can_mount():
        pytest.skip("this machine lets nobody mount anything")
    return _unshare(commands)


@cache
def _can_mount() -> bool:
    trial = [*_unshare(["mount -t tmpfs tmpfs /tmp"]), "true"]
    return subprocess.run(trial, check=False, capture_output=True).returncode == 0


def _unshare(commands: Sequence[str]) -> list[str]:
    script = " && ".join([*commands, 'exec "$@"'])
    return ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"]


def read_only(folder: Path) -> str:
    return f"mount --bind {folder} {folder} && mount -o remount,bind,ro {folder}"


def small(folder: Path, kilobytes: int) -> str:
    """A disk of its own in the folder's place."""
    return f"mount -t tmpfs -o size={kilobytes}k tmpfs {folder}"


def full(folder: Path) -> str:
    """A disk in the folder's place that has 1 MB, all of it taken."""
    return f"{small(folder, 1024)} && (cat /dev/zero > {folder}/filler 2> /dev/null; true)"


NO_SHARED_MEMORY: Final = "mount -t tmpfs -o ro tmpfs /dev/shm"


class Clock:
    """The clock of started processes, as Python tells it. The monotonic one is untouched."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "ahead"
        self.environment = _patched(folder, _CLOCK.format(file=str(self._file)))
        self.jump(0)

    def jump(self, seconds: float) -> None:
        """Put the clock ahead of the machine's."""
        fresh = self._file.with_suffix(".new")
        fresh.write_text(str(seconds))
        fresh.replace(self._file)


def names_that_hang(folder: Path) -> dict[str, str]:
    """The environment of processes in which looking up a name takes ten minutes."""
    return _patched(folder, _NAMES)


def _patched(folder: Path, code: str) -> dict[str, str]:
    place = folder / "python"
    place.mkdir()
    (place / "sitecustomize.py").write_text(code)
    return {"PYTHONPATH": str(place)}
