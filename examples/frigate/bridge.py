# /// script
# requires-python = ">=3.11"
# dependencies = ["ai-enrichment-light-client", "paho-mqtt>=2.1"]
# [tool.uv.sources]
# ai-enrichment-light-client = { path = "../../client" }
# ///
"""Enriches Frigate's events: asks /enrich about each better snapshot, and tells Home Assistant by MQTT.

usage: uv run examples/frigate/bridge.py, with settings in the environment: docs/use/frigate.md
"""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import struct
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal

import httpx
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion
from pydantic import AliasChoices, AliasPath, BaseModel, Field, FiniteFloat

from enrichment_client import Client, EnrichmentError
from enrichment_client.answers import Box, Enrichment, PersonSeen, Pose

LOG: Final = logging.getLogger("bridge")
LIMIT: Final = 100  # events that wait, and events of a camera
DEFAULTS: Final[Mapping[str, str]] = {
    "FRIGATE_URL": "http://127.0.0.1:5000",
    "FRIGATE_TOPIC": "frigate",
    "FRIGATE_LABELS": "person,cat,dog",
    "MQTT_HOST": "127.0.0.1",
    "MQTT_PORT": "1883",
    "MQTT_USER": "",
    "MQTT_PASSWORD": "",  # nosec B105 - the default: no password
    "ENRICHMENT_TOPIC": "enrichment",
    "ENRICHMENT_MODELS": "pose,threat,pet,depth",
}
_ALARM: Final = {"device_class": "safety", "payload_on": "True", "payload_off": "False"}
#: Home Assistant's entities of a camera: key → component, template, and what else its discovery message has.
ENTITIES: Final[Mapping[str, tuple[str, str, Mapping[str, str]]]] = {
    "threat": ("binary_sensor", "{{ value_json.active and value_json.threat }}", _ALARM),
    "people": ("sensor", "{{ value_json.people if value_json.active else 0 }}", {"state_class": "measurement"}),
    "posture": ("sensor", "{{ value_json.posture or 'unknown' }}", {}),
    "pet": ("sensor", "{{ value_json.pet or 'unknown' }}", {}),
    "distance": ("sensor", "{{ value_json.distance or 'unknown' }}", {}),
}
State = dict[str, Any]  # what Home Assistant is told of an event or a camera: `event`, `active` and `summary`
Corners = tuple[FiniteFloat, FiniteFloat, FiniteFloat, FiniteFloat]  # x1, y1, x2, y2 in the detect stream's pixels


class Tracked(BaseModel):
    """An object that Frigate tracks. frame_time, box: of its best frame, the snapshot; in old versions of the last."""

    id: Annotated[str, Field(pattern=r"^[\w-]+(\.[\w-]+)*$")]
    camera: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")]
    label: str
    frame_time: FiniteFloat = Field(validation_alias=AliasChoices(AliasPath("snapshot", "frame_time"), "frame_time"))
    box: Corners = Field(validation_alias=AliasChoices(AliasPath("snapshot", "box"), "box"))
    has_snapshot: bool


class Event(BaseModel):
    """A message of `frigate/events`."""

    type: Literal["new", "update", "end"]
    after: Tracked


class Camera(BaseModel):
    """The size of the stream in which Frigate detects."""

    width: Annotated[int, Field(validation_alias=AliasPath("detect", "width"), gt=0)]
    height: Annotated[int, Field(validation_alias=AliasPath("detect", "height"), gt=0)]


class Configuration(BaseModel):
    """What /api/config says."""

    cameras: dict[str, Camera]


def _names(text: str) -> list[str]:
    """Split a comma-separated setting; spaces around the commas are usual."""
    return [name.strip() for name in text.split(",") if name.strip()]


