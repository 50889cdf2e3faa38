"""Home Assistant's example: its commands ask the service, and its templates read the answers."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import yaml
from jinja2.nativetypes import NativeEnvironment

from benchmarks.serving import free_port
from tests.serving.pictures import encoded, marked, plain
from tests.serving.server import ROOT, Server

FILE: Final = ROOT / "examples" / "home-assistant" / "configuration.yaml"
ADDRESS: Final = "ADDRESS:8096"
ENTITIES: Final = ("Front door threat", "Front door people", "Front door posture", "Front door pet")


class HomeAssistantLoader(yaml.SafeLoader):
    """Knows Home Assistant's tags, and refuses a key that is there twice, as Home Assistant warns of it."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"{keys} holds a key twice"
        return super().construct_mapping(node, deep)


for tag in ("!secret", "!include", "!include_dir_named", "!env_var", "!input"):
    HomeAssistantLoader.add_constructor(tag, lambda _, node: str(node.value))


@pytest.fixture(scope="module")
def configuration() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.load(FILE.read_text(encoding="utf-8"), HomeAssistantLoader)
    return loaded


def render(template: str, **variables: Any) -> Any:
    """As Home Assistant does: a text that is a Python literal becomes its value."""
    environment = NativeEnvironment()
    environment.filters["from_json"] = json.loads
    return environment.from_string(template).render(**variables)


def run(configuration: dict[str, Any], address: str, file: Path) -> dict[str, Any]:
    """What shell_command answers: with a template, it runs the program without a shell."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    program, arguments = configuration["shell_command"]["enrichment"].split(" ", 1)
    words = shlex.split(str(NativeEnvironment().from_string(arguments).render(file=str(file))))
    command = [program, *(word.replace(ADDRESS, address) for word in words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return {"stdout": done.stdout.strip(), "stderr": done.stderr.strip(), "returncode": done.returncode}


def shown(configuration: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    """Name → state and attributes of the entities; None for one that is unavailable."""
    (block,) = configuration["template"]
    variables = {"answer": answer}
    for step in block["actions"]:
        variables |= {name: render(text, **variables) for name, text in step.get("variables", {}).items()}
    found: dict[str, Any] = {}
    for entity in block["binary_sensor"] + block["sensor"]:
        found[entity["name"]] = None
        if render(entity["availability"], **variables):
            attributes = {name: render(text, **variables) for name, text in entity.get("attributes", {}).items()}
            found[entity["name"]] = {"state": render(entity["state"], **variables)} | attributes
    return found


def address(server: Server) -> str:
    return server.url.removeprefix("http://")


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    file = tmp_path / "front door.jpg"
    file.write_bytes(encoded(marked((100, 50, 300, 400), (640, 480)), "JPEG"))
    return file


def test_a_picture_is_asked_about_and_shown(configuration: dict[str, Any], server: Server, picture: Path) -> None:
    answer = run(configuration, address(server), picture)
    assert answer["returncode"] == 0, answer["stderr"]
    found = shown(configuration, answer)
    assert found["Front door people"] == {"state": 1}
    assert found["Front door posture"]["state"] == "standing"
    assert isinstance(found["Front door posture"]["alerts"], list)
    assert found["Front door threat"]["state"] is True
    assert len(found["Front door threat"]["threats"]) == 1
    assert found["Front door pet"]["state"] in ("cat", "dog", "no")


def test_nobody_is_shown_as_nobody(configuration: dict[str, Any], server: Server, tmp_path: Path) -> None:
    file = tmp_path / "night.png"
    file.write_bytes(encoded(plain((0, 0, 0))))
    found = shown(configuration, run(configuration, address(server), file))
    assert found["Front door people"] == {"state": 0}
    assert found["Front door threat"] == {"state": False, "threats": []}
    assert found["Front door posture"] == {"state": "unknown", "alerts": []}


@pytest.mark.parametrize("content", [b"", b"no picture"])
def test_what_is_no_picture_makes_the_entities_unavailable(
    configuration: dict[str, Any], server: Server, tmp_path: Path, content: bytes
) -> None:
    file = tmp_path / "broken.jpg"
    file.write_bytes(content)
    answer = run(configuration, address(server), file)
    assert "returned error: 4" in answer["stderr"]
    assert shown(configuration, answer) == dict.fromkeys(ENTITIES)


def test_a_file_or_a_service_that_is_not_there_makes_them_unavailable(
    configuration: dict[str, Any], server: Server, picture: Path
) -> None:
    for asked in (
        run(configuration, address(server), picture.parent / "none.jpg"),
        run(configuration, f"127.0.0.1:{free_port()}", picture),
    ):
        assert shown(configuration, asked) == dict.fromkeys(ENTITIES)


@pytest.mark.parametrize(
    ("missing", "names"),
    [
        ("pose_estimator", {"Front door people", "Front door posture"}),
        ("threat_detector", {"Front door threat"}),
        ("pet_classifier", {"Front door pet"}),
    ],
)
def test_a_model_without_an_answer_makes_its_entities_unavailable(
    configuration: dict[str, Any], server: Server, picture: Path, missing: str, names: set[str]
) -> None:
    answer = run(configuration, address(server), picture)
    body = json.loads(answer["stdout"])
    del body["results"][missing]
    found = shown(configuration, answer | {"stdout": json.dumps(body)})
    assert {name for name, value in found.items() if value is None} == names


def test_the_state_of_the_service_is_read(configuration: dict[str, Any], server: Server) -> None:
    (rest,) = configuration["rest"]
    body = httpx.get(rest["resource"].replace(ADDRESS, address(server))).json()
    (sensor,) = rest["sensor"]
    assert render(sensor["value_template"], value_json=body) == "healthy"
    assert set(sensor["json_attributes"]) <= set(body)


def test_the_rest_command_reaches_its_route(configuration: dict[str, Any], server: Server) -> None:
    """This service does not allow it, which it says only where the route and the model exist."""
    command = configuration["rest_command"]["enrichment_preload"]
    url = str(render(command["url"], model="pose")).replace(ADDRESS, address(server))
    answer = httpx.request(command["method"], url)
    assert (answer.status_code, "ENRICHMENT_MODEL_MANAGEMENT" in answer.text) == (403, True)


def test_what_the_actions_call_is_defined(configuration: dict[str, Any]) -> None:
    (block,) = configuration["template"]
    called = [step["action"] for step in block["actions"] if "action" in step]
    assert called == ["camera.snapshot", "shell_command.enrichment"]
    assert block["actions"][0]["data"]["filename"] == block["actions"][1]["data"]["file"]
    identifiers = [entity["unique_id"] for entity in block["binary_sensor"] + block["sensor"]]
    assert len(identifiers) == len(set(identifiers))
