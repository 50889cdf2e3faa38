"""Builds a TensorRT engine: starts the export process, follows its output and ends it."""

from __future__ import annotations

import errno
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path
from typing import Final

from engines.tensorrt.cache import EngineInputs

logger = logging.getLogger("bentoml.enrichment.runner")  # BentoML gives handlers to its own namespace only

# A file, not a module, and with -P without its folder on the path: it imports nothing from this project.
EXPORT: Final = (sys.executable, "-P", str(Path(__file__).with_name("export.py")))
# ultralytics' log lines at the beginning and the end of each stage.
_STAGE: Final = re.compile(r"\b(ONNX|TensorRT):")
_ERROR: Final = re.compile(r"(\w+\.)*\w*(Error|Exception): ")
_COLOURS: Final = re.compile(r"\x1b\[[0-9;]*m")
# TensorRT reports it only in its log; the exporter's error is then just that there is no engine.
_NO_MEMORY: Final = re.compile(
    r"out.?of.?memory|alloc_failed|memoryerror|bad_alloc|cannot allocate memory|insufficient memory|enough free memory",
    re.IGNORECASE,
)
_CRASHES: Final = frozenset({-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS, -signal.SIGILL, -signal.SIGFPE})
_TAIL: Final = 15  # how many of the process's last lines are kept


class BuildFailed(RuntimeError):
    """The engine could not be built. The text is the exporter's last error.

    may_pass: a later try may succeed; the cause was time, memory or a kill, not the exporter.
    """

    def __init__(self, text: str, *, may_pass: bool) -> None:
        super().__init__(text)
        self.may_pass = may_pass


class BuildStopped(RuntimeError):
    """The build was stopped together with the service. Another try may succeed."""


class Export:
    """One export process."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()
        self._stopped = False

    def run(self, inputs: EngineInputs, checkpoint: Path, folder: Path, workspace_gib: float, timeout_s: float) -> Path:
        """Build an engine from a copy of `checkpoint` in `folder` and return its path there.

        Raises BuildFailed, also after `timeout_s`; BuildStopped after `stop`; OSError if `folder` can't be written.
        """
        copy = folder / f"{inputs.model}.pt"
        shutil.copyfile(checkpoint, copy)
        profile = ("--max-batch", str(inputs.max_batch), "--max-side", str(inputs.max_side))
        options = ("--precision", inputs.precision, "--workspace", str(workspace_gib))
        process = self._start([*EXPORT, str(copy), *profile, *options])
        too_long = threading.Event()

        def give_up() -> None:
            too_long.set()
            process.kill()

        timer = threading.Timer(timeout_s, give_up)
        timer.start()
        began = time.monotonic()
        try:
            tail = self._follow(inputs, process, began)
        finally:
            timer.cancel()
            process.kill()
            code = process.wait()
            assert process.stdin is not None
            process.stdin.close()
        if self._stopped:
            raise BuildStopped
        if too_long.is_set():
            raise BuildFailed(f"it took over {timeout_s:g} s", may_pass=True)
        if code in (-signal.SIGTERM, -signal.SIGINT):
            raise BuildStopped
        last_words = _last_words(tail)
        if code != 0 and os.strerror(errno.ENOSPC) in last_words:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
        engine = copy.with_suffix(".engine")
        if code != 0 or not engine.is_file():
            killed = code < 0 and code not in _CRASHES
            may_pass = killed or any(_NO_MEMORY.search(line) for line in tail)
            raise BuildFailed(f"exit code {code}: {last_words or 'it said nothing'}", may_pass=may_pass)
        return engine

    def stop(self) -> None:
        """End the process, or keep it from starting."""
        with self._lock:
            self._stopped = True
            if self._process is not None:
                self._process.kill()

    def _start(self, command: list[str]) -> subprocess.Popen[str]:
        with self._lock:
            if self._stopped:
                raise BuildStopped
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
            )
            return self._process

    def _follow(self, inputs: EngineInputs, process: subprocess.Popen[str], began: float) -> list[str]:
        """Log the stages; return the last lines."""
        tail: deque[str] = deque(maxlen=_TAIL)
        assert process.stdout is not None
        for line in process.stdout:
            text = _COLOURS.sub("", line).strip()
            if not text:
                continue
            tail.append(text)
            if _STAGE.search(text):
                logger.info("TensorRT build of %s, %.0f s: %s", inputs.model, time.monotonic() - began, text)
        process.wait()
        if process.returncode:
            logger.error("TensorRT build of %s, its last words:\n%s", inputs.model, "\n".join(tail))
        return list(tail)


def _last_words(tail: list[str]) -> str:
    """The last line that names an error, else the last one."""
    return ([line for line in tail if _ERROR.match(line)] or tail or [""])[-1]
