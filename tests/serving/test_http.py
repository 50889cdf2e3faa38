"""HTTP as clients speak it: upgrades, kept connections, broken messages, spellings of a path, ids, probes, CORS."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import bentoml
import httpx
import pytest

from tests.serving import fake
from tests.serving.pictures import ROUTES, ask, base64_of, check_error, encoded, plain
from tests.serving.server import Server, serving

pytestmark = pytest.mark.serve

COLOUR: fake.Colour = (10, 200, 30)
PNG = encoded(plain(COLOUR))
ORIGIN = "https://cameras.example:8443"
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Connection:
    """A connection to the server, by the byte."""

    def __init__(self, server: Server) -> None:
        self._socket = socket.create_connection(server.address, timeout=60)
        self._file = self._socket.makefile("rb")

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._socket.close()

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def post(self, headers: bytes = b"") -> None:
        head = b"POST /person-reid HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
        self.send(head + b"Content-Length: %d\r\n" % len(PNG) + headers + b"\r\n" + PNG)

    def answer(self) -> tuple[int, dict[str, str], Any]:
        """Status, headers and JSON body of the next answer."""
        status = int(self._file.readline().split()[1])
        lines = iter(self._file.readline, b"\r\n")
        pairs = (line.decode().strip().partition(": ") for line in lines)
        headers = {name.lower(): value for name, _, value in pairs}
        return status, headers, json.loads(self._file.read(int(headers["content-length"])))


# ── the connection ──


@pytest.mark.parametrize("upgrade", [b"h2c", b"websocket"])
def test_a_request_that_offers_an_upgrade_keeps_its_body(server: Server, upgrade: bytes) -> None:
    # As Java's HttpClient and `curl --http2` do with each first request of a connection.
    with Connection(server) as connection:
        offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: " + upgrade + b"\r\nHTTP2-Settings: AAMAAABkAAQ\r\n"
        for _ in range(2):
            connection.post(offer)
            status, _, body = connection.answer()
            assert status == 200, body
            assert fake.colour_of(body["embedding"]) == COLOUR


def test_a_connection_is_kept_for_longer_than_clients_keep_theirs(server: Server) -> None:
    with Connection(server) as connection:
        connection.post()
        assert connection.answer()[0] == 200
        time.sleep(5.5)  # BentoML's own limit is 5 s
        connection.post()
        assert connection.answer()[0] == 200


@pytest.mark.parametrize(
    "sent",
    [
        b"GARBAGE\r\n\r\n",
        b"GET /health HTTP/1.1\r\n\r\n",
        b"POST /person-reid HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /person-reid HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
    ids=["line", "no host", "two lengths", "chunk"],
)
def test_a_broken_message_gets_the_contracts_error(server: Server, sent: bytes) -> None:  # more: test_protocol.py
    with Connection(server) as connection:
        connection.send(sent)
        status, headers, body = connection.answer()
    check_error(httpx.Response(status, headers=headers, json=body), 400, "invalid_http")
    assert body["error"]["request_id"] in server.log


def test_who_sends_all_before_reading_gets_the_refusal(server: Server) -> None:
    # As a proxy does that closes each connection: a server that closed first would reset it, and the answer be lost.
    connection = http.client.HTTPConnection(*server.address, timeout=30)
    connection.request("POST", "/person-reid", bytes(50_000_000), {"Content-Type": "image/png", "Connection": "close"})
    response = connection.getresponse()
    assert (response.status, json.load(response)["error"]["code"]) == (413, "payload_too_large")


def test_uploads_that_stall_keep_nobody_out(limited: Server, limited_client: httpx.Client) -> None:
    head = b"POST /person-reid HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 300000\r\n\r\n"
    connections = [Connection(limited) for _ in range(64)]
    for connection in connections:
        connection.send(head + bytes(290_000))  # 18 MB in all, and 4 are the limit
    time.sleep(0.2)
    for _ in range(3):
        assert ask(limited_client, "/person-reid", PNG).status_code == 200
    for connection in connections:
        with connection:
            pass


def test_who_hangs_up_is_not_computed(server: Server, client: httpx.Client) -> None:
    # Twelve callers of a slow model that are gone after a moment, and it has three places.
    body = json.dumps({"image": base64_of(plain(fake.sleeper(4.0)))}).encode()
    head = (
        b"POST /depth-estimate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        % len(body)
    )
    for _ in range(12):
        with Connection(server) as connection:
            connection.send(head + body)
            time.sleep(0.02)
    began = time.monotonic()
    assert ask(client, "/depth-estimate", PNG).status_code == 200
    assert time.monotonic() - began < 8  # one round of those that had begun, and not four


# ── the path ──


@pytest.mark.parametrize("path", ["/person-reid/", "//person-reid", "/person%2Dreid", "/person-reid//?bbox=0,0,9,9"])
def test_a_route_by_another_spelling_is_no_redirect(server: Server, path: str) -> None:
    response = httpx.post(server.url + path, content=PNG, headers={"content-type": "image/png"}, timeout=30)
    assert response.status_code == 200
    assert fake.colour_of(response.json()["embedding"]) == COLOUR


def test_an_unknown_path_names_the_known_ones(client: httpx.Client) -> None:
    message = check_error(client.get("/nope"), 404, "not_found")["message"]
    assert message.startswith("GET /nope: there is no such route")
    for route in ROUTES:
        assert f"POST {route}" in message
    assert "GET /health" in message


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "TRACE", "BREW"])
def test_methods_that_nobody_has_written_are_errors_like_the_others(client: httpx.Client, method: str) -> None:
    for path, status, code in (("/person-reid", 405, "method_not_allowed"), ("/nope", 404, "not_found")):
        response = client.request(method, path)
        if method == "HEAD":
            assert (response.status_code, response.content) == (status, b"")
            assert response.headers["x-request-id"]
        else:
            check_error(response, status, code)
        assert response.headers.get("allow") == ("POST" if status == 405 else None)


def test_a_path_writes_no_line_of_its_own_into_the_log(server: Server, client: httpx.Client) -> None:
    client.get("/nope%0aFORGED")
    server.wait(lambda: "/nope%0aFORGED" in server.log, "in the log", 30)
    assert "\nFORGED" not in server.log


# ── ids ──


@pytest.mark.parametrize("path", ["/health", "/readyz", "/metrics", "/nope", "/", "/docs", "/docs.json"])
def test_every_answer_has_a_request_id_and_gives_the_callers_ids_back(client: httpx.Client, path: str) -> None:
    assert len(client.get(path).headers["x-request-id"]) == 32
    response = client.get(path, headers={"X-Correlation-ID": "camera-7:42", "traceparent": TRACE})
    assert response.headers["x-request-id"] == response.headers["x-correlation-id"] == "camera-7:42"
    assert response.headers["traceparent"] == TRACE


def test_an_error_and_its_log_line_have_the_correlation_id(server: Server, client: httpx.Client) -> None:
    body = {"image_base64": base64_of(plain(fake.RAISES))}
    for number in range(2):
        name = f"correlated-{number}"
        response = client.post("/person-reid", json=body, headers={"X-Correlation-ID": name, "X-Request-ID": "a b"})
        assert check_error(response, 500, "internal")["request_id"] == name
    bad = client.post("/person-reid", json={}, headers={"X-Correlation-ID": "c", "X-Request-ID": "r"})
    assert check_error(bad, 422, "invalid_request")["request_id"] == "r"
    assert bad.headers["x-correlation-id"] == "c"


# ── probes ──


def test_the_probes_say_it_in_json(server: Server, client: httpx.Client) -> None:
    assert client.get("/readyz").text == '{"status":"ready"}'  # as probes look for it
    assert client.get("/livez").json() == client.get("/healthz").json() == {"status": "alive"}
    for path in ("/readyz", "/livez", "/healthz"):
        head = client.head(path)
        assert (head.status_code, head.headers["content-type"], head.content) == (200, "application/json", b"")
    with bentoml.SyncHTTPClient(server.url) as bentoml_client:
        assert bentoml_client.is_ready()


# ── other origins ──


@pytest.fixture(scope="module")
def open_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that pages of one origin may ask."""
    with serving(tmp_path_factory.mktemp("open"), {"ENRICHMENT_CORS_ORIGINS": f"http://a.example,{ORIGIN}"}) as running:
        yield running


