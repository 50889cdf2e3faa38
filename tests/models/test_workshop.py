from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from models.errors import ImportFailure
from models.workshop import Job, Workshop


def test_where_the_packages_that_convert_are_not_installed_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = ("torch", "ultralytics")
    monkeypatch.setattr("models.workshop.find_spec", lambda name: None if name in absent else find_spec(name))
    with Workshop(1) as workshop, pytest.raises(ImportFailure, match="torch, ultralytics not installed") as raised:
        workshop.submit(Job("person_reid", (), Path("nowhere")))
    assert "requirements/gpu.txt" in str(raised.value)
