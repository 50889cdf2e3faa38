"""The Frigate bridge between a real broker, a stand-in of Frigate, and the service."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from examples.frigate import bridge
from tests.examples.stand_ins import (
    BOX,
    DETECT,
    SEEN,
    SNAPSHOT,
    BridgeProcess,
    Broker,
    Ear,
    Frigate,
    Gate,
    http,
    message,
    shown,
)
from tests.serving.pictures import encoded, marked, plain
from tests.serving.server import Server

CAMERAS = ("door", "yard", "gate", "barn", "lane", "pond", "roof", "shed", "hall", "attic", "porch", "cellar")


@dataclass(frozen=True)
class House:
    broker: Broker
    frigate: Frigate
    gate: Gate
    bridge: BridgeProcess
    ear: Ear
    urls: tuple[str, str]

    def event(self, camera: str, event: str, kind: str = "new", frame: float = 1.0, **changes: Any) -> None:
        """Frigate has a snapshot, and says so."""
        self.frigate.snapshots.setdefault(event, encoded(marked(SEEN, SNAPSHOT), "JPEG", quality=95))
        self.ear.say(message(camera, event, kind, frame, **changes))

    def state(self, camera: str, event: str, *, active: bool = True) -> dict[str, Any]:
        """Wait for a state of a camera."""
        state: dict[str, Any] = self.ear.wait(
            f"enrichment/{camera}/state", lambda one: (one["event"], one["active"]) == (event, active)
        )
        return state


@pytest.fixture(scope="module")
def house(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("house")
    broker = Broker(folder)
    ear = Ear(broker.port)
    frigate, gate = Frigate(dict.fromkeys(CAMERAS, DETECT)), Gate(server.url)
    with http(frigate.handler()) as frigate_url, http(gate.handler()) as gate_url:
        running = BridgeProcess(folder, broker, frigate_url, gate_url)
        running.wait("Waiting for events")
        yield House(broker, frigate, gate, running, ear, (frigate_url, gate_url))
        assert running.stop() == 0
        assert "Traceback" not in running.log
    ear.close()
    broker.stop()


def discovered(ear: Ear, camera: str) -> dict[str, dict[str, Any]]:
    return {
        key: ear.wait(f"homeassistant/{component}/enrichment_{camera}_{key}/config")
        for key, (component, *_) in bridge.ENTITIES.items()
    }


def test_an_event_becomes_entities_and_their_state(house: House) -> None:
    house.event("door", "1607123955.475377-mxklsc")
    state = house.state("door", "1607123955.475377-mxklsc")
    entities = discovered(house.ear, "door")
    values = {key: shown(entity, state) for key, entity in entities.items()}
    assert (values["threat"], values["people"], values["posture"]) == ("True", "1", "standing")
    assert values["pet"] in ("cat", "dog", "no")
    assert values["distance"] in ("near", "middle", "far")
    assert len({entity["unique_id"] for entity in entities.values()}) == 5
    assert {entity["device"]["identifiers"][0] for entity in entities.values()} == {"enrichment_door"}
    for entity in entities.values():
        assert (entity["state_topic"], entity["availability_topic"]) == ("enrichment/door/state", "enrichment/status")
    whole = house.ear.wait("enrichment/door/event")
    box = whole["answer"]["boxes"][0]["bbox"]
    assert (box["x"], box["y"], box["width"], box["height"]) == (200, 100, 200, 300)  # of the snapshot, in its pixels
    assert whole["answer"]["boxes"][0]["errors"] == {}
    assert {key: whole[key] for key in state} == state
    late = Ear(house.broker.port)
    assert late.wait("enrichment/door/state") == state
    assert late.wait("enrichment/status") == "online"
    assert late.payloads("enrichment/door/event") == []
    late.close()


def test_a_frame_is_enriched_once_and_an_end_closes_the_event(house: House) -> None:
    house.event("yard", "a.1")
    house.state("yard", "a.1")
    house.event("yard", "a.1", "update")
    house.event("yard", "a.1", "update", 2.0)
    house.ear.wait("enrichment/yard/state", lambda state: state["time"] == 2.0)
    house.event("yard", "a.1", "end", 2.0)
    closed = house.state("yard", "a.1", active=False)
    assert house.frigate.asked.count("a.1") == 2
    entities = discovered(house.ear, "yard")
    assert (shown(entities["threat"], closed), shown(entities["people"], closed)) == ("False", "0")


def test_an_end_that_comes_while_its_snapshot_is_asked_about_is_no_second_alarm(house: House) -> None:
    house.gate.open.clear()
    house.event("porch", "o.1", "update")
    house.ear.wait("frigate/events", lambda seen: seen["after"]["id"] == "o.1")
    end = time.monotonic() + 30
    while "o.1" not in house.frigate.asked:
        assert time.monotonic() < end
        time.sleep(0.01)
    house.event("porch", "o.1", "end")
    house.event("porch", "o.2", "update", 3.0)  # when this one is answered, the end has been looked at
    time.sleep(0.5)
    house.gate.open.set()
    house.ear.wait("enrichment/porch/event", lambda event: event["event"] == "o.2")  # comes behind its state
    states = [json.loads(payload) for payload in house.ear.payloads("enrichment/porch/state")]
    assert [state["active"] for state in states if state["event"] == "o.1"] == [True, False]
    assert house.frigate.asked.count("o.1") == 1
    assert len(house.ear.payloads("enrichment/porch/event")) == 2


def test_what_only_the_end_shows_is_told_before_the_event_closes(house: House) -> None:
    house.event("hall", "b.1", "end")
    house.state("hall", "b.1", active=False)
    states = [json.loads(payload)["active"] for payload in house.ear.payloads("enrichment/hall/state")]
    assert states == [True, False]


def test_no_message_stops_the_bridge(house: House) -> None:
    good = message("gate", "c.1")["after"]
    bad: list[object] = [
        b"",
        b"\xff\xfe",
        b"null",
        b"[" * 10_000,
        7,
        [],
        {},
        {"type": "new"},
        {"type": "new", "after": 1},
    ]
    bad += [{"type": "other", "after": good}, {"type": "new", "after": good | {"snapshot": {}, "box": "none"}}]
    for wrong in (
        {"id": "../../config"},
        {"id": "a/b"},
        {"id": None},
        {"camera": "gate/#"},
        {"camera": "gate/+/x"},
        {"camera": ""},
        {"label": 5},
        {"has_snapshot": "perhaps"},
        {"snapshot": None, "box": [1, 2, 3]},
        {"snapshot": None, "box": [1, 2, 3, float("nan")]},
        {"snapshot": None, "box": [1, 2, 3, float("inf")]},
        {"snapshot": None, "frame_time": "soon"},
    ):
        bad.append({"type": "new", "after": good | wrong})
    for one in bad:
        house.ear.say(one)
    house.bridge.wait("A message of frigate/events is no event", len(bad))
    house.event("gate", "c.1")
    house.state("gate", "c.1")


def test_no_snapshot_stops_the_bridge(house: House) -> None:
    """Each is tried alone, as a newer event of the camera takes the place of one that waits."""
    pictures = {
        "torn": encoded(plain((1, 2, 3), SNAPSHOT), "JPEG")[:300],
        "text": b"<html>502 Bad Gateway</html>",
        "empty": b"",
        "header": b"\xff\xd8\xff\xc0\x00\x11\x08\x00\x00\x00\x00\x03\x01",
    }
    house.frigate.snapshots |= pictures
    for event in (*pictures, "barn-gone"):
        house.ear.say(message("barn", event))
        house.bridge.wait(f"barn: event {event} was not enriched")
    house.ear.say(message("unknown", "d.1"))
    house.bridge.wait("unknown: event d.1 was not enriched")
    house.event("barn", "d.2", snapshot={"frame_time": 1.0, "box": [900, 900, 950, 950]})
    house.state("barn", "d.2")


def test_a_busy_service_is_asked_again(house: House) -> None:
    house.gate.statuses.clear()
    house.gate.refusals += [429, 503, 429]
    house.event("lane", "e.1")
    house.state("lane", "e.1")
    assert house.gate.statuses == [429, 503, 429, 200]


@pytest.mark.parametrize("refusals", [[400], [500], [421], [429] * 5])
def test_what_the_service_refuses_is_given_up(house: House, refusals: list[int]) -> None:
    event = f"f.{refusals[0]}"
    house.gate.refusals += refusals
    house.event("pond", event)
    house.bridge.wait(f"pond: event {event} was not enriched: {refusals[0]} made_up")
    assert house.gate.refusals == []
    house.event("pond", f"{event}-next")
    house.state("pond", f"{event}-next")


@pytest.mark.parametrize(
    ("kind", "changes"), [("new", {"label": "car"}), ("new", {"has_snapshot": False}), ("end", {"has_snapshot": False})]
)
def test_events_that_do_not_matter_are_left(house: House, kind: str, changes: dict[str, Any]) -> None:
    house.event("roof", "g.1", kind, **changes)
    house.event("roof", "g.2")
    house.state("roof", "g.2")
    assert "g.1" not in house.frigate.asked


def test_a_slow_service_is_asked_about_the_latest_only(house: House) -> None:
    house.gate.open.clear()
    for frame in range(1, 30):
        house.event("porch", "j.1", "update", float(frame))
        house.event("cellar", "j.2", "update", float(frame))
    house.ear.say(b"the last one")
    house.bridge.wait("the last one")  # the bridge has all messages
    house.gate.open.set()
    for camera in ("porch", "cellar"):
        house.ear.wait(f"enrichment/{camera}/state", lambda state: state["time"] == 29.0)
    assert house.frigate.asked.count("j.1") + house.frigate.asked.count("j.2") <= 3  # the first was under way


def test_an_old_frigate_has_the_box_in_the_event(house: House) -> None:
    house.event("attic", "h.1", snapshot=None, box=BOX)
    answer = house.ear.wait("enrichment/attic/event")
    assert (answer["answer"]["boxes"][0]["bbox"]["x"], answer["time"]) == (200, 1.5)


def test_a_broker_that_restarts_learns_everything_again(house: House) -> None:
    house.event("shed", "i.1")
    state = house.state("shed", "i.1")
    house.broker.stop()
    house.broker.start()
    house.bridge.wait("Waiting for events", 2)
    late = Ear(house.broker.port)
    assert late.wait("enrichment/status") == "online"
    # Its end may have been missed, so it runs only once the next message says so.
    assert late.wait("enrichment/shed/state", lambda one: not one["active"]) == state | {"active": False}
    assert len(discovered(late, "shed")) == 5
    late.say(message("shed", "i.1", "update", 2.0))
    assert late.wait("enrichment/shed/state", lambda one: one["time"] == 2.0)["active"]
    late.close()


def test_one_objects_end_leaves_the_others_threat_and_no_snapshot_is_asked_about_twice(house: House) -> None:
    house.event("barn", "k.1")
    house.state("barn", "k.1")
    house.frigate.snapshots["k.2"] = encoded(plain((0, 0, 0), SNAPSHOT), "JPEG")  # nothing is in it
    house.event("barn", "k.2")
    both = house.state("barn", "k.2")
    assert (both["threat"], both["people"]) == (True, 0)
    since = len(house.ear.heard)
    for event, kind in (("k.1", "update"), ("k.2", "update"), ("k.1", "update"), ("k.2", "end")):
        house.event("barn", event, kind)
    last = house.ear.wait("enrichment/barn/state", lambda one: one["event"] == "k.1", since)
    assert (last["active"], last["threat"], last["people"]) == (True, True, 1)
    house.event("barn", "k.1", "end")
    house.state("barn", "k.1", active=False)
    assert (house.frigate.asked.count("k.1"), house.frigate.asked.count("k.2")) == (1, 1)


def test_a_frigate_that_restarts_leaves_no_event_behind(house: House) -> None:
    house.event("gate", "l.1")
    house.state("gate", "l.1")
    house.ear.say(b"online", "frigate/available")
    house.state("gate", "l.1", active=False)


@pytest.mark.parametrize("signal", ["terminate", "kill"])
def test_a_bridge_that_ends_leaves_no_threat_on(
    house: House, tmp_path_factory: pytest.TempPathFactory, signal: str
) -> None:
    folder = tmp_path_factory.mktemp("ends")
    other = BridgeProcess(folder, house.broker, *house.urls, ENRICHMENT_TOPIC=signal)
    other.wait("Waiting for events")
    house.event("yard", f"m.{signal}", "update", 3.0)
    house.ear.wait(f"{signal}/yard/state", lambda state: state["active"] and state["threat"])
    getattr(other.process, signal)()
    other.process.wait(10)
    if signal == "kill":  # the next one cleans up
        other = BridgeProcess(folder, house.broker, *house.urls, ENRICHMENT_TOPIC=signal)
    house.ear.wait(f"{signal}/yard/state", lambda state: not state["active"])
    late = Ear(house.broker.port)
    assert not late.wait(f"{signal}/yard/state")["active"]
    late.close()
    other.process.terminate()
    other.process.wait(10)
    house.event("yard", f"m.{signal}", "end", 3.0)


@pytest.mark.parametrize("signal", ["terminate", "kill"])
def test_home_assistant_learns_that_the_bridge_has_stopped(
    house: House, tmp_path_factory: pytest.TempPathFactory, signal: str
) -> None:
    other = BridgeProcess(tmp_path_factory.mktemp("other"), house.broker, *house.urls)
    other.wait("Waiting for events")
    ear = Ear(house.broker.port)
    getattr(other.process, signal)()
    ear.wait("enrichment/status", lambda status: status == "offline")
    other.process.wait(10)
    ear.close()


def test_a_broker_with_a_login_another_topic_and_labels_by_a_persons_hand(
    house: House, tmp_path_factory: pytest.TempPathFactory
) -> None:
    login = ("frigate", "a pass:word")
    broker = Broker(tmp_path_factory.mktemp("broker"), login)
    ear = Ear(broker.port, login)
    wrong = BridgeProcess(tmp_path_factory.mktemp("wrong"), broker, *house.urls, MQTT_USER="frigate", MQTT_PASSWORD="x")
    wrong.wait("Check MQTT_USER and MQTT_PASSWORD")
    wrong.stop()
    settings = {"MQTT_USER": login[0], "MQTT_PASSWORD": login[1], "FRIGATE_TOPIC": "nvr", "ENRICHMENT_TOPIC": "seen"}
    settings |= {"FRIGATE_LABELS": "bird, person ,", "ENRICHMENT_MODELS": "pose, depth"}
    right = BridgeProcess(tmp_path_factory.mktemp("right"), broker, *house.urls, **settings)
    right.wait("Waiting for events")
    house.frigate.snapshots |= dict.fromkeys(("n.1", "n.2", "n.3"), encoded(marked(SEEN, SNAPSHOT), "JPEG", quality=95))
    ear.say(message("shed", "n.1"))  # to another Frigate's topic
    ear.say(message("shed", "n.2", label="cat"), "nvr/events")
    ear.say(message("shed", "n.3"), "nvr/events")
    state = ear.wait("seen/shed/state")
    assert (state["event"], state["active"], state["people"]) == ("n.3", True, 1)
    answer = ear.wait("seen/shed/event")["answer"]
    assert {*answer["results"], *answer["boxes"][0]["results"]} == {"pose_estimator", "depth_estimator"}
    assert [each for each in house.frigate.asked if each.startswith("n.")] == ["n.3"]
    right.stop()
    ear.close()
    broker.stop()
