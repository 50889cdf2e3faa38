"""Runs schemathesis against a service: requests made from its OpenAPI document, answers held against it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.serving.server import ROOT

_CONFIGURATION: Final = str(ROOT / "tests" / "clients" / "schemathesis.toml")


def run(url: str, folder: Path, seed: int) -> int:
    """Return the number of requests, all of which passed. folder: for its files. Raises AssertionError with the report.

    seed: decides which requests it makes.
    """
    command = ["schemathesis.cli", "--config-file", _CONFIGURATION, "run", f"{url}/openapi.json", "--seed", str(seed)]
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    passed = re.search(r"(\d+) generated, \1 passed", done.stdout)
    if done.returncode or passed is None:
        raise AssertionError(done.stdout[-20_000:] + done.stderr)
    return int(passed[1])
