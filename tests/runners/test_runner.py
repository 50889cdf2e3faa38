from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from bentoml._internal.configuration.containers import BentoMLContainer

import models.store
import runners
from engines.device import Gpu
from engines.engine import Images
from models.catalogue import CATALOGUE, ModelName
from models.state import State
from runners import engine_choice
from runners.runner import Runner, _device_status
from settings import DEFAULT_FILE, load
from tasks.task import Item
from tests.serving import fake

NAMES = tuple(CATALOGUE)
SETTINGS = load(DEFAULT_FILE, {})


@pytest.fixture(autouse=True)
def fakes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setattr(models.store, "find", fake.find)
    monkeypatch.setattr(engine_choice, "load", fake.load)
    for variable in (fake.ABSENT, fake.UNLOADABLE, fake.DAMAGED, fake.SLOW):
        (tmp_path / variable).mkdir()
        monkeypatch.setenv(variable, str(tmp_path / variable))
    before = BentoMLContainer.config.get()
    yield
    BentoMLContainer.config.set(before)


def make() -> Runner:
    """A runner of all five models as BentoML's worker makes it, as soon as none of them is loading."""
    service = runners.compose(SETTINGS)["pose_estimator"]
    runner: Runner = service.inner()
    while any(status["state"] is State.LOADING for status in states(runner).values()):
        time.sleep(0.01)
    return runner


def states(runner: Runner) -> dict[ModelName, Any]:
    return {name: resident.status() for name, resident in runner._residency.models.items()}


def item(colour: fake.Colour, height: int = 256, width: int = 128) -> Item:
    return {"image": np.full((height, width, 3), colour, np.uint8)}


def colours(results: Sequence[Any]) -> list[Any]:
    return [result.get("error") or fake.colour_of(result["embedding"].tolist()) for result in results]


def test_each_item_gets_its_own_answer_in_its_own_place() -> None:
    runner = make()
    sent = [(i, 255 - i, 3 * i) for i in range(8)]
    assert colours(runner.infer("person_reid", [item(colour) for colour in sent])) == sent


@pytest.mark.parametrize("bad", [fake.RAISES, fake.DROPS, fake.ADDS])
@pytest.mark.parametrize("place", [0, 3, 7])
def test_an_item_that_breaks_the_engine_fails_alone(bad: fake.Colour, place: int) -> None:
    sent: list[fake.Colour] = [(i, 255 - i, 3 * i) for i in range(8)]
    sent[place] = bad
    expected: list[Any] = [*sent[:place], "internal", *sent[place + 1 :]]
    assert colours(make().infer("person_reid", [item(colour) for colour in sent])) == expected


def test_an_output_that_makes_no_sense_fails_alone() -> None:
    sent: list[fake.Colour] = [(1, 2, 3), fake.NOT_FINITE, (4, 5, 6), (0, 0, 0)]
    assert colours(make().infer("person_reid", [item(colour) for colour in sent])) == [
        (1, 2, 3),
        "internal",
        (4, 5, 6),
        (0, 0, 0),
    ]


def test_what_an_item_that_failed_is_told_holds_nothing_of_the_cause() -> None:
    (failure,) = make().infer("person_reid", [item(fake.RAISES)])
    assert failure == {"error": "internal", "message": "person_reid failed on this image"}


def test_items_of_different_shapes_share_a_call() -> None:
    items = [item((10, 20, 30), 28, 14), item((200, 200, 200), 14, 28), item((99, 99, 99), 28, 14)]
    results: list[Any] = make().infer("depth_estimator", items)
    assert [result["depth"].shape for result in results] == [(28, 14), (14, 28), (28, 14)]


def test_each_item_has_its_own_min_confidence() -> None:
    certainty = fake.score(100)
    items = [item((100, 1, 1), 64, 64) | {"min_confidence": limit} for limit in (certainty - 0.01, certainty + 0.01)]
    results: list[Any] = make().infer("pose_estimator", [Item(**each) for each in items])
    assert [len(result["scores"]) for result in results] == [1, 0]


def test_a_model_that_is_absent_fails_each_item_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / fake.ABSENT / "person_reid").touch()
    results: list[Any] = make().infer("person_reid", [item((1, 2, 3))] * 3)
    assert [result["error"] for result in results] == ["model_unavailable"] * 3
    assert "python -m models.import_models person_reid" in results[0]["message"]


