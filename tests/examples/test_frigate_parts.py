"""The parts of the Frigate bridge, without a broker."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, cast

import pytest

from enrichment_client.answers import Enrichment
from examples.frigate import bridge
from tests.examples.stand_ins import message, shown
from tests.serving.pictures import encoded, plain


def events(*names: str) -> Iterator[bridge.Event]:
    for name in names:
        camera, kind, event = name.split()
        yield bridge.Event.model_validate(message(camera, event, kind))


def test_the_latest_event_of_a_camera_wins_in_its_place() -> None:
    waiting = bridge.Waiting()
    for event in events("door new 1", "yard new 2", "door update 1", "gate new 3", "door end 4"):
        waiting.put(event)
    got = [waiting.get() for _ in range(4)]
    assert [(event.after.id, event.type) for event in got if event] == [
        ("1", "update"),
        ("2", "new"),
        ("3", "new"),
        ("4", "end"),
    ]
    assert (waiting.is_over("1"), waiting.is_over("4")) == (False, True)


def test_lost_messages_are_told_before_the_next_event() -> None:
    waiting = bridge.Waiting()
    waiting.put(next(events("door new 1")))
    waiting.lose()
    waiting.lose()
    assert waiting.get() is None
    event = waiting.get()
    assert event is not None
    assert event.after.id == "1"


def state(event: str, threats: list[str] | None) -> dict[str, Any]:
    return {"event": event, "threat": None if threats is None else bool(threats), "threats": threats or []}


def test_a_camera_shows_its_newest_event_and_every_threat_that_runs() -> None:
    assert bridge.of_camera([]) == {}
    assert bridge.of_camera([state("1", ["Gun"]), state("2", [])]) == state("2", ["Gun"])
    assert bridge.of_camera([state("1", ["knife", "Gun"]), state("2", ["Gun"])]) == state("2", ["knife", "Gun"])
    assert bridge.of_camera([state("1", []), state("2", None)]) == state("2", [])
    assert bridge.of_camera([state("1", None)]) == state("1", None)


def test_an_end_that_was_dropped_ends_its_event_with_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    published: dict[str, Any] = {}
    one = bridge.Bridge(bridge.DEFAULTS, cast(Any, None))
    monkeypatch.setattr(one, "_publish", published.__setitem__)
    monkeypatch.setattr(one, "_enrich", lambda _: None)
    seen = state("1", ["Gun"]) | {"active": True}
    one._running["yard"], one._states["yard"] = {"1": seen}, seen
    for event in events(*(f"camera{number} new {number + 2}" for number in range(bridge.LIMIT)), "yard end 1"):
        one._waiting.put(event)
    first = one._waiting.get()
    assert first is not None
    assert first.after.camera == "camera0"
    one._handle(first)
    assert published == {"yard": seen | {"active": False}}


def test_what_waits_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    waiting = bridge.Waiting()
    for event in events(*(f"camera{number} end {number}" for number in range(11 * bridge.LIMIT))):
        waiting.put(event)
    waiting.put(next(events("camera0 update 0")))
    assert len(caplog.records) == 10 * bridge.LIMIT
    first = waiting.get()
    assert first is not None
    assert first.type == "update"
    assert not waiting.is_over("0")


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"exif": b"Exif\0\0" + b"x" * 5000}, {"quality": 100}])
@pytest.mark.parametrize("size", [(1, 1), (640, 480), (1, 3000), (4001, 17)])
def test_the_size_of_a_jpeg_is_read(size: tuple[int, int], options: dict[str, Any]) -> None:
    assert bridge.jpeg_size(encoded(plain((9, 9, 9), size), "JPEG", **options)) == size


def test_a_jpeg_cut_anywhere_has_a_size_or_is_refused() -> None:
    whole = encoded(plain((9, 9, 9), (64, 48)), "JPEG")
    for length in range(len(whole)):
        with contextlib.suppress(ValueError):
            assert bridge.jpeg_size(whole[:length]) == (64, 48)


@pytest.mark.parametrize(
    ("snapshot", "box"),
    [
        ((1280, 720), [128, 72, 256, 144]),
        ((640, 360), [64, 36, 128, 72]),
        ((1920, 1080), [192, 108, 384, 216]),
        ((480, 271), [48, 27.1, 96, 54.2]),  # rounded by Frigate
        ((300, 300), None),  # cropped
        ((720, 1280), None),
        ((1280, 700), None),
    ],
)
def test_a_box_of_the_detect_stream_fits_the_snapshot(snapshot: tuple[int, int], box: list[float] | None) -> None:
    camera = bridge.Camera.model_validate({"detect": {"width": 1280, "height": 720}})
    assert bridge.scaled((128, 72, 256, 144), camera, snapshot) == (None if box is None else pytest.approx(box))


def answer(results: dict[str, Any], box: dict[str, Any] | None = None) -> Enrichment:
    boxes = [] if box is None else [{"id": "0", "results": box}]
    return Enrichment.model_validate({"image": {"width": 9, "height": 9}, "results": results, "boxes": boxes})


def person(posture: str, x: float) -> dict[str, Any]:
    bbox = {"x": x, "y": 0, "width": 10, "height": 20}
    return {"keypoints": [], "posture": posture, "alerts": [posture], "bbox": bbox, "confidence": 0.9}


def test_what_no_model_told_is_unknown() -> None:
    told = bridge.summary(answer({}), None)
    lists: dict[str, Any] = {"alerts": [], "threats": []}
    assert told == dict.fromkeys(("people", "posture", "threat", "pet", "distance")) | lists
    state = told | {"active": True}
    values = {key: shown({"value_template": entity[1]}, state) for key, entity in bridge.ENTITIES.items()}
    # Home Assistant takes "None" for unknown in numbers and binary sensors, but for a text in other sensors.
    assert values == dict.fromkeys(("threat", "people"), "None") | dict.fromkeys(
        ("posture", "pet", "distance"), "unknown"
    )


@pytest.mark.parametrize(
    ("box", "posture"), [([98, 0, 112, 20], "crawling"), ([0, 0, 10, 20], "standing"), (None, "standing")]
)
def test_the_posture_is_that_of_the_events_person(box: list[float] | None, posture: str) -> None:
    people = [person("standing", 0), person("running", 50), person("crawling", 100)]
    pose = people[0] | {"num_people": 3, "persons": people}
    told = bridge.summary(answer({"pose_estimator": pose}), box)
    assert (told["posture"], told["alerts"], told["people"]) == (posture, [posture], 3)


@pytest.mark.parametrize(("sure", "shows"), [(True, "cat"), (False, "no")])
@pytest.mark.parametrize("in_box", [True, False])
def test_a_pet_is_shown_if_it_is_sure(*, sure: bool, shows: str, in_box: bool) -> None:
    pet = {"pet_type": "cat", "breed": "unknown", "confidence": 0.9, "is_household_pet": sure}
    told = answer({}, {"pet_classifier": pet}) if in_box else answer({"pet_classifier": pet})
    assert bridge.summary(told, None)["pet"] == shows
