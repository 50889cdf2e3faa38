from __future__ import annotations

import asyncio
import io
import itertools
import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from PIL import Image

from api import steps
from api.answering import Activity, Answering
from api.errors import ApiError
from api.picture_memory import MemoryBudget
from api.recent import Latency
from api.request import Received
from engines.deadline import Deadline
from models.catalogue import CATALOGUE, ModelName
from tasks.task import Item
from tests.api.answered import Runner, answering_of
from tests.serving.fake import sleeper
from tests.serving.pictures import encoded, plain

NOTHING: Latency = {"p50": None, "p95": None, "samples": 0}


def timed(result: Any, began: int, batch: int) -> Any:
    """A result with its times, as the runner gives them."""
    times = dict.fromkeys(("taken", "loaded", "forwarded", "interpreted"), began)
    return result if "error" in result else {**result, "timing": {**times, "batch": batch, "engine": "openvino"}}


async def picture_of(
    answering: Answering, route: str, *, accept: str = "", form: str = "PNG", **query: str
) -> tuple[str, Image.Image, dict[str, Any]]:
    """The media type, the picture and the answer in its comment."""
    received = Received("", encoded(plain((9, 8, 7), (60, 40)), form), query, accept=accept)
    body = await answering.answer(route, received, Deadline.after(30))
    image = Image.open(io.BytesIO(body.data))
    comment = image.info["Comment" if image.format == "PNG" else "comment"]
    return body.media_type, image, json.loads(comment)


async def ask(
    answering: Answering, route: str, colour: tuple[int, int, int] = (9, 8, 7), *, seconds: float = 30
) -> dict[str, Any]:
    received = Received("image/png", encoded(plain(colour, (40, 60))), {})
    body = await answering.answer(route, received, Deadline.after(seconds))
    answer: dict[str, Any] = json.loads(body.data)
    return answer


@pytest.mark.parametrize(("people", "household"), [(0, True), (2, False)])
async def test_a_household_pet_is_one_where_somebody_looked_and_saw_nobody(people: int, household: bool) -> None:
    runner = Runner(people=people)
    answer = await ask(answering_of(runner), "/pet-classify")
    assert (answer["is_household_pet"], answer["person_in_view"]) == (household, people > 0)
    assert runner.calls == [("pet_classifier", 1), ("pose_estimator", 1)]