@pytest.fixture
def page(open_server: Server) -> Iterator[httpx.Client]:
    """What a page of that origin asks with."""
    with httpx.Client(base_url=open_server.url, headers={"Origin": ORIGIN}, timeout=30) as client:
        yield client


PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type, x-request-id"}


@pytest.mark.parametrize("path", [*ROUTES, "/health"])
def test_a_preflight_is_answered(page: httpx.Client, path: str) -> None:
    response = page.options(path, headers=PREFLIGHT)
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == ORIGIN
    assert "POST" in response.headers["access-control-allow-methods"]
    assert response.headers["access-control-allow-headers"] == "content-type, x-request-id"


def test_answers_and_errors_can_be_read_by_the_page(page: httpx.Client) -> None:
    headers = {"content-type": "image/png"}
    responses = {
        200: page.post("/person-reid", content=PNG, headers=headers),
        400: page.post("/person-reid", content=b"no image", headers=headers),
        404: page.get("/nope"),
        405: page.get("/person-reid"),
        413: page.post("/person-reid", content=bytes(20_000_000), headers=headers),
        415: page.post("/person-reid", content=PNG, headers={"content-type": "text/plain"}),
        500: ask(page, "/person-reid", plain(fake.RAISES)),
    }
    for status, response in responses.items():
        assert response.status_code == status
        assert response.headers["access-control-allow-origin"] == ORIGIN
        assert response.headers["access-control-expose-headers"] == "X-Request-ID, Retry-After"
        assert response.headers["vary"] == "Origin"
    assert page.get("/health").headers["access-control-allow-origin"] == ORIGIN


def test_pages_of_other_origins_are_not_let_in(page: httpx.Client) -> None:
    other = {"Origin": "https://other.example"}
    refused = page.options("/person-reid", headers=PREFLIGHT | other)
    assert refused.status_code == 400
    assert "access-control-allow-origin" not in refused.headers
    assert "access-control-allow-origin" not in page.get("/health", headers=other).headers


def test_without_the_setting_no_page_is(client: httpx.Client) -> None:
    for response in (
        client.options("/person-reid", headers={"Origin": ORIGIN, **PREFLIGHT}),
        client.get("/health", headers={"Origin": ORIGIN}),
    ):
        assert not [name for name in response.headers if name.startswith("access-control")]
