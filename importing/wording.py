"""What a library says, made fit for an error text of the import step."""

from __future__ import annotations

import re
from typing import Final

_LENGTH: Final = 300  # characters: some libraries list every parameter
_TERMINAL: Final = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_SENTENCE: Final = re.compile(r"(?<=[.!?])\s+")
# Ways to switch a check off. They are for whoever writes the program, and no remedy for whoever has the file.
_ADVICE: Final = re.compile(
    r"weights_only|safe_globals|safe_mode|allow_pickle|trust|ignore_mismatched|strict\s*=|arbitrary code", re.IGNORECASE
)


def plain(text: str) -> str:
    """One line of printable characters, without sentences that advise to switch a check off; "" where none is left."""
    text = _TERMINAL.sub("", text)
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return " ".join(said for said in _SENTENCE.split(line) if not _ADVICE.search(said))[:_LENGTH]


def reason(error: BaseException) -> str:
    """What an error says, as `plain` has it, or its kind where it says nothing."""
    return plain(str(error)) or type(error).__name__
