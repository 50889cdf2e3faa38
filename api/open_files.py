"""Raises the process's limit on open files, so that it accepts many connections."""

from __future__ import annotations

import logging
import sys

logger = logging.getLogger("bentoml.enrichment.api")  # BentoML gives handlers to its own namespace only


def allow_many_connections() -> None:
    """Raise the limit on open files from the usual 1,024 to the system's maximum.

    Each connection is an open file. At the limit the server accepts nobody until an idle connection closes.
    """
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError) as error:  # macOS reports a larger limit than it allows
        logger.warning(
            "the limit on open files stays %d, which bounds the open connections; it could not be raised: %s",
            soft,
            error,
        )