def test_a_gpu_whose_memory_is_unknown_has_a_status() -> None:
    status = _device_status(Gpu(1, "GB10", "GPU-cccc", None, "580.95.05", "12.1"))
    assert status == {"name": "GB10", "index": 1, "memory_gb": None, "driver": "580.95.05"}


async def test_the_state_tells_the_process_and_its_models(tmp_path: Path) -> None:
    (tmp_path / fake.ABSENT / "person_reid").touch()
    (tmp_path / fake.UNLOADABLE / "pet_classifier").write_text("no such precision")
    (tmp_path / fake.DAMAGED / "depth_estimator").write_text("half a copy")
    status: dict[str, Any] = await make().state()
    assert status["pid"] == os.getpid()
    assert {name: model["state"].value for name, model in status["models"].items()} == {
        "pose_estimator": "ready",
        "threat_detector": "ready",
        "person_reid": "absent",
        "pet_classifier": "failed",
        "depth_estimator": "failed",
    }
    assert status["models"]["pet_classifier"]["detail"] == "no such precision"
    assert status["models"]["depth_estimator"]["detail"] == "half a copy"


async def test_a_heartbeat_loads_what_was_imported_meanwhile(tmp_path: Path) -> None:
    absent = tmp_path / fake.ABSENT / "person_reid"
    absent.touch()
    runner = make()
    assert (await runner.state())["models"]["person_reid"]["state"] is State.ABSENT
    absent.unlink()
    assert (await runner.state())["models"]["person_reid"]["state"] in (State.LOADING, State.READY)
    assert colours(runner.infer("person_reid", [item((1, 2, 3))])) == [(1, 2, 3)]


def test_every_batch_size_is_warm_before_the_model_is_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, ...]] = []

    class Counting(fake.FakeEngine):
        def run(self, images: Images, min_confidence: float = 0, **_: object) -> tuple[fake.F32, ...]:
            seen.append(np.shape(images))
            return super().run(images)

    monkeypatch.setattr(engine_choice, "load", lambda stored, *_: Counting(stored.card.name))
    make()
    for size in (1, 2, 4, 8):
        assert (size, 640, 640, 3) in seen
        assert (size, 256, 128, 3) in seen
        assert (size, 224, 224, 3) in seen
    for height, width in ((384, 640), (480, 640), (640, 480), (640, 384)):
        assert (1, height, width, 3) in seen
    assert {shape[0] for shape in seen if shape[1:3] == (448, 602)} == {1, 2, 4}  # depth's largest


def test_a_detector_is_asked_for_what_the_least_demanding_item_of_a_batch_wants(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[float] = []

    class Asked(fake.FakeEngine):
        def run(self, images: Images, min_confidence: float = 0, **_: object) -> tuple[fake.F32, ...]:
            asked.append(min_confidence)
            return super().run(images)

    monkeypatch.setattr(engine_choice, "load", lambda stored, *_: Asked(stored.card.name))
    runner = make()
    configured = SETTINGS.models.threat_detector.min_confidence
    plain, bold, careful = item((1, 2, 3)), item((1, 2, 3)), item((1, 2, 3))
    bold["min_confidence"], careful["min_confidence"] = 0.05, 0.9
    for name, items, expected in (
        ("threat_detector", [plain], configured),
        ("pose_estimator", [careful, plain], SETTINGS.models.pose_estimator.min_confidence),
        ("threat_detector", [careful], 0.9),
        ("threat_detector", [careful, bold, plain], 0.05),
        ("person_reid", [plain], 0),
    ):
        asked.clear()
        runner.infer(cast(ModelName, name), items)
        assert set(asked) == {expected}, name


def test_a_model_that_fails_its_warm_up_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(fake.FakeEngine):
        def run(self, images: Images, min_confidence: float = 0, **_: object) -> tuple[fake.F32, ...]:
            if len(images) == 4:
                raise MemoryError("not for four")
            return super().run(images)

    monkeypatch.setattr(engine_choice, "load", lambda stored, *_: Broken(stored.card.name))
    assert {status["state"] for status in states(make()).values()} == {State.FAILED}
