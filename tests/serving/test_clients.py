"""BentoML's own Python clients, as its users expect them to work."""

from __future__ import annotations

import bentoml
import pytest

from tests.serving.fake import colour_of
from tests.serving.pictures import base64_of, plain
from tests.serving.server import Server

pytestmark = pytest.mark.serve

IMAGE = base64_of(plain((10, 200, 30)))


def test_the_synchronous_client_has_the_routes_as_methods(server: Server) -> None:
    with bentoml.SyncHTTPClient(server.url) as client:
        assert client.is_ready()
        assert colour_of(client.person_reid(image_base64=IMAGE)["embedding"]) == (10, 200, 30)
        assert client.pose_analyze(image=IMAGE, bbox=[0, 0, 30, 30], min_confidence=0.1)["num_people"] == 1
        assert client.threat_detect(image_base64=IMAGE)["is_threat"] is True
        assert client.pet_classify(image_base64=IMAGE)["pet_type"] == "cat"
        assert client.depth_estimate(image_base64=IMAGE)["max_depth"] == 0


async def test_the_asynchronous_client_has_the_routes_as_methods(server: Server) -> None:
    async with bentoml.AsyncHTTPClient(server.url) as client:
        assert await client.is_ready()
        assert colour_of((await client.person_reid(image_base64=IMAGE))["embedding"]) == (10, 200, 30)
        assert (await client.depth_estimate(image=IMAGE, bbox=[0, 0, 9, 9]))["mean_depth"] == 0


def test_a_mistake_is_raised_with_its_status(server: Server) -> None:
    with bentoml.SyncHTTPClient(server.url) as client, pytest.raises(bentoml.exceptions.BentoMLException) as caught:
        client.person_reid(image_base64="not base64!")
    assert caught.value.error_code == 400
    assert "invalid_base64" in str(caught.value)
