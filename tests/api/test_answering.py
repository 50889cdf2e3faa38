from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest

from api.answering import Answering
from api.errors import ApiError
from api.request import Received
from engines.deadline import Deadline
from tests.api.answered import Runner, answering_of
from tests.serving.fake import sleeper
from tests.serving.pictures import encoded, plain


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
