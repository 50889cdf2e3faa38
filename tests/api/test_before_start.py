"""What ends `bentoml serve` before it starts its processes, and what is imported before that."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from api import before_start
from runners import supervisor
from settings import DEFAULT_FILE, Settings
from settings.address import AddressUnusable
from settings.loading import load


def settings_of(**environment: str) -> Settings:
    return load(DEFAULT_FILE, environment)


@pytest.fixture
def imported(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The models of each import, and a supervisor that stays as it is."""
    found: list[list[str]] = []
    monkeypatch.setattr(before_start, "import_at_start", found.append)
    monkeypatch.setattr(supervisor, "install", lambda _: None)
    monkeypatch.setattr(supervisor, "check_address", lambda: None)
    monkeypatch.setenv("MALLOC_ARENA_MAX", "2")  # put back afterwards
    return found


def service(*packed: str) -> Any:
    models = [SimpleNamespace(tag=SimpleNamespace(name=name, version="1")) for name in packed]
    return SimpleNamespace(bento=SimpleNamespace(info=SimpleNamespace(all_models=models)) if packed else None)


def test_settings_that_contradict_each_other_are_a_sentence() -> None:
    with pytest.raises(SystemExit, match=r"^ai-enrichment-light can't start: ENRICHMENT_PLACEMENT is embedded, and"):
        before_start.placement(settings_of(ENRICHMENT_PLACEMENT="embedded", ENRICHMENT_ENGINE="torch"))


def test_a_runner_by_tcp_is_refused(imported: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENTOML_NO_UDS", "1")
    settings = settings_of(ENRICHMENT_IMPORT_AT_START="true")
    with pytest.raises(SystemExit, match="can't start: without unix sockets"):
        before_start.prepare(settings, "shared", {"person_reid": service()})
    assert imported == []


def test_an_address_in_use_is_a_sentence(imported: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    def check_address() -> None:
        raise AddressUnusable("it can't listen")

    monkeypatch.setattr(supervisor, "check_address", check_address)
    with pytest.raises(SystemExit, match=r"^ai-enrichment-light can't start: it can't listen$"):
        before_start.prepare(settings_of(), "embedded", {})


def test_models_that_a_bento_packs_are_not_imported(imported: list[list[str]]) -> None:
    asked = settings_of(ENRICHMENT_IMPORT_AT_START="true")
    before_start.prepare(asked, "embedded", {"person_reid": service("person_reid"), "pet_classifier": service()})
    before_start.prepare(settings_of(), "embedded", {"person_reid": service()})
    assert imported == [["pet_classifier"]]
