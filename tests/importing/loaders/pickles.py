"""Checkpoints as other versions of a library wrote them, for the tests of the loaders."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from pathlib import Path


def renamed(file: Path, names: Iterable[tuple[bytes, bytes]]) -> None:
    """Give globals in a checkpoint's pickle other names: old → new, as the pickle has them (`cmodule\\nname\\n`)."""
    with zipfile.ZipFile(file) as archive:
        entries = {entry: archive.read(entry) for entry in archive.namelist()}
    (pickle,) = (entry for entry in entries if entry.endswith("data.pkl"))
    for old, new in names:
        assert old in entries[pickle], old
        entries[pickle] = entries[pickle].replace(old, new)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for entry, content in entries.items():
            archive.writestr(entry, content)
