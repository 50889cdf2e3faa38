"""What the Frigate bridge works with: a real broker, a stand-in of Frigate, and a gate before the service."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import httpx
import jinja2
import pytest
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

from benchmarks.serving import free_port
from tests.serving.server import ROOT

WAIT_S: Final = 30  # each wait takes milliseconds of an idle machine
DETECT: Final = (320, 240)
SNAPSHOT: Final = (640, 480)
SEEN: Final = (200, 100, 400, 400)  # where the marker is in the snapshot
BOX: Final = [100, 50, 200, 200]  # the same in the detect stream
SBIN: Final = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"


def message(camera: str, event: str, kind: str = "new", frame: float = 1.0, **changes: Any) -> dict[str, Any]:
    """As Frigate 0.14 and newer has it. The object has moved on since its snapshot."""
    after = {
        "id": event,
        "camera": camera,
        "frame_time": frame + 0.5,
        "snapshot": {"frame_time": frame, "box": BOX, "area": 15000, "region": [0, 0, 320, 320], "score": 0.8},
        "label": "person",
        "sub_label": None,
        "false_positive": False,
        "end_time": frame + 1 if kind == "end" else None,
        "box": [0, 0, 10, 10],
        "has_snapshot": True,
    }
    return {"type": kind, "before": after, "after": after | changes}


def shown(entity: dict[str, Any], state: dict[str, Any]) -> str:
    """What Home Assistant takes from a state by an entity's template."""
    return jinja2.Environment().from_string(entity["value_template"]).render(value_json=state)


class Broker:
    """A mosquitto on 127.0.0.1. It forgets everything when it stops. login: user and password."""

    def __init__(self, folder: Path, login: tuple[str, str] | None = None) -> None:
        program = shutil.which("mosquitto", path=SBIN)
        if program is None:
            pytest.skip("mosquitto is not installed: apt install mosquitto")
        self.port = free_port()
        file = folder / "mosquitto.conf"
        access = "allow_anonymous true"
        if login is not None:
            maker, passwords = shutil.which("mosquitto_passwd", path=SBIN), folder / "passwords"
            assert maker is not None
            subprocess.run([maker, "-b", "-c", str(passwords), *login], check=True, capture_output=True)
            access = f"password_file {passwords}"
        file.write_text(f"listener {self.port} 127.0.0.1\n{access}\nuser root\n", encoding="utf-8")
        self._command = [program, "-c", str(file)]
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(WAIT_S)


class Ear:
    """A client of the broker, which keeps the topic and the payload of all messages."""

    def __init__(self, port: int, login: tuple[str, str] | None = None) -> None:
        self.heard: list[tuple[str, bytes]] = []
        self._changed = threading.Condition()
        self._mqtt = paho.Client(CallbackAPIVersion.VERSION2)
        self._mqtt.on_connect = lambda mqtt, *_: mqtt.subscribe("#")
        self._subscribed = threading.Event()
        self._mqtt.on_subscribe = lambda *_: self._subscribed.set()
        self._mqtt.on_message = lambda _mqtt, _data, message: self._hear(message)
        if login is not None:
            self._mqtt.username_pw_set(*login)
        self._mqtt.connect_async("127.0.0.1", port)
        self._mqtt.reconnect_delay_set(1, 1)
        self._mqtt.loop_start()
        assert self._subscribed.wait(WAIT_S)

    def _hear(self, message: paho.MQTTMessage) -> None:
        with self._changed:
            self.heard.append((message.topic, bytes(message.payload)))
            self._changed.notify_all()

    def say(self, message: object, topic: str = "frigate/events") -> None:
        payload = message if isinstance(message, bytes) else json.dumps(message)
        self._mqtt.publish(topic, payload, qos=1).wait_for_publish(WAIT_S)

    def payloads(self, topic: str, since: int = 0) -> list[bytes]:
        return [payload for heard, payload in self.heard[since:] if heard == topic]

    def wait(self, topic: str, condition: Callable[[Any], bool] = lambda _: True, since: int = 0) -> Any:
        """The first message of a topic that fulfils a condition, out of JSON. since: how many messages are older."""

        def found() -> Any:
            known = [_read(payload) for payload in self.payloads(topic, since)]
            return next((one for one in known if condition(one)), None)

        with self._changed:
            assert self._changed.wait_for(lambda: found() is not None, WAIT_S), self.heard
            return found()

    def close(self) -> None:
        self._mqtt.disconnect()
        self._mqtt.loop_stop()


def _read(payload: bytes) -> Any:
    try:
        return json.loads(payload)
    except ValueError:
        return payload.decode()


@contextlib.contextmanager
def http(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """The URL at which a handler answers."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


class Frigate:
    """What Frigate answers. asked: the paths of snapshots."""

    def __init__(self, cameras: Mapping[str, tuple[int, int]]) -> None:
        self.snapshots: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.configuration = {
            "mqtt": {"enabled": True},
            "cameras": {
                name: {"name": name, "detect": {"enabled": True, "width": width, "height": height, "fps": 5}}
                for name, (width, height) in cameras.items()
            },
        }

    def handler(self) -> type[BaseHTTPRequestHandler]:
        frigate = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                found: bytes | None = None
                if self.path == "/api/config":
                    found = json.dumps(frigate.configuration).encode()
                elif event := re.fullmatch(r"/api/events/([^/]+)/snapshot\.jpg\?bbox=0&crop=0&timestamp=0", self.path):
                    frigate.asked.append(event[1])
                    found = frigate.snapshots.get(event[1])
                self.send_response(404 if found is None else 200)
                self.end_headers()
                self.wfile.write(found or b'{"success": false, "message": "Event not found"}')

            def log_message(self, *_: object) -> None: ...

        return Handler


class Gate:
    """Stands before the service. refusals: the statuses that the next requests get. open: whether any is answered."""

    def __init__(self, service: str) -> None:
        self.refusals: list[int] = []
        self.statuses: list[int] = []
        self.open = threading.Event()
        self.open.set()
        self._service = service

    def handler(self) -> type[BaseHTTPRequestHandler]:
        gate = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                gate.open.wait(WAIT_S)
                if gate.refusals:
                    status = gate.refusals.pop(0)
                    content = json.dumps({"error": {"code": "made_up", "message": "made up"}}).encode()
                else:
                    headers = {"content-type": self.headers["content-type"]}
                    answer = httpx.post(f"{gate._service}{self.path}", content=body, headers=headers, timeout=WAIT_S)
                    status, content = answer.status_code, answer.content
                gate.statuses.append(status)
                self.send_response(status)
                self.send_header("retry-after", "0")
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None: ...

        return Handler


class BridgeProcess:
    """The bridge as its own program, which is how people start it."""

    def __init__(self, folder: Path, broker: Broker, frigate: str, service: str, **environment: str) -> None:
        self._log = folder / "bridge.log"
        own = {
            "PYTHONPATH": str(ROOT / "client"),
            "FRIGATE_URL": frigate,
            "MQTT_PORT": str(broker.port),
            "ENRICHMENT_LIGHT_URL": service,
            **environment,
        }
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "examples/frigate/bridge.py"], cwd=ROOT, env=os.environ | own, stdout=log, stderr=log
            )

    @property
    def log(self) -> str:
        return self._log.read_text(encoding="utf-8")

    def wait(self, text: str, times: int = 1) -> None:
        """Wait until the log has a text so often."""
        end = time.monotonic() + WAIT_S
        while self.log.count(text) < times:
            assert time.monotonic() < end, self.log
            assert self.process.poll() is None, self.log
            time.sleep(0.05)

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(WAIT_S)
