from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from importing.errors import ImportFailure
from importing.jobs import CalibrationJob, Job
from importing.workshop import Workshop
from models.store import StoredModel
from tests.models.cards import card


def test_where_the_packages_that_convert_are_not_installed_that_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    absent = ("torch", "ultralytics")
    monkeypatch.setattr("importing.workshop.find_spec", lambda name: None if name in absent else find_spec(name))
    with (
        Workshop(tmp_path, 1) as workshop,
        pytest.raises(ImportFailure, match="torch, ultralytics not installed") as raised,
    ):
        workshop.submit(Job("person_reid", (), Path("nowhere")))
    assert "requirements/gpu.txt" in str(raised.value)


def test_where_the_package_that_quantizes_is_not_installed_that_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("importing.workshop.find_spec", lambda name: None if name == "nncf" else find_spec(name))
    stored = StoredModel("pet_classifier:1", Path("nowhere"), card())
    with Workshop(tmp_path, 1) as workshop, pytest.raises(ImportFailure, match="nncf not installed"):
        workshop.calibrate(CalibrationJob(stored, (), Path("nowhere")))


def test_where_there_is_no_shared_memory_that_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("importing.workshop.ProcessPoolExecutor", fail)
    with Workshop(tmp_path, 1) as workshop, pytest.raises(ImportFailure, match=r"make /dev/shm writable .*Read-only"):
        workshop.submit(Job("person_reid", (), Path("nowhere")))
