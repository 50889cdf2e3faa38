"""The command `enrich`, against a scripted service."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from enrichment_client import cli
from enrichment_client.client import AsyncClient
from tests.client.service import LIGHT, error, fields
from tests.serving.server import ROOT

BBOX = {"x": 10.0, "y": 20.0, "width": 30.0, "height": 40.0}
PERSON = {
    "keypoints": [],
    "posture": "lying_down",
    "alerts": ["lying_down", "hands_raised"],
    "alert_details": [{"alert": "lying_down", "confidence": 0.8, "reason": "the torso lies at 5°"}],
    "bbox": BBOX,
    "confidence": 0.9,
}
POSE = {"keypoints": [], "posture": "lying_down", "alerts": [], "num_people": 1, "persons": [PERSON]}
THREAT = {"class": "Gun", "class_name": "Gun", "confidence": 0.81, "bbox": BBOX, "severity": "critical"}
ANSWER: dict[str, Any] = {
    "image": {"width": 640, "height": 480},
    "results": {
        "pose_estimator": POSE,
        "threat_detector": {"threats_detected": [THREAT], "is_threat": True, "max_confidence": 0.81},
        "pet_classifier": {"pet_type": "cat", "breed": "unknown", "confidence": 0.97, "is_household_pet": True},
        "depth_estimator": {"min_depth": 0.1, "max_depth": 0.9, "mean_depth": 0.4},
        "person_reid": {"embedding": [0.0] * 512, "model_id": "osnet@1"},
    },
    "boxes": [
        {
            "id": "0",
            "bbox": BBOX,
            "results": {"depth_estimator": {"median": 0.71, "nearness": "near"}},
            "errors": {},
        }
    ],
    "errors": {},
    "timings": {},
    "inference_time_ms": 123.4,
}
TROUBLED = ANSWER | {
    "results": {
        "pet_classifier": {
            "pet_type": "dog",
            "breed": "unknown",
            "confidence": 0.6,
            "is_household_pet": False,
            "person_in_view": True,
        },
        "threat_detector": {"threats_detected": [], "is_threat": False, "max_confidence": 0.0},
    },
    "boxes": [
        {
            "id": "a",
            "bbox": None,
            "results": {},
            "errors": {
                "pose_estimator": {"code": "model_unavailable", "message": "its weights are absent"},
                "person_reid": {"code": "timeout", "message": "no result in time"},
            },
        }
    ],
    "errors": {"pose_estimator": {"code": "model_unavailable", "message": "its weights are absent"}},
    "untrained": ["depth_estimator"],
}
HEALTH = {
    "status": "degraded",
    "uptime_seconds": 7300.0,
    "gpu_available": False,
    "gpu_memory_used_gb": 0.0,
    "models_loaded": {"pose_estimator": True},
    "models": {
        "pose_estimator": {"state": "ready", "engine": "openvino", "precision": "f32", "weights": "w@1"},
        "threat_detector": {"state": "absent", "detail": "no weights"},
        "pose": True,
    },
}

Run = Callable[..., tuple[int, str, str]]
Handler = Callable[[httpx.Request], httpx.Response]


def answering(answer: Any) -> Handler:
    """A service that gives one answer, and a picture where one is asked for."""

    def handle(request: httpx.Request) -> httpx.Response:
        if request.headers["accept"] == "image/jpeg":
            return httpx.Response(200, content=b"\xff\xd8drawn", headers={"Content-Type": "image/jpeg"})
        return answer if isinstance(answer, httpx.Response) else httpx.Response(200, json=answer)

    return handle


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command over a handler; returns its exit code and what it printed."""

    def run(handler: Handler, *arguments: object) -> tuple[int, str, str]:
        def client(url: str, **options: Any) -> AsyncClient:
            return AsyncClient(url, transport=httpx.MockTransport(handler), **options)

        monkeypatch.setattr(cli, "AsyncClient", client)
        try:
            code = cli.main([str(argument) for argument in arguments])
        except SystemExit as exit_:
            code = int(exit_.code or 0)
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "cameras"
    for name in ("b/2.png", "a.jpg", "b/1.JPG", "notes.txt", "a.jpg.overlay.jpg"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return folder


def test_a_report_in_words(run: Run, folder: Path) -> None:
    code, out, err = run(answering(ANSWER), folder / "a.jpg")
    assert (code, err) == (0, "")
    assert (
        out
        == f"""{folder}/a.jpg: 640 × 480, 123 ms
  people: 1
    lying down (90%) at 10,20,40,60; ALERT: lying down (the torso lies at 5°), hands raised
  threats: 1
    Gun, critical (81%) at 10,20,40,60
  pet: cat (97%)
  depth: 0.10 to 0.90, mean 0.40 (1 is nearest)
  re-id: 512 numbers of osnet@1
  box 0, 10,20,40,60
    distance: near (0.71, 1 is nearest)
"""
    )


def test_what_one_model_could_not_do_is_said_and_counts_as_failed(run: Run, folder: Path) -> None:
    code, out, _ = run(answering(TROUBLED), folder / "a.jpg")
    assert code == 1
    assert out.splitlines()[1:] == [
        "  threats: none",
        "  pet: none for sure (rather dog, 60%; a person is in view)",
        "  box a",
        "    person_reid failed: no result in time (timeout)",  # the frame's failures are not repeated
        "  pose_estimator failed: its weights are absent (model_unavailable)",
        "  these answers mean nothing, as the weights are untrained: depth_estimator",
    ]


def test_a_folder_is_walked_in_order_and_each_picture_is_a_line_of_json(run: Run, folder: Path) -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        if fields(request)["image"] == b"b/1.JPG":
            return error(400, "invalid_image")
        return httpx.Response(200, json=ANSWER)

    code, out, err = run(handle, folder, "--json", "--jobs", 3)
    assert (code, err) == (1, "")  # no progress bar without a terminal
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["file"] for line in lines] == [f"{folder}/{name}" for name in ("a.jpg", "b/1.JPG", "b/2.png")]
    assert {name: value for name, value in lines[0].items() if name != "file"} == ANSWER
    assert lines[1]["error"] == {
        "status": 400,
        "code": "invalid_image",
        "message": "a message of invalid_image",
        "request_id": "r1",
    }


