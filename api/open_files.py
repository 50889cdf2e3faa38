"""How many connections the process may have open."""

from __future__ import annotations

import logging
import sys

logger = logging.getLogger("bentoml.enrichment.api")  # BentoML gives handlers to its own namespace only


def allow_many_connections() -> None:
    """Raise the limit on open files to what the system allows: 1,024 are usual, and each connection is one.

    Without a free one a server can't accept, and so not answer anybody, for as long as silent connections stay.
    """
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError) as error:  # macOS allows less than it says
        logger.warning("the limit on open files stays %d: %s", soft, error)
