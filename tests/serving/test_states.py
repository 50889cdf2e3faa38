"""Each model goes through every state of DESIGN's diagram, and /health and the gauge show it.

Over the fake engine and the fake device layer: two cards, a CUDA context, TensorRT and its exporter are made up.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from models.catalogue import CATALOGUE, ModelName
from tests.serving import fake, fake_gpu
from tests.serving.pictures import ask, check_error, encoded, plain
from tests.serving.server import Server, configuration, serving
from tests.serving.test_metrics import samples

pytestmark = pytest.mark.serve

NAMES = tuple(CATALOGUE)
YOLO: tuple[ModelName, ...] = ("pose_estimator", "threat_detector")
ALL_MODELS = pytest.mark.parametrize("name", NAMES)
PNG = encoded(plain((1, 2, 3)))
# /health is as old as the last heartbeat: what is to be seen has to last longer than a second.
LASTS_S = 2.0
IDLE_S = 5.0  # longer, so that who is ready is seen before it leaves
NOTES = 5  # so often a state is seen before the next step ends it


class Watch:
    """Notes each state that /health shows of each model, and the gauge that stood beside it for the longer part."""

    def __init__(self, url: str) -> None:
        self.states: dict[ModelName, list[str]] = {name: [] for name in NAMES}
        self.notes: dict[ModelName, int] = {}  # of the last of these
        self.gauges: dict[tuple[ModelName, str], list[float]] = {}
        self.in_state: dict[tuple[ModelName, str], list[set[str]]] = {}
        self.loaded: dict[tuple[ModelName, str], set[bool]] = {}
        self.engines: dict[tuple[ModelName, str], set[str | None]] = {}
        self.fetch = httpx.Client(base_url=url, timeout=10)
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def close(self) -> None:
        self.ended.set()
        self.thread.join()

    def _run(self) -> None:
        while not self.ended.is_set():
            body = self.fetch.get("/health").json()
            found = samples(self.fetch, "enrichment_light_model_")
            gauge = {dict(labels)["model"]: value for labels, value in found["enrichment_light_model_loaded"].items()}
            in_states = {
                (dict(labels)["model"], dict(labels)["state"])
                for labels, value in found["enrichment_light_model_state"].items()
                if value == 1
            }
            if self.fetch.get("/health").json()["models"] == body["models"]:  # no heartbeat in between
                for name in NAMES:
                    self._note(name, body, gauge[name])
                    self.in_state.setdefault((name, body["models"][name]["state"]), []).append(
                        {state for model, state in in_states if model == name}
                    )
            time.sleep(0.05)

    def _note(self, name: ModelName, body: dict[str, Any], gauge: float) -> None:
        model = body["models"][name]
        state = model["state"]
        if self.states[name][-1:] != [state]:
            self.states[name].append(state)
            self.notes[name] = 0
        self.notes[name] += 1
        self.gauges.setdefault((name, state), []).append(gauge)
        self.loaded.setdefault((name, state), set()).add(body["models_loaded"][name])
        self.engines.setdefault((name, state), set()).add(model["engine"])


def drive(server: Server, watch: Watch, folder: Path, name: ModelName) -> None:
    """Lead one model through its life."""

    def reaches(state: str, notes: int = NOTES) -> None:
        seen = watch.states[name]
        server.wait(lambda: seen[-1:] == [state] and watch.notes[name] >= notes, f"{name} {state}", 200)

    def request() -> httpx.Response:
        return httpx.post(f"{server.url}{route}", content=PNG, headers={"content-type": "image/png"}, timeout=60)

    def note(variable: str, text: str | None) -> None:
        path = folder / variable / name
        path.unlink() if text is None else path.write_text(text)

    route = CATALOGUE[name].route
    reaches("absent")
    check_error(request(), 503, "model_unavailable")
    note(fake.ABSENT, None)  # imported meanwhile
    reaches("unloaded")
    assert request().status_code == 200
    if name in YOLO:
        # On torch. So often that it is not idle before its turn for the loader comes.
        server.wait(
            lambda: request().status_code == 200 and server.model(name)["state"] == "building_engine", "building", 200
        )
        server.wait(lambda: request().status_code == 200 and server.model(name)["state"] == "ready", "built", 200)
    reaches("ready", 1)
    reaches("unloaded")  # idle
    assert request().status_code == 200  # and comes back
    reaches("ready", 1)
    reaches("unloaded")
    note(fake.UNLOADABLE, "its graph is of another version")
    for engine in (folder / "tensorrt").glob(f"{name}-*"):
        engine.unlink()
    check_error(request(), 503, "model_unavailable")
    reaches("failed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("states")
    for variable in (fake.ABSENT, fake.UNLOADABLE, fake.SLOW, fake.MEMORY):
        (folder / variable).mkdir()
    for name in NAMES:
        (folder / fake.ABSENT / name).touch()
        (folder / fake.SLOW / name).write_text(str(LASTS_S))
        (folder / fake.MEMORY / name).write_text("50")
    (folder / "weights").mkdir()
    for checkpoint in ("yolov8n-pose.pt", "best.pt"):
        (folder / "weights" / checkpoint).write_text(f"slow {LASTS_S}")
    return folder


def environment_of(folder: Path) -> dict[str, str]:
    notes = {name: str(folder / name) for name in (fake.ABSENT, fake.UNLOADABLE, fake.SLOW, fake.MEMORY)}
    return notes | {fake.FOLDER: str(folder), fake_gpu.WANTED: "1", "TENSORRT_CACHE": str(folder / "tensorrt")}


@pytest.fixture(scope="module")
def lives(folder: Path) -> Iterator[tuple[Watch, str]]:
    """The states of all models through their lives, and the server's log."""
    ttl = {f"models.{name}.idle_ttl_s": IDLE_S for name in NAMES}
    changes = {"preload": [], **ttl}
    environment = environment_of(folder) | {"BENTOML_CONFIG": str(configuration(folder, changes))}
    server = Server(folder, environment, "tests.serving.fake_service:EnrichmentLight", Path.cwd())
    try:
        server.wait(lambda: "absent" in server.log, "started")
        server.wait(lambda: all(server.model(name)["state"] == "absent" for name in NAMES), "heard of", 30)
        watch = Watch(server.url)
        failures: list[BaseException] = []

        def run(name: ModelName) -> None:
            try:
                drive(server, watch, folder, name)
            except BaseException as error:
                failures.append(error)
                raise

        threads = [threading.Thread(target=run, args=(name,)) for name in NAMES]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        watch.close()
        assert not failures, failures
        yield watch, server.log
    finally:
        server.stop()


