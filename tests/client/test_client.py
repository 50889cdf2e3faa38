"""Retries, errors and routing of both clients, against a scripted service."""

from __future__ import annotations

import inspect
import pickle
from typing import Any

import httpx
import pytest

from enrichment_client import AsyncClient, Client, EnrichmentError, calls
from enrichment_client.calls import ASSIGNMENTS
from models.catalogue import CATALOGUE
from tests.client.service import HEAVY, LIGHT, PET, Answer, Ask, Service, ask_async, ask_sync, error, record_pauses

GOOD = httpx.Response(200, json=PET)
LOST = httpx.ConnectError("refused")


@pytest.fixture(params=[ask_sync, ask_async], ids=["sync", "async"])
def ask(request: pytest.FixtureRequest) -> Ask:
    function: Ask = request.param
    return function


def busy(seconds: str, status: int = 429, code: str = "overloaded") -> httpx.Response:
    return error(status, code, {"Retry-After": seconds})


@pytest.mark.parametrize(
    ("answers", "pauses"),
    [
        ([GOOD], []),
        ([busy("1"), GOOD], [1]),
        ([busy("3"), busy("2", 503, "runner_unavailable"), GOOD], [3, 2]),
        ([busy("0"), GOOD], [0]),
        ([error(503, "runner_unavailable"), httpx.Response(503, text="<html>proxy"), GOOD], [0.5, 1]),
        ([busy("Fri, 27 Nov 2026 12:00:00 GMT"), GOOD], [0.5]),
        ([busy("-4"), GOOD], [0.5]),
        ([LOST, httpx.ReadError("reset"), GOOD], [0.5, 1]),
        ([httpx.RemoteProtocolError("closed"), GOOD], [0.5]),
    ],
)
def test_what_may_pass_is_asked_again_after_the_wait(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, answers: list[Answer], pauses: list[float]
) -> None:
    service = Service(list(answers))
    record_pauses(monkeypatch, service)
    assert ask(service, "pet", b"picture").pet_type == "dog"
    assert service.pauses == pauses
    assert len({request.content.count(b"picture") for request in service.asked}) == 1  # each attempt has its body


@pytest.mark.parametrize(
    ("answer", "status", "code"),
    [
        (error(400, "invalid_image"), 400, "invalid_image"),
        (error(422, "invalid_request", details=[{"field": "bbox", "message": "m"}]), 422, "invalid_request"),
        (error(500, "internal"), 500, "internal"),
        (error(504, "timeout"), 504, "timeout"),
        (error(421, "model_not_assigned"), 421, "model_not_assigned"),
        (httpx.Response(502, text="<html>bad gateway"), 502, "unexpected_answer"),
        (httpx.Response(301, headers={"Location": "https://x"}), 301, "unexpected_answer"),
        (httpx.Response(200, json={"pet_type": "dog"}), 200, "unexpected_answer"),
        (httpx.Response(200, text="hello"), 200, "unexpected_answer"),
        (httpx.Response(404, json=[1]), 404, "unexpected_answer"),
        (httpx.ReadTimeout("slow"), None, "timeout"),
        (httpx.UnsupportedProtocol("no"), None, "failed"),
    ],
)
def test_what_is_final_is_asked_once(ask: Ask, answer: Answer, status: int | None, code: str) -> None:
    service = Service([answer])
    with pytest.raises(EnrichmentError) as caught:
        ask(service, "pet", b"picture")
    assert (caught.value.status, caught.value.code, len(service.asked)) == (status, code, 1)
    assert not caught.value.may_pass


def test_an_error_says_all_that_the_service_said(ask: Ask) -> None:
    details = [{"field": "bbox", "message": "wholly outside"}]
    with pytest.raises(EnrichmentError) as caught:
        ask(Service([error(422, "invalid_request", details=details)]), "pose", b"picture")
    found = caught.value
    assert (found.message, found.request_id, found.details) == ("a message of invalid_request", "r1", details)
    assert str(found) == "422 invalid_request: a message of invalid_request (request r1)"
    assert str(pickle.loads(pickle.dumps(found))) == str(found)


@pytest.mark.parametrize("retries", [0, 1, 4])
def test_retries_are_counted(ask: Ask, monkeypatch: pytest.MonkeyPatch, retries: int) -> None:
    for answer in (busy("1"), LOST):
        service = Service([answer])
        record_pauses(monkeypatch, service)
        with pytest.raises(EnrichmentError) as caught:
            ask(service, "health", retries=retries) if answer is LOST else ask(service, "pet", b"", retries=retries)
        assert caught.value.may_pass
        assert len(service.asked) == 1 + retries


@pytest.mark.parametrize(("asked", "timeout"), [("60", 35), ("5", 4), ("99999999999", 35)])
def test_nobody_waits_beyond_the_deadline(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, asked: str, timeout: float
) -> None:
    service = Service([busy(asked)])
    record_pauses(monkeypatch, service)
    with pytest.raises(EnrichmentError, match="overloaded"):
        ask(service, "pet", b"picture", timeout=timeout)
    assert service.pauses == []
    left = service.asked[0].extensions["timeout"]
    assert 0 < left["read"] <= timeout
    assert left["connect"] <= 5


