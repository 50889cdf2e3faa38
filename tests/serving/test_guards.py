"""Attacks on services of this kind, each of which a public advisory describes (SECURITY.md), made on a real server."""

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

from tests.serving.pictures import ROUTES, ask, base64_of, plain
from tests.serving.server import ROOT, Server
from tests.serving.test_http import PNG, Connection

pytestmark = pytest.mark.serve


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
    whole = (ROOT / "api" / "page" / "static" / "page.js").read_bytes()
    assert (response.status_code, response.content) == (200, whole)  # merging the ranges would take seconds
    assert "content-range" not in response.headers


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


def test_a_body_of_very_many_chunks_is_answered(server: Server) -> None:
    head = b"POST /person-reid HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in PNG) + b"1\r\nx\r\n" * 50_000 + b"0\r\n\r\n"
    with Connection(server) as connection:
        connection.send(head + chunks)
        assert connection.answer()[0] == 200
    assert server.process.poll() is None


@pytest.mark.parametrize("path", ["/models/reid/unload", "/models/unload-all", "/models/preload?model_name=reid"])
def test_a_page_in_somebodys_browser_changes_nothing(server: Server, path: str) -> None:
    with httpx.Client(base_url=server.url, timeout=30) as client:
        before = client.get("/models/status").json()["loaded_models"]
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
            headers = {"Origin": "https://evil.example", "Content-Type": kind, "Cookie": "session=1"}
            assert client.post(path, headers=headers).status_code == 403
        assert len(client.get("/models/status").json()["loaded_models"]) == len(before)
