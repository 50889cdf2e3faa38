"""What the service says of itself is of the links that it has now, and of its own start."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from prometheus_client import REGISTRY

from api.errors import ApiError
from api.reports import Reports
from models.catalogue import CATALOGUE
from models.state import State
from settings import DEFAULT_FILE, load
from tests.api.test_health import link_of, status

SETTINGS = load(DEFAULT_FILE, {})
READY = {name: status(State.READY) for name in CATALOGUE}


async def test_it_is_ready_as_soon_as_its_links_are_and_no_sooner() -> None:
    reports = Reports(SETTINGS)
    assert reports.readiness()[0] == 503
    reports.links = [await link_of(READY)]
    assert reports.readiness()[0] == 200
    assert reports.health()[1]["status"] == "healthy"


async def test_the_uptime_counts_from_its_making_and_not_from_its_links(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("api.reports.time", SimpleNamespace(monotonic=lambda: now))
    reports = Reports(SETTINGS)
    now = 107.5
    reports.links = [await link_of(READY)]
    assert reports.health()[1]["uptime_seconds"] == 7.5
    assert reports.management().status()["uptime_seconds"] == 7.5


async def test_models_are_loaded_and_unloaded_only_where_the_setting_allows_it() -> None:
    for text, key, code in (
        ("false", "", "forbidden"),
        ("false", "a-key", "forbidden"),
        ("true", "", "forbidden"),  # else any page in a browser of the network could
        ("true", "a-key", "not_found"),
    ):
        reports = Reports(load(DEFAULT_FILE, {"ENRICHMENT_MODEL_MANAGEMENT": text, "ENRICHMENT_API_KEY": key}))
        reports.links = [await link_of(READY)]
        with pytest.raises(ApiError) as caught:
            await reports.management().change("load", "no such model")
        assert caught.value.code == code


async def test_what_is_published_is_of_the_last_heartbeat() -> None:
    reports = Reports(SETTINGS)
    for state in (State.READY, State.UNLOADED):
        reports.links = [await link_of({name: status(state) for name in CATALOGUE})]
        reports.publish()
        for name in CATALOGUE:
            loaded = REGISTRY.get_sample_value("enrichment_light_model_loaded", {"model": name})
            assert loaded == (state is State.READY)