@ALL_MODELS
def test_every_state_is_reached_in_its_order(lives: tuple[Watch, str], name: ModelName) -> None:
    watch, _ = lives
    building = " building_engine" if name in YOLO else ""
    # What comes out of the engine cache may be there before the next heartbeat, unless it has to queue for the loader.
    again = "( loading)?" if name in YOLO else " loading"
    life = f"absent unloaded loading{building} ready unloaded{again} ready unloaded loading failed"
    assert re.fullmatch(life, " ".join(watch.states[name]))


@ALL_MODELS
def test_models_loaded_and_the_gauges_agree_with_the_state(lives: tuple[Watch, str], name: ModelName) -> None:
    watch, _ = lives
    for state in set(watch.states[name]):
        serves = state in ("ready", "building_engine")
        assert watch.loaded[name, state] == {serves}
        gauges = watch.gauges[name, state]
        # The gauge is written a moment after the heartbeat that /health shows.
        assert sorted(gauges)[len(gauges) // 2] == (1.0 if serves else 0.0), (state, gauges)
        shown = watch.in_state[name, state]
        assert shown.count({state}) > len(shown) / 2, (state, shown)


@pytest.mark.parametrize("name", YOLO)
def test_torch_serves_while_tensorrt_is_built(lives: tuple[Watch, str], name: ModelName) -> None:
    watch, log = lives
    assert watch.engines[name, "building_engine"] == {"torch"}
    assert "tensorrt" in watch.engines[name, "ready"]
    assert f"TensorRT build of {name} starts" in log
    assert f"TensorRT build of {name} succeeded after" in log


@pytest.mark.parametrize("name", NAMES[2:])
def test_the_others_stay_on_torch(lives: tuple[Watch, str], name: ModelName) -> None:
    watch, _ = lives
    assert watch.engines[name, "ready"] == {"torch"}


@pytest.mark.slow
def test_a_model_for_the_heavy_service_is_disabled_and_never_loaded(folder: Path, tmp_path: Path) -> None:
    heavy = {f"ENRICHMENT_{short}_SERVICE": "heavy" for short in ("POSE", "THREAT", "REID", "PET")}
    nothing_absent = tmp_path / "absent"
    nothing_absent.mkdir()
    changed = heavy | {fake.ABSENT: str(nothing_absent), fake.UNLOADABLE: str(nothing_absent)}
    with serving(tmp_path, environment_of(folder) | changed) as server:
        health = server.health().json()
        assert {health["models"][name]["state"] for name in NAMES[:4]} == {"disabled"}
        assert health["models"]["depth_estimator"]["state"] == "ready"
        found = samples(httpx.Client(base_url=server.url), "enrichment_light_model_loaded")
        values = {dict(labels)["model"]: value for labels, value in found["enrichment_light_model_loaded"].items()}
        assert values == dict.fromkeys(NAMES, 0.0) | {"depth_estimator": 1.0}
        with httpx.Client(base_url=server.url) as client:
            for name in NAMES[:4]:
                check_error(ask(client, CATALOGUE[name].route, PNG), 421, "model_not_assigned")
        assert not [line for line in server.log.splitlines() if "is ready on" in line and "depth_estimator" not in line]
        # On the made-up machine with two cards it is GPU 1 that was taken, and everybody is told.
        device = {"name": "NVIDIA RTX A400", "index": 1, "memory_gb": 4.3, "driver": "580.95.05"}
        assert health["runners"][0]["device"] == device
        assert health["gpu_available"] is True
        assert health["gpu_memory_used_gb"] == pytest.approx(0.34)  # 290 MB of context, 50 of the model
        assert health["runners"][0]["memory"]["budget_mb"] == 1490  # of auto: 1200 beside the context
        assert "computing on GPU 1: NVIDIA RTX A400, 4.3 GB, driver 580.95.05" in server.log
