"""Runs the import step in a process of its own before the service starts."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Final

from models.catalogue import ModelName

logger = logging.getLogger("bentoml.enrichment.import")  # BentoML gives handlers to its own namespace only

_ROOT: Final = Path(__file__).parents[1]


def import_at_start(names: Sequence[ModelName]) -> None:
    """Import these models before serving. Models that the store has already take little time.

    The import step runs in a process of its own, so that torch's memory is freed with it. A model that can't be
    imported does not stop the start. A SIGTERM or SIGINT ends the import and this program.
    """
    if not names:
        return
    logger.info("importing %s before serving", ", ".join(names))
    received: list[int] = []
    importer: subprocess.Popen[bytes] | None = None

    def stop(signum: int, _: FrameType | None) -> None:
        received.append(signum)
        if importer is not None:
            with contextlib.suppress(ProcessLookupError):  # the import has just ended
                os.killpg(importer.pid, signal.SIGTERM)  # the whole group, to end its worker processes, too

    former = {signum: signal.signal(signum, stop) for signum in (signal.SIGTERM, signal.SIGINT)}
    command = [sys.executable, "-m", "models.import_models", *names]
    importer = subprocess.Popen(command, cwd=_ROOT, start_new_session=True)
    if received:
        stop(received[0], None)
    code = importer.wait()
    for signum, handler in former.items():
        signal.signal(signum, handler)
    if received:
        sys.exit(128 + received[0])
    if code != 0:
        logger.warning("some models could not be imported, see above; the others are served, and /health lists them")
