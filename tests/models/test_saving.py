"""Saving a model that is killed at any step stores all of it or nothing."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from models import store
from models.import_models import _readable
from models.store import StoreError
from tests.models.cards import card, files

NAME: Final = "pet_classifier"
_CHANGES: Final = frozenset({"os.mkdir", "os.remove", "os.rename", "os.rmdir"})  # audit events of Python
_STEPS: Final = 500  # more than saving takes


def killed_at(step: int, work: Callable[[], object], below: Path) -> bool:
    """Do the work in a process that is killed before its `step`th change below a folder. Whether it was."""
    child = os.fork()
    if child == 0:
        left = step

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal left
            changes = event in _CHANGES or (event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR))
            if changes and any(str(each).startswith(str(below)) for each in arguments[:2]):
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        try:
            work()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def found() -> str | None:
    """The version that a server would find now; "damaged" if it can't be used."""
    try:
        stored = store.find("pet_classifier")
        if stored is None:
            return None
        store.verify(
            stored, *(path for path in stored.folder.rglob("*") if path.name != "model.yaml" and path.is_file())
        )
        return stored.version
    except StoreError:
        return "damaged"


@pytest.mark.parametrize("before", [None, "aaa-1", "damaged"])
def test_a_save_that_is_killed_at_any_step_stores_all_or_nothing(
    home: Path, tmp_path: Path, before: str | None
) -> None:
    seen = set()
    for step in range(1, _STEPS):
        if before is not None:
            store.save(card(), "aaa-1" if before == "aaa-1" else "bbb-1", files(tmp_path / f"before-{step}"))
        if before == "damaged":
            (home / "models" / NAME / "bbb-1" / store.GRAPH).unlink()
        folder = files(tmp_path / f"new-{step}")
        if not killed_at(step, lambda folder=folder: store.save(card(sha256="b" * 64), "bbb-1", folder), tmp_path):  # type: ignore[misc]
            break
        now = found()
        assert now in ({"bbb-1", None, "damaged"} if before == "damaged" else {"bbb-1", before}), step
        seen.add(now)
        again = store.save(card(sha256="b" * 64), "bbb-1", files(tmp_path / f"again-{step}"))
        assert (found(), again.version) == ("bbb-1", "bbb-1")
        shutil.rmtree(home / "models" / NAME)
    else:
        raise AssertionError(f"saving took more than {_STEPS} steps")
    assert step >= 15
    assert seen >= {before, "bbb-1"}


def test_the_next_import_finds_a_file_that_was_exchanged(
    home: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stored = store.save(card(), "aaa-1", files(tmp_path / "made"))
    assert _readable(NAME, "aaa-1") is not None
    stored.program.write_bytes(stored.program.read_bytes()[::-1])
    assert _readable(NAME, "aaa-1") is None
    assert "graph.pt2 is not the file that was imported" in caplog.text
    assert "The model is imported again" in caplog.text