@pytest.mark.parametrize("method", ["preload", "unload"])
def test_a_change_is_never_repeated(ask: Ask, method: str) -> None:
    for answer in (LOST, busy("0")):
        service = Service([answer])
        with pytest.raises(EnrichmentError):
            ask(service, method, "person_reid")
        assert len(service.asked) == 1


@pytest.mark.parametrize("url", ["localhost:8096", "", "ftp://x", "http://", "http://x:port", "photo.jpg"])
def test_what_is_no_url_is_refused_at_once(url: str) -> None:
    with pytest.raises(ValueError, match="is no URL"):
        Client(url)


def test_the_key_goes_with_every_request(ask: Ask) -> None:
    service = Service([GOOD])
    ask(service, "pet", b"picture", api_key="secret")
    assert service.asked[0].headers["x-api-key"] == "secret"
    assert service.asked[0].headers["user-agent"] == "ai-enrichment-light-client"  # some proxies refuse its absence
    ask(service, "pet", b"picture")
    assert "x-api-key" not in service.asked[1].headers


# ── light and heavy ──


def services(variables: dict[str, str]) -> dict[str, Any]:
    """The constructor's options that from_env takes from variables."""
    found: dict[str, Any] = {}

    class Recorder(Client):
        def __init__(self, **options: Any) -> None:
            found.update(options)

    Recorder.from_env(variables)
    return found


def test_the_variables_are_the_catalogues() -> None:
    assert set(ASSIGNMENTS.values()) == {spec.assignment_variable for spec in CATALOGUE.values()}
    assert set(ASSIGNMENTS) == {spec.short_name for spec in CATALOGUE.values()}


def test_the_seeds_variables_and_defaults() -> None:
    assert services({}) == {
        "base_url": "http://ai-enrichment-light:8096",
        "heavy_url": "http://ai-enrichment:8094",
        "api_key": None,
        "assignments": dict.fromkeys(ASSIGNMENTS, "light"),
    }
    set_ = {"ENRICHMENT_LIGHT_URL": LIGHT, "ENRICHMENT_URL": HEAVY, "ENRICHMENT_API_KEY": "k"}
    found = services(set_ | {"ENRICHMENT_PET_SERVICE": "heavy", "ENRICHMENT_POSE_SERVICE": ""})
    assert (found["base_url"], found["heavy_url"], found["api_key"]) == (LIGHT, HEAVY, "k")
    assert found["assignments"] == dict.fromkeys(ASSIGNMENTS, "light") | {"pet": "heavy"}


def test_a_wrong_assignment_is_named() -> None:
    with pytest.raises(ValueError, match="ENRICHMENT_PET_SERVICE is 'hevy'; light and heavy are allowed"):
        Client.from_env({"ENRICHMENT_PET_SERVICE": "hevy"})
    assert isinstance(AsyncClient.from_env({}), AsyncClient)


@pytest.mark.parametrize(("assigned", "first", "other"), [("light", LIGHT, HEAVY), ("heavy", HEAVY, LIGHT)])
def test_a_model_is_asked_where_it_is_assigned_and_a_421_leads_to_the_other(
    ask: Ask, assigned: str, first: str, other: str
) -> None:
    options: dict[str, Any] = {"heavy_url": HEAVY, "assignments": {"pet": assigned}, "retries": 0}
    service = Service([GOOD])
    ask(service, "pet", b"picture", **options)
    assert service.paths() == [f"{first}/pet-classify"]
    service = Service([error(421, "model_not_assigned"), GOOD])
    ask(service, "pet", b"picture", **options)
    assert service.paths() == [f"{first}/pet-classify", f"{other}/pet-classify"]
    service = Service([error(421, "model_not_assigned")])
    with pytest.raises(EnrichmentError, match="model_not_assigned"):
        ask(service, "pet", b"picture", **options)
    assert len(service.asked) == 2


def test_what_a_421_taught_is_remembered() -> None:
    service = Service([error(421, "model_not_assigned"), GOOD])
    with Client(LIGHT, HEAVY, transport=httpx.MockTransport(service)) as client:
        client.pet(b"picture")
        client.pet(b"picture")
    assert service.paths() == [f"{url}/pet-classify" for url in (LIGHT, HEAVY, HEAVY)]


def test_what_concerns_no_single_model_is_asked_of_the_light_service(ask: Ask) -> None:
    service = Service([httpx.Response(200, json={"status": "healthy"})])
    ask(service, "health", heavy_url=HEAVY, assignments=dict.fromkeys(ASSIGNMENTS, "heavy"))
    assert service.paths() == [f"{LIGHT}/health"]


# ── one surface ──


@pytest.mark.parametrize("client", [Client, AsyncClient])
def test_both_clients_have_every_call_with_its_arguments(client: type[Client] | type[AsyncClient]) -> None:
    public = [
        name
        for name, value in vars(calls).items()
        if inspect.isfunction(value) and value.__module__ == calls.__name__ and not name.startswith("_")
    ]
    assert len(public) == 14
    for name in public:
        method = getattr(client, name)
        assert list(inspect.signature(method).parameters)[1:] == list(
            inspect.signature(getattr(calls, name)).parameters
        )
        assert method.__doc__
