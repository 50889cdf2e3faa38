"""A service that asks for an API key."""

from __future__ import annotations

from collections.abc import Iterator

import bentoml
import httpx
import pytest

from tests.serving.conftest import checking_client
from tests.serving.document import Document
from tests.serving.pictures import ROUTES, answer, base64_of, check_error, plain
from tests.serving.server import Server, serving
from tests.serving.test_http import PNG, PREFLIGHT, Connection

pytestmark = pytest.mark.serve

KEY, OTHER = "first-key-of-the-test", "second-key-of-the-test"
ORIGIN = "https://cameras.example:8443"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "keys").write_text(f"{KEY}\n{OTHER}\n", encoding="utf-8")
    environment = {
        "ENRICHMENT_API_KEY_FILE": str(folder / "keys"),
        "ENRICHMENT_MODEL_MANAGEMENT": "true",
        "ENRICHMENT_CORS_ORIGINS": ORIGIN,
    }
    with serving(folder, environment) as running:
        yield running


@pytest.fixture
def keyed(guarded: Server) -> Iterator[httpx.Client]:
    """A caller with the key, who judges each answer by the OpenAPI document."""
    described = httpx.get(f"{guarded.url}/openapi.json", headers={"X-API-Key": KEY}, timeout=30).raise_for_status()
    with checking_client(guarded, Document(described.json())) as client:
        client.headers["X-API-Key"] = KEY
        yield client


@pytest.fixture
def stranger(guarded: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=guarded.url, timeout=30) as client:
        yield client


def test_with_a_key_all_is_as_ever(keyed: httpx.Client) -> None:
    for route in ROUTES:
        answer(keyed, route, plain((1, 2, 3)))
    assert set(keyed.get("/health").json()) > {"status", "models", "runners"}
    assert keyed.get("/metrics").status_code == keyed.get("/models").status_code == 200
    keyed.headers.pop("X-API-Key")
    for key in (KEY, OTHER):
        assert keyed.get("/models", headers={"Authorization": f"Bearer {key}"}).status_code == 200
    check_error(keyed.get("/models"), 401, "unauthorized")


def test_bentomls_client_sends_a_key_as_its_token(guarded: Server) -> None:
    with bentoml.SyncHTTPClient(guarded.url, token=KEY) as client:
        assert client.person_reid(image_base64=base64_of(plain((1, 2, 3))))["embedding_dim"] == 512


def test_without_one_every_route_is_closed_even_bentomls_own(stranger: httpx.Client, keyed: httpx.Client) -> None:
    known = keyed.get("/openapi.json").json()["paths"]
    asked = {(method.upper(), path.format(name="pose")) for path, methods in known.items() for method in methods}
    asked |= {("GET", path) for path in ("/docs.json", "/schema.json", "/nope", "/static_content/x", "/static")}
    opened = {("GET", path) for path in ("/health", "/livez", "/readyz")}
    for method, path in asked - opened:
        refused = stranger.request(method, path)
        check_error(refused, 401, "unauthorized")
        assert refused.headers["www-authenticate"] == "Bearer"
    for method, path in opened | {("GET", "/healthz"), ("GET", "/"), ("GET", "/static/page.js")}:
        assert stranger.request(method, path).status_code == 200
    assert stranger.get("/health").json() == {"status": "healthy"}


@pytest.mark.parametrize(
    "path", ["/static/../models", "/static/%2e%2e/models", "/static//../models", "/health/../models"]
)
def test_no_open_path_leads_to_a_closed_one(guarded: Server, path: str) -> None:
    with Connection(guarded) as connection:
        connection.send(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert connection.answer()[0] in {401, 404}


def test_a_refused_upload_is_refused_before_it_is_sent(guarded: Server) -> None:
    with Connection(guarded) as connection:
        connection.send(
            b"POST /person-reid HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 9000\r\n\r\n"
        )
        status, headers, body = connection.answer()
    assert (status, body["error"]["code"], headers["www-authenticate"]) == (401, "unauthorized", "Bearer")


def test_a_key_in_the_body_or_the_query_opens_nothing(stranger: httpx.Client) -> None:
    fields = {"api_key": KEY, "X-API-Key": KEY}
    check_error(stranger.post("/person-reid", files={"image": PNG}, data=fields), 401, "unauthorized")
    check_error(stranger.post("/models/unload-all", params=fields, data=fields), 401, "unauthorized")
    assert stranger.get("/models/status", headers={"X-API-Key": OTHER}).json()["loaded_models"] != []


def test_a_page_of_an_allowed_origin_can_ask_for_leave_and_read_the_refusal(stranger: httpx.Client) -> None:
    asked = {**PREFLIGHT, "Access-Control-Request-Headers": "x-api-key", "Origin": ORIGIN}
    leave = stranger.options("/person-reid", headers=asked)
    assert (leave.status_code, leave.headers["access-control-allow-headers"]) == (200, "x-api-key")
    refused = stranger.get("/models", headers={"Origin": ORIGIN})
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, ORIGIN)


def test_refusals_are_counted_and_no_key_is_in_log_or_metrics(
    guarded: Server, stranger: httpx.Client, keyed: httpx.Client
) -> None:
    stranger.post("/threat-detect", headers={"X-API-Key": "a-wrong-guess"})
    metrics = keyed.get("/metrics").text
    counted = [line for line in metrics.splitlines() if "inference_requests_total" in line and '"401"' in line]
    assert any('endpoint="/threat-detect"' in line and not line.endswith(" 0.0") for line in counted)
    assert "without a valid API key" in guarded.log
    for secret in (KEY, OTHER, "a-wrong-guess"):
        assert secret not in guarded.log + metrics + keyed.get("/health").text + keyed.get("/models").text
