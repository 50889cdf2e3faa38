"""The import step before anything is served, in a process of its own."""

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
    """Bring these models' weights into the store before anything is served; quick where they are there already.

    The import step runs in a process of its own, which takes torch with it when it ends. A model that it can't have is
    no reason not to serve the others. A SIGTERM or SIGINT meanwhile ends the import and this program.
    """
    if not names:
        return
    logger.info("importing %s before serving", ", ".join(names))
    received: list[int] = []
    importer: subprocess.Popen[bytes] | None = None

    def stop(signum: int, _: FrameType | None) -> None:
        received.append(signum)
        if importer is not None:
            with contextlib.suppress(ProcessLookupError):  # it has just ended by itself
                os.killpg(importer.pid, signal.SIGTERM)  # the processes that it converts in, too

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
        logger.warning("not every model could be imported (above): the others are served, /health says which")
