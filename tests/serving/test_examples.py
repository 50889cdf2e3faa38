"""The client of client/ and examples/backend_client.py against a live service."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from enrichment_client import AsyncClient, Client, EnrichmentError
from examples.backend_client import embedding_by_bentoml, embeddings_by_bentoml
from models.catalogue import CATALOGUE
from tests.client.service import PET
from tests.serving import fake
from tests.serving.pictures import encoded, marked, plain
from tests.serving.server import ROOT, Server

pytestmark = pytest.mark.serve

CLIENT = {"PYTHONPATH": str(ROOT / "client")}  # as if it were installed


@pytest.fixture
def heavy() -> Iterator[str]:
    """The other service: sees a dog in every picture."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(PET | {"heavy": self.path}).encode())

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


async def test_each_call_goes_where_its_variable_says(server: Server, heavy: str) -> None:
    environment = {
        "ENRICHMENT_LIGHT_URL": server.url,
        "ENRICHMENT_URL": heavy,
        "ENRICHMENT_PET_SERVICE": "heavy",
        "ENRICHMENT_THREAT_SERVICE": "light",
    }
    image = encoded(marked((10, 10, 40, 40), (64, 48)))
    async with AsyncClient.from_env(environment) as client:
        assert (await client.pet(image)).model_extra == {"heavy": "/pet-classify"}
        assert (await client.threat(image, min_confidence=0.1)).is_threat is True
        reid = await client.reid(plain((10, 200, 30)), bbox=[0, 0, 20, 20])
        assert fake.colour_of(reid.embedding) == (10, 200, 30)


def test_a_model_that_the_service_gave_away_is_asked_of_the_other(limited: Server, heavy: str) -> None:
    image = plain((1, 2, 3))
    with Client(limited.url, heavy) as client:
        assert client.pet(image).model_extra == {"heavy": "/pet-classify"}
    with Client(limited.url) as client, pytest.raises(EnrichmentError, match="421 model_not_assigned"):
        client.pet(image)


def test_each_call_gets_its_answer(server: Server) -> None:
    """Pixels go as an array, so the answers show that every one has arrived."""
    image = np.asarray(marked((10, 10, 40, 40), (64, 48)))
    with Client(server.url) as client:
        pose = client.pose(image, min_keypoint_confidence=0.05)
        assert [len(person.keypoints) for person in pose.persons] == [17]
        assert pose.persons[0].bbox.width == pytest.approx(30, abs=2)
        (threat,) = client.threat(image, bbox=pose.persons[0].bbox).threats_detected
        assert (threat.class_name in fake.THREATS, threat.severity is not None) == (True, True)
        assert client.pet(image).pet_type in ("cat", "dog")
        depth = client.depth(image, bbox={"x": 0, "y": 0, "width": 20, "height": 10})
        assert depth.depth_map is not None
        assert depth.depth_map.startswith(b"\x89PNG")
        distance = client.distance(image, np.array([0, 0, 20, 10]), method="min", near_m=1, far_m=9)
        assert distance.estimated_distance_m is not None
        assert client.health().status == "healthy"
        assert {model.name: model.state for model in client.models().models} == dict.fromkeys(CATALOGUE, "ready")


def test_all_models_and_boxes_are_asked_at_once(server: Server) -> None:
    image = marked((10, 10, 40, 40), (64, 48))
    with Client(server.url) as client:
        found = client.enrich(
            image,
            boxes=[(10, 10, 40, 40), {"id": "outside", "bbox": {"x": 99, "y": 99, "width": 5, "height": 5}}],
            options={"pose": {"min_keypoint_confidence": 0.05}, "depth": {"map": True}},
        )
        only = client.enrich(image, models=["reid", "person_reid"], bbox=np.array([10, 10, 40, 40]))
    assert (found.image.width, found.image.height) == (64, 48)
    assert found.results.pose_estimator
    assert [len(person.keypoints) for person in found.results.pose_estimator.persons] == [17]
    assert found.results.depth_estimator
    assert found.results.depth_estimator.depth_map
    inside, outside = found.boxes
    assert inside.results.person_reid
    assert fake.colour_of(inside.results.person_reid.embedding) == fake.MARKER
    assert inside.results.depth_estimator
    assert (outside.id, outside.results.person_reid) == ("outside", None)
    assert {error.code for error in outside.errors.values()} == {"invalid_request"}
    (box,) = only.boxes
    assert box.results.person_reid
    assert box.results.person_reid.embedding == inside.results.person_reid.embedding


async def test_what_is_final_is_not_asked_again_and_named(server: Server) -> None:
    async with AsyncClient(server.url) as client:
        with pytest.raises(EnrichmentError, match="400 invalid_image") as caught:
            await client.reid(b"no image")
        assert not caught.value.may_pass
        with pytest.raises(EnrichmentError, match="422 invalid_request: bbox") as caught:
            await client.reid(plain((1, 2, 3)), bbox=[0, 0, 0, 0])
        assert caught.value.details[0]["field"] == "bbox"
        with pytest.raises(EnrichmentError, match="500 internal") as caught:
            await client.reid(plain(fake.RAISES))
        assert str(caught.value.request_id) in server.log


async def test_bentomls_clients_give_the_same(server: Server) -> None:
    colours: list[fake.Colour] = [(i, 90, 255 - i) for i in range(12)]
    images = [encoded(plain(colour)) for colour in colours]
    assert [fake.colour_of(one) for one in await embeddings_by_bentoml(server.url, images)] == colours


def test_bentomls_synchronous_client_does_too(server: Server) -> None:
    assert fake.colour_of(embedding_by_bentoml(server.url, encoded(plain((1, 2, 3))))) == (1, 2, 3)


def test_as_a_program_it_says_what_is_in_the_pictures(server: Server, tmp_path: Path) -> None:
    picture = tmp_path / "yard.png"
    picture.write_bytes(encoded(marked((10, 10, 40, 40), (64, 48))))
    environment = os.environ | CLIENT | {"ENRICHMENT_LIGHT_URL": server.url}
    command = [sys.executable, "examples/backend_client.py", str(picture)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("yard.png: 1 people, threats: ['")


def test_the_command_reports_on_a_folder(server: Server, tmp_path: Path) -> None:
    (tmp_path / "yard.png").write_bytes(encoded(marked((10, 10, 40, 40), (64, 48))))
    (tmp_path / "torn.jpg").write_bytes(b"no image")
    command = [sys.executable, "-m", "enrichment_client.cli", "--url", server.url, str(tmp_path), "--json"]
    done = subprocess.run(command, env=os.environ | CLIENT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    torn, yard = (json.loads(line) for line in done.stdout.splitlines())
    assert torn["error"]["code"] == "invalid_image"
    assert yard["results"]["pose_estimator"]["num_people"] == 1


def test_the_command_prints_the_services_state(server: Server) -> None:
    command = [sys.executable, "-m", "enrichment_client.cli", server.url]
    done = subprocess.run(command, env=os.environ | CLIENT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"{server.url}: healthy, up for ")
    assert done.stdout.count("ready") == 5