def test_options_are_sent(run: Run, folder: Path) -> None:
    asked: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, json=ANSWER)

    options = ["--url", LIGHT, "--models", "pose, pet", "--bbox", "1,2,3.5,4", "--api-key", "k"]
    assert run(handle, folder / "a.jpg", *options)[0] == 0
    (request,) = asked
    assert (str(request.url), request.headers["x-api-key"]) == (f"{LIGHT}/enrich", "k")
    sent = fields(request)
    assert (sent["models"], sent["bbox"]) == (b'["pose", "pet"]', b"[1.0, 2.0, 3.5, 4.0]")


def test_annotated_pictures_keep_their_places_and_spare_the_originals(run: Run, folder: Path) -> None:
    assert run(answering(ANSWER), folder, folder / "a.jpg", "--overlay", folder)[0] == 0
    assert (folder / "a.jpg").read_bytes() == b"a.jpg"
    for name in ("a.jpg", "cameras/a.jpg", "cameras/b/1.JPG", "cameras/b/2.png"):
        assert (folder / f"{name}.overlay.jpg").read_bytes() == b"\xff\xd8drawn"


def test_a_picture_that_cannot_be_drawn_or_written_is_told_with_its_answer(run: Run, folder: Path) -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        drawn = request.headers["accept"] == "image/jpeg"
        return error(500, "internal") if drawn else httpx.Response(200, json=ANSWER)

    code, out, _ = run(handle, folder / "a.jpg", "--overlay", folder)
    assert (code, "people: 1" in out, "failed: 500 internal" in out) == (1, True, True)
    code, out, _ = run(answering(ANSWER), folder / "a.jpg", "--overlay", folder / "notes.txt")
    assert (code, "people: 1" in out, "notes.txt" in out.splitlines()[-1]) == (1, True, True)


@pytest.mark.parametrize(("health", "code"), [("healthy", 0), ("degraded", 0), ("unhealthy", 1)])
def test_a_url_prints_the_services_state(run: Run, health: str, code: int) -> None:
    answer = httpx.Response(503 if code else 200, json=HEALTH | {"status": health})
    assert run(answering(answer), LIGHT)[:2] == (
        code,
        f"""{LIGHT}: {health}, up for 2 hours
  pose_estimator   ready, openvino, f32, w@1
  threat_detector  absent, no weights
""",
    )
    found = run(answering(answer), LIGHT, "--json")
    assert found[0] == code
    assert json.loads(found[1])["models"]["threat_detector"]["detail"] == "no weights"