class Waiting:
    """The latest message of each event; the event that has waited longest is first."""

    def __init__(self) -> None:
        self._events: dict[str, Event] = {}
        self._ended: deque[str] = deque(maxlen=10 * LIMIT)
        self._lost = False
        self._changed = threading.Condition()

    def put(self, event: Event) -> None:
        """Add a message in place of an older one of its event. It is dropped where LIMIT other events wait."""
        with self._changed:
            if event.type == "end":
                self._ended.append(event.after.id)
            if len(self._events) >= LIMIT and event.after.id not in self._events:
                LOG.warning("%s: event %s is dropped, as too many wait.", event.after.camera, event.after.id)
                return
            self._events[event.after.id] = event
            self._changed.notify()

    def lose(self) -> None:
        """Note that messages may have been missed: nobody knows which events still run."""
        with self._changed:
            self._lost = True
            self._changed.notify()

    def get(self) -> Event | None:
        """Take the next event. Waits for one. None: messages may have been missed before it."""
        with self._changed:
            self._changed.wait_for(lambda: self._events or self._lost)
            if self._lost:
                self._lost = False
                return None
            return self._events.pop(next(iter(self._events)))

    def is_over(self, event: str) -> bool:
        """Whether the end of an event came."""
        with self._changed:
            return event in self._ended


