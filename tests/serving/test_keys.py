"""A service that asks for an API key, and the guards that hold without one."""

from __future__ import annotations

import io
import pickle
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.serving.conftest import checking_client
from tests.serving.document import Document
from tests.serving.pictures import ROUTES, answer, ask, base64_of, check_error, plain
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


# ── what holds without a key, too ──


def test_no_browser_guesses_or_frames_an_answer(server: Server) -> None:
    paths = ("/", "/static/page.js", "/health", "/livez", "/metrics", "/openapi.json", "/nope", "/models")
    with httpx.Client(base_url=server.url, timeout=30) as client:
        responses = [client.get(path) for path in paths]
        responses += [ask(client, "/person-reid", PNG), client.post("/person-reid", content=b"x")]
    for response in responses:
        assert response.headers.get_list("x-content-type-options") == ["nosniff"], response.url
        assert response.headers.get_list("x-frame-options") == ["DENY"]
    assert "frame-ancestors 'none'" in responses[0].headers["content-security-policy"]
    with Connection(server) as connection:
        connection.send(b"GARBAGE\r\n\r\n")
        assert connection.answer()[1]["x-content-type-options"] == "nosniff"


@pytest.fixture
def visits() -> Iterator[tuple[str, list[bytes]]]:
    """The URL of a picture on this machine, and what is asked of its host."""
    asked: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def listen() -> None:
        while True:
            try:
                visitor, _ = listener.accept()
            except OSError:  # closed
                return
            with visitor:
                asked.append(b"a visit")

    threading.Thread(target=listen, daemon=True).start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/picture.png", asked
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


@pytest.mark.parametrize("route", [*ROUTES, "/object-distance", "/enrich"])
def test_no_route_fetches_a_url(server: Server, visits: tuple[str, list[bytes]], route: str) -> None:
    url, asked = visits
    with httpx.Client(base_url=server.url, timeout=30) as client:
        for text in (url, url.upper(), f"file://{__file__}", __file__):
            for field in ("image", "image_base64", "url"):
                answers = [
                    client.post(route, json={field: text}),
                    client.post(route, json={field: {"url": text}}),
                    client.post(route, data={field: text}),
                    client.post(route, files={field: ("picture.png", text.encode(), "image/png")}),
                    client.post(route, params={field: text}, content=b"", headers={"content-type": "image/png"}),
                ]
                assert {400, 415, 422} >= {response.status_code for response in answers}
        assert client.post(route, content=url, headers={"content-type": "text/uri-list"}).status_code == 415
    assert asked == []


@pytest.mark.parametrize(
    "path",
    [
        "../application.py",
        "..%2fapplication.py",
        "%2e%2e/%2e%2e/configuration.yaml",
        "/etc/passwd",
        "..\\..\\service.py",
        "samples/../../__init__.py",
        "%00",
        ".",
    ],
)
def test_nothing_beside_the_pages_files_can_be_read(server: Server, path: str) -> None:
    with Connection(server) as connection:
        connection.send(f"GET /static/{path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        status, _, body = connection.answer()
    assert (status, body["error"]["code"]) == (404, "not_found")


def test_a_header_of_ten_thousand_ranges_costs_nothing(server: Server) -> None:
    ranges = "bytes=" + ",".join(f"{number}-{number}" for number in range(0, 9000, 2))
    with httpx.Client(base_url=server.url, timeout=10) as client:
        response = client.get("/static/page.js", headers={"Range": ranges})
    assert response.status_code in {200, 206, 400, 416}


class Harmful:
    """A pickle that writes a file when it is loaded."""

    def __init__(self, mark: Path) -> None:
        self._mark = str(mark)

    def __reduce__(self) -> tuple[Any, ...]:
        return io.open, (self._mark, "w")


@pytest.mark.parametrize("placement", ["server", "shared_server"])
def test_no_request_is_unpickled(placement: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    harmful = pickle.dumps(Harmful(mark))
    kinds = ("application/vnd.bentoml+pickle", "application/octet-stream", "application/pickle", "image/png", "")
    running: Server = request.getfixturevalue(placement)
    with httpx.Client(base_url=running.url, timeout=30) as client:
        for route in (*ROUTES, "/enrich", "/", "/predict", "/infer"):
            for kind in kinds:
                for extra in (
                    {},
                    {"Payload-Container": "PandasDataFrameContainer", "args-number": "1", "Bento-Is-Dict": "1"},
                ):
                    response = client.post(route, content=harmful, headers={"content-type": kind, **extra})
                    assert 400 <= response.status_code < 500
            sent = {"image": base64_of(plain((1, 2, 3))), "bbox": harmful.hex()}
            assert client.post(route, json=sent).status_code < 500
    assert not mark.exists()


def test_the_harmful_pickle_does_harm_where_it_is_loaded(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Harmful(tmp_path / "mark"))).close()
    assert (tmp_path / "mark").exists()
