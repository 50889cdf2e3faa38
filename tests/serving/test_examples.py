"""examples/backend_client.py against a live service."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from examples.backend_client import (
    ROUTES,
    EnrichmentClient,
    EnrichmentError,
    embedding_by_bentoml,
    embeddings_by_bentoml,
)
from models.catalogue import CATALOGUE
from tests.serving import fake
from tests.serving.pictures import encoded, marked, plain
from tests.serving.server import ROOT, Server

pytestmark = pytest.mark.serve


@pytest.fixture
def heavy() -> Iterator[str]:
    """The other service: answers every route, and says which one it was asked for."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"heavy": self.path}).encode())

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


def test_it_knows_every_route_and_its_variable() -> None:
    assert {spec.route: spec.assignment_variable for spec in CATALOGUE.values()} == ROUTES


async def test_each_route_goes_where_its_variable_says(server: Server, heavy: str) -> None:
    environment = {
        "ENRICHMENT_LIGHT_URL": server.url,
        "ENRICHMENT_URL": heavy,
        "ENRICHMENT_POSE_SERVICE": "heavy",
        "ENRICHMENT_THREAT_SERVICE": "light",
    }
    image = encoded(marked((10, 10, 40, 40), (64, 48)))
    async with EnrichmentClient(environment) as client:
        assert await client.ask("/pose-analyze", image) == {"heavy": "/pose-analyze"}
        assert (await client.ask("/threat-detect", image, min_confidence=0.1))["is_threat"] is True
        reid = await client.ask("/person-reid", encoded(plain((10, 200, 30))), bbox=[0, 0, 20, 20])
        assert fake.colour_of(reid["embedding"]) == (10, 200, 30)


async def test_what_is_final_is_not_asked_again_and_named(server: Server) -> None:
    async with EnrichmentClient({"ENRICHMENT_LIGHT_URL": server.url}) as client:
        with pytest.raises(EnrichmentError, match="400 invalid_image") as caught:
            await client.ask("/person-reid", b"no image")
        assert caught.value.final
        with pytest.raises(EnrichmentError, match="500 internal") as caught:
            await client.ask("/person-reid", encoded(plain(fake.RAISES)))
        assert not caught.value.final


async def test_bentomls_clients_give_the_same(server: Server) -> None:
    colours: list[fake.Colour] = [(i, 90, 255 - i) for i in range(12)]
    images = [encoded(plain(colour)) for colour in colours]
    assert [fake.colour_of(one) for one in await embeddings_by_bentoml(server.url, images)] == colours


def test_bentomls_synchronous_client_does_too(server: Server) -> None:
    assert fake.colour_of(embedding_by_bentoml(server.url, encoded(plain((1, 2, 3))))) == (1, 2, 3)


def test_as_a_program_it_says_what_is_in_the_pictures(server: Server, tmp_path: Path) -> None:
    picture = tmp_path / "yard.png"
    picture.write_bytes(encoded(marked((10, 10, 40, 40), (64, 48))))
    environment = os.environ | {"ENRICHMENT_LIGHT_URL": server.url}
    command = [sys.executable, "examples/backend_client.py", str(picture)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("yard.png: 1 people, threats: ['")