class Bridge:
    """Takes events from the broker, asks Frigate and the service, and publishes the answers. Settings: as DEFAULTS."""

    def __init__(self, settings: Mapping[str, str], service: Client) -> None:
        self._frigate = httpx.Client(base_url=settings["FRIGATE_URL"], timeout=10)
        self._service = service
        self._labels, self._models = _names(settings["FRIGATE_LABELS"]), _names(settings["ENRICHMENT_MODELS"])
        self._source, self._topic = settings["FRIGATE_TOPIC"], settings["ENRICHMENT_TOPIC"]
        self._broker = settings["MQTT_HOST"], int(settings["MQTT_PORT"])
        self._waiting = Waiting()
        self._cameras: dict[str, Camera] = {}  # emptied when Frigate starts
        self._states: dict[str, State] = {}  # by camera
        self._running: dict[str, dict[str, State]] = {}  # by camera, then by event; the newest last
        self._asked: dict[str, float] = {}  # event → frame of its last answer, ended events, too
        self._retained = {f"{self._topic}/status": "online"}  # a broker may forget them when it restarts
        self._retaining = threading.Lock()
        self._mqtt = paho.Client(CallbackAPIVersion.VERSION2)
        self._mqtt.username_pw_set(settings["MQTT_USER"] or None, settings["MQTT_PASSWORD"])
        self._mqtt.will_set(f"{self._topic}/status", "offline", retain=True)
        self._mqtt.reconnect_delay_set(1, 30)
        self._mqtt.on_connect, self._mqtt.on_message = self._connected, self._came
        self._mqtt.on_subscribe, self._mqtt.on_connect_fail = self._subscribed, self._unreachable

    def run(self) -> None:
        """Work until KeyboardInterrupt."""
        self._mqtt.connect_async(*self._broker)
        self._mqtt.loop_start()
        try:
            while True:
                event = self._waiting.get()
                if event is None:
                    self._end_all()
                else:
                    self._handle(event)
        finally:
            self._end_all()
            self._mqtt.publish(f"{self._topic}/status", "offline", retain=True)
            self._mqtt.disconnect()
            self._mqtt.loop_stop()

    def _handle(self, event: Event) -> None:
        """Enrich an event. One that fails is logged, and its camera's next one is tried."""
        camera = event.after.camera
        try:
            self._enrich(event.after)
        except (EnrichmentError, httpx.HTTPError, ValueError) as error:
            LOG.warning("%s: event %s was not enriched: %s", camera, event.after.id, error)
        for each, running in self._running.items():  # an end may have been dropped, so all cameras
            over = [one for one in running if self._waiting.is_over(one)]
            for one in over:
                del running[one]
            if over:
                self._publish(each, of_camera([*running.values()]) or self._states[each] | {"active": False})

    def _end_all(self) -> None:
        """Publish that no event runs. One that does comes again with its next message."""
        self._running.clear()
        self._asked.clear()
        for camera, state in self._states.items():
            if state["active"]:
                self._publish(camera, state | {"active": False})

    def _enrich(self, seen: Tracked) -> None:
        running = self._running.setdefault(seen.camera, {})
        if not seen.has_snapshot or self._asked.get(seen.id) == seen.frame_time:
            return
        # Older versions of Frigate heed these only while an event lasts, and then their own configuration.
        path = f"/api/events/{seen.id}/snapshot.jpg?bbox=0&crop=0&timestamp=0"
        snapshot = self._frigate.get(path).raise_for_status().content
        box = scaled(seen.box, self._camera(seen.camera), jpeg_size(snapshot))
        answer = self._service.enrich(snapshot, models=self._models, boxes=[box] if box else None)
        self._asked.pop(seen.id, None)
        self._asked[seen.id] = seen.frame_time
        if len(self._asked) > 10 * LIMIT:
            del self._asked[next(iter(self._asked))]
        state = {"event": seen.id, "label": seen.label, "time": seen.frame_time, "active": True} | summary(answer, box)
        if seen.camera not in self._states:
            self._announce(seen.camera)
        former = running.pop(seen.id, {"threat": None, "threats": []})
        running[seen.id] = of_camera([former, state])  # a weapon counts until the event ends
        if len(running) > LIMIT:  # their ends were lost
            del running[next(iter(running))]
        self._publish(seen.camera, of_camera([*running.values()]))
        whole = state | {"answer": answer.model_dump(mode="json", exclude_none=True)}
        self._mqtt.publish(f"{self._topic}/{seen.camera}/event", json.dumps(whole), qos=1)
        failed = f" without {', '.join(answer.errors)}" if answer.errors else ""
        LOG.info("%s: event %s (%s) is enriched%s.", seen.camera, seen.id, seen.label, failed)

    def _camera(self, name: str) -> Camera:
        if (known := self._cameras.get(name)) is None:
            answer = self._frigate.get("/api/config").raise_for_status()
            self._cameras = cameras = Configuration.model_validate_json(answer.content).cameras
            if (known := cameras.get(name)) is None:
                raise ValueError(f"Frigate's configuration has no camera {name}")
        return known

    def _announce(self, camera: str) -> None:
        """Publish Home Assistant's discovery messages."""
        shared = {
            "state_topic": f"{self._topic}/{camera}/state",
            "json_attributes_topic": f"{self._topic}/{camera}/state",
            "availability_topic": f"{self._topic}/status",
            "device": {"identifiers": [f"enrichment_{camera}"], "name": f"Enrichment of {camera}"},
            "origin": {"name": "ai-enrichment-light"},
        }
        for key, (component, template, own) in ENTITIES.items():
            unique = f"enrichment_{camera}_{key}"
            message = shared | {"unique_id": unique, "name": key.capitalize(), "value_template": template, **own}
            self._retain(f"homeassistant/{component}/{unique}/config", json.dumps(message))

    def _publish(self, camera: str, state: State) -> None:
        self._states[camera] = state
        self._retain(f"{self._topic}/{camera}/state", json.dumps(state))

    def _retain(self, topic: str, message: str) -> None:
        with self._retaining:
            self._retained[topic] = message
            self._mqtt.publish(topic, message, retain=True)

    def _connected(self, mqtt: paho.Client, _data: object, _flags: object, reason: Any, _properties: object) -> None:
        if reason.is_failure:
            LOG.error("The MQTT broker refuses: %s. Check MQTT_USER and MQTT_PASSWORD.", reason)
            return
        with self._retaining:
            for topic, message in self._retained.items():
                mqtt.publish(topic, message, retain=True)
        topics = f"{self._source}/events", f"{self._source}/available", f"{self._topic}/+/state"
        mqtt.subscribe([(topic, 0) for topic in topics])
        self._waiting.lose()

    def _subscribed(self, *_: object) -> None:
        LOG.info("Connected to the MQTT broker. Waiting for events.")

    def _unreachable(self, *_: object) -> None:
        LOG.warning("The MQTT broker does not answer at %s:%d. Trying again.", *self._broker)

    def _came(self, _mqtt: paho.Client, _data: object, message: paho.MQTTMessage) -> None:
        if message.topic == f"{self._source}/available":
            self._cameras = {}
            self._waiting.lose()
            return
        if paho.topic_matches_sub(f"{self._topic}/+/state", message.topic):
            self._end_of_earlier_run(message)
            return
        try:
            event = Event.model_validate_json(message.payload)
        except ValueError as error:
            LOG.warning("A message of %s is no event: %s", message.topic, " ".join(str(error).split()))
            return
        if event.after.label in self._labels:
            self._waiting.put(event)

    def _end_of_earlier_run(self, message: paho.MQTTMessage) -> None:
        """End an event that a bridge before this one left as active with the broker."""
        with self._retaining:
            known = message.topic in self._retained
        if known or not message.retain:
            return
        try:
            state = json.loads(message.payload)
        except ValueError as error:
            LOG.warning("The retained message of %s is no state: %s", message.topic, error)
            return
        if isinstance(state, dict) and state.get("active"):
            self._retain(message.topic, json.dumps(state | {"active": False}))


