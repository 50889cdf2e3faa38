"""The delivered service with the real weights and pictures of ../shared, over HTTP."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
from PIL import Image, ImageOps

from models.catalogue import CATALOGUE
from tests.serving.server import REAL, SMALL_BATCHES, Server, configuration, serving

pytestmark = [pytest.mark.weights, pytest.mark.serve]

ROUTES = ("/pose-analyze", "/threat-detect", "/person-reid", "/pet-classify")
# What each picture plainly shows, by IMAGES.md and by looking at them.
POSTURES = {
    "pose_standing_arms_raised.jpg": ("reaching_up", ["hands_raised"]),
    "pose_sitting.jpg": ("sitting", []),
    "pose_bent_forward.jpg": ("bending", []),
    "pose_lying.jpg": ("lying_down", ["lying_down"]),
}


@pytest.fixture(scope="module")
def real(model_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("real")
    # 32 requests at once must all be admitted, on a machine that other tests keep busy, too.
    patient = {"BENTOML_CONFIG": str(configuration(folder, {"limits.request_timeout_s": 300}))}
    with serving(folder, SMALL_BATCHES | patient | {"BENTOML_HOME": str(model_store)}, REAL) as running:
        yield running


@pytest.fixture(scope="module")
def client(real: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=real.url, timeout=300) as open_client:
        yield open_client


@pytest.fixture(scope="module")
def pictures(shared: Path) -> dict[str, bytes]:
    """The scenes and 18 crops of people: 32 different, small enough to send at once."""
    scenes = sorted(path for path in (shared / "images").glob("*.*") if path.suffix in {".jpg", ".png", ".webp"})
    crops = sorted((shared / "images" / "reid").iterdir())
    small = [path for path in scenes + crops if path.stat().st_size < 300_000]
    return {path.name: path.read_bytes() for path in small[:32]}


def ask(client: httpx.Client, route: str, picture: bytes, **fields: str) -> dict[str, Any]:
    response = client.post(route, files={"image": picture}, data=fields)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    answer.pop("inference_time_ms")
    return answer


def encoded(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.usefixtures("shared")
def test_all_five_are_ready_and_no_process_holds_torch(real: Server) -> None:
    health = real.health().json()
    assert health["status"] == "healthy"
    assert all(health["models_loaded"].values())
    assert health["models"]["pose_estimator"]["weights"] == "yolov8n-pose@8d23df921066"
    assert {health["models"][name]["engine"] for name in CATALOGUE} == {"openvino"}
    family = psutil.Process(real.process.pid)
    mapped = [area.path for process in [family, *family.children(recursive=True)] for area in process.memory_maps()]
    assert any("libopenvino" in path for path in mapped)
    assert not [path for path in mapped if "libtorch" in path]


@pytest.mark.parametrize("name", POSTURES)
@pytest.mark.parametrize("scale", [1.0, 0.5, 0.25])
@pytest.mark.parametrize("mirrored", [False, True])
def test_postures_at_every_scale_and_mirrored(
    client: httpx.Client, shared: Path, name: str, scale: float, mirrored: bool
) -> None:
    image: Image.Image = Image.open(shared / "images" / name)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BOX)
    answer = ask(client, "/pose-analyze", encoded(ImageOps.mirror(image) if mirrored else image))
    assert (answer["posture"], answer["alerts"]) == POSTURES[name]


def test_pedestrians_raise_no_alert(client: httpx.Client, shared: Path) -> None:
    for name in ("bus.jpg", "street_crowd.jpg", "street_mot17_02.jpg"):
        answer = ask(client, "/pose-analyze", (shared / "images" / name).read_bytes())
        assert answer["num_people"] >= 4
        assert [person["alerts"] for person in answer["persons"]] == [[]] * answer["num_people"]
        prominence = [one["confidence"] * one["bbox"]["width"] * one["bbox"]["height"] for one in answer["persons"]]
        assert prominence == sorted(prominence, reverse=True)
        assert answer["keypoints"] == answer["persons"][0]["keypoints"]


def test_knives_are_found_and_nothing_else_is_a_threat(client: httpx.Client, pictures: dict[str, bytes]) -> None:
    threats = {name: ask(client, "/threat-detect", picture) for name, picture in pictures.items()}
    assert {name for name, answer in threats.items() if answer["is_threat"]} == {"knife_board.jpg"}
    (knife,) = threats["knife_board.jpg"]["threats_detected"]
    assert (knife["class"], knife["severity"]) == ("knife", "high")
    assert threats["knife_board.jpg"]["max_confidence"] == knife["confidence"] > 0.7


def test_playing_children_are_no_pet(client: httpx.Client, shared: Path) -> None:
    """The classifier calls them a dog with probability 1.000; the people in the picture speak against it."""
    answer = ask(client, "/pet-classify", (shared / "images" / "children_football.jpg").read_bytes())
    assert answer["confidence"] > 0.999
    assert (answer["person_in_view"], answer["is_household_pet"]) == (True, False)
    cat = ask(client, "/pet-classify", (shared / "images" / "cat_kaggle_1.jpg").read_bytes())
    assert (cat["pet_type"], cat["person_in_view"], cat["is_household_pet"]) == ("cat", False, True)


def test_a_box_moves_nothing(client: httpx.Client, shared: Path) -> None:
    """A person seen through a box has the coordinates that the whole picture gives."""
    picture = (shared / "images" / "bus.jpg").read_bytes()
    whole = ask(client, "/pose-analyze", picture)["persons"][0]
    box = whole["bbox"]
    corners = [box["x"] - 20, box["y"] - 20, box["x"] + box["width"] + 20, box["y"] + box["height"] + 20]
    seen = ask(client, "/pose-analyze", picture, bbox=",".join(map(str, corners)))["persons"][0]
    for joint in seen["keypoints"]:
        same = [other for other in whole["keypoints"] if other["name"] == joint["name"]]
        assert all(abs(other["x"] - joint["x"]) < 25 and abs(other["y"] - joint["y"]) < 25 for other in same)
    assert len(seen["keypoints"]) >= 12


def test_depth_of_a_box_is_that_part_of_the_scene(client: httpx.Client, shared: Path) -> None:
    picture = (shared / "images" / "bus.jpg").read_bytes()
    left, top, right, bottom = 100, 200, 500, 900
    whole, part = (ask(client, "/depth-estimate", picture, **box) for box in ({}, {"bbox": "100,200,500,900"}))
    maps = [np.asarray(Image.open(io.BytesIO(base64.b64decode(one["depth_map_base64"])))) for one in (whole, part)]
    assert maps[0].shape == (1080, 810)
    assert maps[1].shape == (bottom - top, right - left)
    assert np.abs(maps[0][top:bottom, left:right].astype(int) - maps[1]).max() <= 1
    for answer, grey in zip((whole, part), maps, strict=True):
        assert answer["min_depth"] == pytest.approx(grey.min() / 255, abs=0.003)
        assert answer["max_depth"] == pytest.approx(grey.max() / 255, abs=0.003)
        assert answer["mean_depth"] == pytest.approx(grey.mean() / 255, abs=0.003)


@pytest.mark.parametrize("route", ROUTES)
def test_concurrent_answers_are_the_sequential_ones(
    route: str, client: httpx.Client, pictures: dict[str, bytes]
) -> None:
    alone = {name: ask(client, route, picture) for name, picture in pictures.items()}
    with ThreadPoolExecutor(32) as pool:
        answers = pool.map(lambda name: ask(client, route, pictures[name]), pictures)
        together = dict(zip(pictures, answers, strict=True))
    for name, answer in alone.items():
        assert_close(answer, together[name])


def test_one_bad_picture_among_32(client: httpx.Client, pictures: dict[str, bytes]) -> None:
    bodies = list(pictures.values())
    bodies[7] = bodies[7][: len(bodies[7]) // 2]
    with ThreadPoolExecutor(32) as pool:
        statuses = list(pool.map(lambda body: client.post("/pose-analyze", files={"image": body}).status_code, bodies))
    assert statuses[7] == 400
    assert statuses[:7] + statuses[8:] == [200] * 31


def assert_close(one: Any, other: Any) -> None:
    """Equal but for what another batch size changes in the last digits (bf16 has three)."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_close(one[key], other[key])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for left, right in zip(one, other, strict=True):
            assert_close(left, right)
    elif isinstance(one, float):
        assert one == pytest.approx(other, abs=0.02, rel=0.002)
    else:
        assert one == other