def test_a_service_that_asks_for_a_key_makes_nothing_up(run: Run) -> None:
    def handle(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"status": "healthy"})

    assert run(handle, "http://x") == (
        0,
        "http://x: healthy. It tells more to callers with its API key: --api-key or ENRICHMENT_API_KEY\n",
        "",
    )
    assert json.loads(run(handle, "http://x", "--json")[1]) == {"status": "healthy"}


def test_a_key_that_no_header_can_carry_is_a_wrong_use(run: Run, folder: Path) -> None:
    for target in (folder, "http://x"):
        code, _, said = run(lambda _: httpx.Response(200), target, "--api-key", "schl\u00fcssel")
        assert code == 2
        assert "no header can carry" in said


def test_a_file_name_of_any_bytes_stops_nothing(tmp_path: Path) -> None:
    names = (b"a.jpg", b"b\xff.jpg", b"c.jpg")
    for name in names:
        (tmp_path / os.fsdecode(name)).write_bytes(b"x")
    command = [sys.executable, "-m", "enrichment_client.cli", str(tmp_path), "--url", "http://127.0.0.1:9"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "client"), "PYTHONIOENCODING": "utf-8:strict"}
    for options in ([], ["--json"]):
        done = subprocess.run([*command, *options], env=environment, capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (1, b"")
        assert [name.split(b".")[0] in done.stdout for name in (b"a.jpg", b"b\\udcff.jpg", b"c.jpg")] == [True] * 3


def test_a_service_that_is_not_there_is_said_in_a_line(run: Run, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    def refuse(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("Connection refused")

    async def sleep(_: float) -> None: ...

    monkeypatch.setattr("enrichment_client.client.asyncio.sleep", sleep)
    assert run(refuse, LIGHT) == (1, f"unreachable: {LIGHT}: Connection refused\n", "")
    assert json.loads(run(refuse, LIGHT, "--json")[1])["error"]["code"] == "unreachable"
    code, out, _ = run(refuse, folder / "a.jpg", "--url", LIGHT)
    assert (code, out.count("unreachable")) == (1, 1)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "required"),
        (["absent.jpg"], "absent.jpg is no file, folder or URL"),
        (["{empty}"], "no pictures in"),
        (["{folder}", "--bbox", "1,2,3"], "give x1,y1,x2,y2"),
        (["{folder}", "--bbox", "a,b,c,d"], "give x1,y1,x2,y2"),
        (["{folder}", "--jobs", "0"], "at least 1"),
        (["{folder}", "--url", "localhost:8096"], "is no URL"),
        (["{folder}", "{folder}", "--overlay", "{empty}"], "one by one"),
        ([LIGHT, "{folder}"], "a URL stands alone"),
        (["{folder}", LIGHT], "a URL stands alone"),
        (["{folder}", "--wrong"], "unrecognized"),
    ],
)
def test_a_wrong_use_ends_with_2(run: Run, folder: Path, tmp_path: Path, arguments: Sequence[str], says: str) -> None:
    (tmp_path / "empty").mkdir()
    given = [text.format(folder=folder, empty=tmp_path / "empty") for text in arguments]
    code, out, err = run(answering(ANSWER), *given)
    assert (code, out) == (2, "")
    assert says in err


def test_a_folder_that_may_not_be_entered_is_wrong_use(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def is_dir(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_dir", is_dir)
    code, out, err = run(answering(ANSWER), folder / "a.jpg")
    assert (code, out) == (2, "")
    assert "Permission denied" in err


def test_control_c_ends_it_without_a_traceback(run: Run, folder: Path) -> None:
    def interrupt(_: httpx.Request) -> httpx.Response:
        raise KeyboardInterrupt

    assert run(interrupt, folder) == (130, "", "stopped\n")


def test_a_terminal_gets_a_progress_bar(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("enrichment_client.progress.sys.stderr.isatty", lambda: True)
    _, out, err = run(answering(TROUBLED), folder)
    assert "\r" not in out
    drawn = [frame for frame in err.split("\r\x1b[K") if frame]
    assert [frame.split("] ")[1] for frame in drawn] == ["0/3", "1/3, 1 failed", "2/3, 2 failed", "3/3, 3 failed"]
    assert [frame.count("#") for frame in drawn] == [0, 10, 20, 30]
    assert run(answering(ANSWER), folder / "a.jpg")[2] == ""  # a single picture needs none
