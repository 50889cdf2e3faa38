"""Cleans a library's messages for the error texts of the import step."""

from __future__ import annotations

import re
from typing import Final

_LENGTH: Final = 300  # characters; some libraries list every parameter
_TERMINAL: Final = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_SENTENCE: Final = re.compile(r"(?<=[.!?])\s+")
# Advice to switch a check off is for programmers. It is no remedy for the user, who may have a malicious file.
_ADVICE: Final = re.compile(
    r"weights_only|safe_globals|safe_mode|allow_pickle|trust|ignore_mismatched|strict\s*=|arbitrary code", re.IGNORECASE
)


def plain(text: str) -> str:
    """Return a message as one printable line, without advice to switch a check off; "" if nothing is left."""
    text = _TERMINAL.sub("", text)
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return " ".join(said for said in _SENTENCE.split(line) if not _ADVICE.search(said))[:_LENGTH]


def reason(error: BaseException) -> str:
    """Return an error's message, cleaned by `plain`, or the name of its class if it has none."""
    return plain(str(error)) or type(error).__name__
