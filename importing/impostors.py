"""Recognises files that failed downloads and checkouts leave under the name of a weights file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

_BEGINNING: Final = 1024  # bytes checked
_SHOWN: Final = 80  # characters quoted in the error
_LFS: Final = b"version https://git-lfs.github.com/spec/"
_WEB_PAGE: Final = re.compile(rb"\s*<(?:!doctype html|html|head|body|\?xml|error)\b", re.IGNORECASE)
_BOM: Final = b"\xef\xbb\xbf"


def impostor(file: Path) -> str | None:
    """Return what a file is and the remedy, if it is empty, a Git LFS pointer or a web page; otherwise None."""
    with file.open("rb") as stream:
        beginning = stream.read(_BEGINNING).removeprefix(_BOM)
    if not beginning:
        return "is empty: get it again"
    if beginning.startswith(_LFS):
        return "is a Git LFS pointer, which only stands for the file: fetch the file itself with `git lfs pull`"
    if _WEB_PAGE.match(beginning):
        said = " ".join(beginning.decode("utf-8", "replace").split())[:_SHOWN]
        return f"is a web page, such as a server sends for an error or a login ({said!r} …): download the file itself"
    return None