def of_camera(running: Sequence[State]) -> State:
    """Return the newest event's state, with the threats of all that run. Empty if none runs."""
    if not running:
        return {}
    threats = [state["threat"] for state in running if state["threat"] is not None]
    named = dict.fromkeys(threat for state in running for threat in state["threats"])
    return running[-1] | {"threat": any(threats) if threats else None, "threats": [*named]}


def jpeg_size(data: bytes) -> tuple[int, int]:
    """Return the width and height in a JPEG's frame header. Raises ValueError if there is none."""
    position = 2
    while position + 9 <= len(data) and data[position] == 0xFF:
        marker, length = struct.unpack_from(">BH", data, position + 1)
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # these three are tables
            height, width = struct.unpack_from(">HH", data, position + 5)
            return width, height
        position += 2 + length
    raise ValueError("Frigate's snapshot is no JPEG")


def scaled(box: Corners, camera: Camera, snapshot: tuple[int, int]) -> list[float] | None:
    """Return a box of the detect stream in the snapshot's pixels. None: another shape, so the snapshot is cropped."""
    across, down = snapshot[0] / camera.width, snapshot[1] / camera.height
    if abs(across - down) > 0.01 * across:
        return None
    return [box[0] * across, box[1] * down, box[2] * across, box[3] * down]


def summary(answer: Enrichment, box: Sequence[float] | None) -> dict[str, Any]:
    """Return what Home Assistant shows. A model without an answer leaves None."""
    pose, threats = answer.results.pose_estimator, answer.results.threat_detector
    here = answer.boxes[0].results if answer.boxes else None
    pet = (here or answer.results).pet_classifier
    person = _person(pose, box) if pose else None
    return {
        "people": pose.num_people if pose else None,
        "posture": person.posture if person else None,
        "alerts": person.alerts if person else [],
        "threat": threats.is_threat if threats else None,
        "threats": [threat.class_name for threat in threats.threats_detected] if threats else [],
        "pet": (pet.pet_type if pet.is_household_pet else "no") if pet else None,
        "distance": here.depth_estimator.nearness if here and here.depth_estimator else None,
    }


def _person(pose: Pose, box: Sequence[float] | None) -> PersonSeen | None:
    """The person in the middle of the event's box. Without a box, the most prominent one."""
    if box is None:
        return next(iter(pose.persons), None)
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2

    def distance(one: Box) -> float:
        return math.hypot(one.x + one.width / 2 - x, one.y + one.height / 2 - y)

    return min(pose.persons, key=lambda person: distance(person.bbox), default=None)


def main() -> None:
    """Run the bridge until SIGINT or SIGTERM."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with Client.from_env(timeout=20, retries=4) as service:
        try:
            Bridge(DEFAULTS | os.environ, service).run()
        except KeyboardInterrupt:
            LOG.info("Stopped.")


if __name__ == "__main__":
    main()
