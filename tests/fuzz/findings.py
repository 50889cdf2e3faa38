"""What a fuzzer found: a case that ended as none may."""

from __future__ import annotations

import re
from typing import Final

#: What only a trace or a path of this machine has. No answer may show it.
LEAK: Final = re.compile(r"Traceback|0x[0-9a-f]{6}|site-packages|\.py\b|/(work|tmp|home|usr|secret)\b")


class Finding(AssertionError):
    """The text says what happened, and what may happen."""
