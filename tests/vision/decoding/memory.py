"""What decoding takes: `python -m tests.vision.decoding.memory FILE …` prints bytes, and the bound, of each file."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from vision.decoding import Limits, open_image

_NO_LIMITS = Limits(10**9, 10**12)


def main(paths: list[str]) -> None:
    for path in paths:
        if (child := os.fork()) == 0:  # each file in a process of its own, which has decoded nothing yet
            _measure(Path(path))
            os._exit(0)
        if os.waitpid(child, 0)[1]:
            raise SystemExit(f"{path} could not be decoded")


def _measure(path: Path) -> None:
    file = open_image(path.read_bytes(), _NO_LIMITS)
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    file.decode()
    sys.stdout.write(f"{_status('VmHWM') - before} {file.peak_bytes}\n")
    sys.stdout.flush()


def _status(name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


if __name__ == "__main__":
    main(sys.argv[1:])