@pytest.mark.parametrize("pose", ["failing", "raising", "slow"])
async def test_where_nobody_could_look_it_is_none_and_the_request_is_answered(
    pose: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        answer = await ask(answering_of(Runner(pose=pose)), "/pet-classify", seconds=1)
    assert (answer["pet_type"], answer["is_household_pet"], answer["person_in_view"]) == ("dog", False, None)
    assert "pose_estimator failed as the second look of pet_classifier" in caplog.text
    assert ("Traceback" in caplog.text) is (pose == "raising")


async def test_where_pose_is_served_elsewhere_nobody_looks() -> None:
    answer = await ask(answering_of(Runner(), without=["pose_estimator"]), "/pet-classify")
    assert (answer["is_household_pet"], answer["person_in_view"]) == (False, None)


async def test_what_queues_is_computed_together_and_each_gets_its_own() -> None:
    runner = Runner()
    runner.hold.clear()
    answering = answering_of(runner)
    colours = [(number, 1, 1) for number in range(1, 16)]
    colours[7] = (255, 0, 0)
    tasks = [asyncio.create_task(ask(answering, "/person-reid", colour)) for colour in colours]
    await asyncio.sleep(0.5)
    runner.hold.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(answers[7], ApiError)
    assert answers[7].message == "this one"
    found = [answer["embedding"][0] for answer in answers if isinstance(answer, dict)]
    assert found == [number for number in range(1, 16) if number != 8]
    assert max(size for _, size in runner.calls) == 4
    assert sum(size for _, size in runner.calls) == 15


async def test_a_bad_image_fails_alone_in_its_group() -> None:
    runner = Runner()
    answering = answering_of(runner)
    good = [asyncio.create_task(ask(answering, "/person-reid", (number, 1, 1))) for number in range(1, 9)]
    bad = asyncio.create_task(
        answering.answer("/person-reid", Received("image/png", b"\x89PNG\r\n\x1a\nno", {}), Deadline.after(30))
    )
    assert [answer["embedding"][0] for answer in await asyncio.gather(*good)] == list(range(1, 9))
    with pytest.raises(ApiError) as caught:
        await bad
    assert caught.value.code == "invalid_image"


async def test_who_hangs_up_while_waiting_is_not_computed() -> None:
    runner = Runner()
    runner.hold.clear()
    answering = answering_of(runner)
    tasks = [asyncio.create_task(ask(answering, "/depth-estimate")) for _ in range(8)]
    await asyncio.sleep(0.3)
    async with asyncio.timeout(10):  # until all that were let in compute
        while len(runner.calls) < answering._queues["depth_estimator"].state["in_progress"]:
            await asyncio.sleep(0.01)
    begun = len(runner.calls)
    assert begun < 8
    for task in tasks[begun:]:
        task.cancel()
    await asyncio.sleep(0)
    runner.hold.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert len(runner.calls) == begun


async def test_a_threat_leaves_a_line_for_audits_without_the_picture(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="bentoml.enrichment.audit"):
        answer = await ask(answering_of(Runner()), "/threat-detect", sleeper(0))
    assert answer["is_threat"]
    (record,) = [record for record in caplog.records if record.name == "bentoml.enrichment.audit"]
    assert "knife (high, 0.90) at [" in record.getMessage()


async def test_items_carry_an_id_each_by_which_the_engines_log_names_them() -> None:
    runner = Runner()
    answering = answering_of(runner)
    for _ in range(2):
        await ask(answering, "/depth-estimate")
    assert len({item["id"] for item in runner.items}) == 2


async def test_a_model_of_another_service_is_not_assigned() -> None:
    answering = answering_of(Runner(), without=["pet_classifier"])
    with pytest.raises(ApiError, match="pet_classifier is served by the heavy service"):
        await ask(answering, "/pet-classify")


async def test_a_models_activity_is_that_of_its_answered_requests() -> None:
    answering = answering_of(Runner(), without=["pet_classifier"])
    assert answering.activity("pet_classifier") is None
    for route in ("/depth-estimate", "/depth-estimate", "/pose-analyze"):
        await ask(answering, route)
    with pytest.raises(ApiError):
        await answering.answer("/pose-analyze", Received("image/png", b"no image", {}), Deadline.after(30))
    found = {name: answering.activity(name) for name in CATALOGUE}
    samples = {name: activity.latency["samples"] for name, activity in found.items() if activity}
    assert samples == {"pose_estimator": 1, "threat_detector": 0, "person_reid": 0, "depth_estimator": 2}
    assert found["person_reid"] == Activity({"waiting": 0, "in_progress": 0, "expected_ms": None}, NOTHING)
    depth = found["depth_estimator"]
    assert depth is not None
    assert depth.latency["p50"] is not None
    assert depth.queue["expected_ms"] is not None


async def test_the_batches_of_embedded_engines_are_counted_a_second_look_too(monkeypatch: pytest.MonkeyPatch) -> None:
    runner = Runner()
    began = itertools.count()
    infer = runner.infer

    def with_times(name: ModelName, items: Sequence[Item], **rest: Any) -> Sequence[Any]:
        now = next(began)
        return [timed(result, now, len(items)) for result in infer(name, items, **rest)]

    monkeypatch.setattr(runner, "infer", with_times)
    answering = answering_of(runner)
    link = answering.link("person_reid")
    runner.hold.clear()
    tasks = [asyncio.create_task(ask(answering, "/person-reid", (number, 1, 1))) for number in range(15)]
    await asyncio.sleep(0.5)
    runner.hold.set()
    await asyncio.gather(*tasks, ask(answering, "/pet-classify"))
    assert sum(size * count for size, count in link.batches["person_reid"].sizes.items()) == 15
    assert max(link.batches["person_reid"].sizes) == 4
    assert (link.batches["pet_classifier"].sizes, link.batches["pose_estimator"].sizes) == ({1: 1}, {1: 1})


@pytest.mark.parametrize("route", ["/pose-analyze", "/threat-detect", "/pet-classify"])
async def test_a_picture_holds_the_answer(route: str) -> None:
    answering = answering_of(Runner())
    for accept, media_type in (("", "image/jpeg"), ("image/png", "image/png")):
        kind, image, answer = await picture_of(answering, route, render="overlay", accept=accept)
        assert (kind, image.size) == (media_type, (60, 40))
        assert answer.keys() == (await ask(answering, route)).keys()
    kind, image, _ = await picture_of(answering, route, accept="image/png")
    assert (kind, image.size) == ("image/png", (60, 40))
    drawn = (np.asarray(image) != (9, 8, 7)).any()
    assert drawn == (route != "/pose-analyze")  # nobody is there


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"])
async def test_a_file_of_every_format_is_drawn_on(form: str) -> None:
    _, image, answer = await picture_of(answering_of(Runner()), "/threat-detect", render="overlay", form=form)
    assert image.size == (60, 40)
    assert answer["is_threat"]


async def test_a_pet_is_drawn_after_the_second_look() -> None:
    _, _, answer = await picture_of(answering_of(Runner(people=2)), "/pet-classify", render="overlay")
    assert (answer["person_in_view"], answer["is_household_pet"]) == (True, False)


@pytest.mark.parametrize("route", ["/person-reid", "/depth-estimate", "/object-distance"])
async def test_a_route_without_pictures_says_which_have_them(route: str) -> None:
    runner = Runner()
    with pytest.raises(ApiError, match="/pose-analyze, /threat-detect, /pet-classify") as caught:
        await picture_of(answering_of(runner), route, render="overlay", bbox="5,5,50,30")
    assert (caught.value.status, runner.calls) == (422, [])


async def test_a_header_alone_is_no_reason_to_refuse() -> None:
    received = Received("image/png", encoded(plain((9, 8, 7))), {}, accept="image/jpeg")
    body = await answering_of(Runner()).answer("/person-reid", received, Deadline.after(30))
    assert body.media_type == "application/json"


async def test_no_memory_is_held_between_decoding_and_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[int] = []
    during: list[int] = []

    class Budget(MemoryBudget):
        @contextmanager
        def hold(self, amount: int, deadline: Deadline) -> Iterator[None]:
            held.append(amount)
            with super().hold(amount, deadline):
                yield
            held.append(-amount)

    class Watching(Runner):
        def infer(self, *args: Any, **kwargs: Any) -> Sequence[Any]:
            during.append(sum(held))
            return super().infer(*args, **kwargs)

    monkeypatch.setattr(steps, "MemoryBudget", Budget)
    await picture_of(answering_of(Watching()), "/threat-detect", render="overlay")
    assert during == [0]
    assert len(held) == 4
    assert held[2] >= held[0] + 13 * 60 * 40
    assert sum(held) == 0


@pytest.mark.parametrize("name", ["png8", "png16", "npy"])
async def test_a_depth_map_is_a_file_of_the_wanted_form(name: str) -> None:
    received = Received("image/png", encoded(plain((9, 8, 7), (60, 40))), {"format": name, "bbox": "10,10,40,30"})
    body = await answering_of(Runner()).answer("/depth-estimate", received, Deadline.after(30))
    if name == "npy":
        assert body.media_type == "application/x-npy"
        assert np.load(io.BytesIO(body.data)).shape == (20, 30)
    else:
        assert body.media_type == "image/png"
        assert Image.open(io.BytesIO(body.data)).size == (30, 20)
