from __future__ import annotations

import pytest

from settings import DEFAULT_FILE, Settings, load
from tools import exposure


def at(host: str, **environment: str) -> Settings:
    return load(DEFAULT_FILE, {"HOST": host, "PORT": "8123", **environment})


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1"])
def test_this_machine_alone_is_no_exposure(host: str) -> None:
    assert exposure.warning(at(host)) is None


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.20", "fd00::20"])
def test_any_other_address_is_said_with_what_it_means(host: str) -> None:
    said = exposure.warning(at(host))
    assert said is not None
    for part in (f"(HOST={host})", "8123", "everyone", "no key", "HOST=127.0.0.1"):
        assert part in said
    assert "MODEL_MANAGEMENT" not in said
    assert "ENRICHMENT_MODEL_MANAGEMENT=true" in str(exposure.warning(at(host, ENRICHMENT_MODEL_MANAGEMENT="true")))


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_a_machine_without_a_network_is_exposed_all_the_same(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exposure, "_ELSEWHERE", {4: "0.0.0.300", 6: "no address"})
    assert "port 8123 of this machine" in str(exposure.warning(at(host)))


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("0.0.0.0", "http://127.0.0.1:8123"),
        ("::", "http://[::1]:8123"),
        ("192.168.1.20", "http://192.168.1.20:8123"),
        ("fd00::20", "http://[fd00::20]:8123"),
    ],
)
def test_programs_on_this_machine_get_a_url_that_they_can_open(host: str, url: str) -> None:
    assert exposure.local_url(at(host)) == url
