"""Every client asks the service: libraries, programs and generated code. BentoML's has test_bentoml_client.py."""

from __future__ import annotations

import importlib
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.clients.ways import BOX, BOX_TEXT, WAYS, Picture, Way
from tests.serving.fake import colour_of
from tests.serving.pictures import ROUTES, base64_of, encoded
from tests.serving.server import Server, serving
from tools.openapi import SNAPSHOT
from vision.posture import Alert, Posture

pytestmark = pytest.mark.serve

LEFT = (10, 200, 30)  # what is in BOX


def halves() -> bytes:
    """64×48: the left half of one colour, noise at the right, so that a file has several kilobytes."""
    image = Image.effect_noise((64, 48), 120).convert("RGB")
    image.paste(LEFT, (0, 0, 32, 48))
    return encoded(image)


@pytest.fixture(scope="module")
def picture(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Picture:
    folder = tmp_path_factory.mktemp("picture")
    path, text = folder / "halves.png", folder / "halves.txt"
    path.write_bytes(halves())
    text.write_text(base64_of(path.read_bytes()), encoding="ascii")
    return Picture(f"{server.url}/person-reid", path, text)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: f"{way.client}: {way.name}")
def test_an_image_and_its_box_arrive(picture: Picture, way: Way) -> None:
    way.skip_without()
    answer = json.loads(way.ask(picture))
    assert "error" not in answer, answer
    assert colour_of(answer["embedding"]) == LEFT


METHODS = tuple(route.removeprefix("/").replace("-", "_") for route in ROUTES)


# ── a client generated from the document ──


@pytest.fixture(scope="module")
def managed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service that lets callers load and unload models."""
    with serving(
        tmp_path_factory.mktemp("managed"), {"ENRICHMENT_MODEL_MANAGEMENT": "true", "ENRICHMENT_API_KEY": "key"}
    ) as running:
        yield running


@pytest.fixture(scope="module")
def generated(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The name of the package that openapi-python-client has made."""
    pytest.importorskip("openapi_python_client")
    folder = tmp_path_factory.mktemp("generated")
    (folder / "openapi.json").write_bytes(httpx.get(f"{server.url}/openapi.json").content)
    (folder / "config.yaml").write_text("post_hooks: []", encoding="utf-8")
    options = [
        "--path",
        "openapi.json",
        "--config",
        "config.yaml",
        "--meta",
        "none",
        "--output-path",
        "generated_client",
    ]
    command = [sys.executable, "-m", "openapi_python_client", "generate", *options]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    complaints = [line for line in done.stdout.splitlines() if line.startswith(("ERROR", "Unsupported", "WARNING"))]
    assert all("image/" in line or "parsing POST" in line for line in complaints), complaints
    sys.path.insert(0, str(folder))
    yield "generated_client"
    sys.path.remove(str(folder))
    for name in [name for name in sys.modules if name.split(".")[0] == "generated_client"]:
        del sys.modules[name]


def _bodies(models: ModuleType, types: ModuleType, picture: Picture, method: str) -> dict[str, Any]:
    """Every body that the generated client knows; None is where a query takes the box."""
    name = {"person_reid": "ImageInput", "depth_estimate": "MapInput"}.get(method, "DrawnInput")
    forms = {form: getattr(models, f"{name}{form}") for form in ("ByImage", "ByImageBase64", "File", "Text")}
    file = types.File(io.BytesIO(picture.data), "camera.png", "image/png")
    box = models.BoxBySize(x=0, y=0, width=30, height=48)
    return {
        "image_base64": forms["ByImageBase64"](image_base64=picture.base64, bbox=list(BOX)),
        "image": forms["ByImage"](image=picture.base64, bbox=box, min_confidence=0.5),
        "unset": forms["ByImage"](image=picture.base64, bbox=list(BOX), min_confidence=None),
        "file": forms["File"](image=file, bbox=BOX_TEXT, min_confidence=0.5),
        "form": forms["Text"](image_base64=picture.base64, bbox=BOX_TEXT),
        "raw": types.File(io.BytesIO(picture.data)),
    }


@pytest.mark.parametrize("body", ["image_base64", "image", "unset", "file", "form", "raw"])
@pytest.mark.parametrize("method", METHODS)
def test_a_generated_client_calls_every_route(
    server: Server, picture: Picture, generated: str, method: str, body: str
) -> None:
    route = importlib.import_module(f"{generated}.api.analysis.{method}")
    models, types = (importlib.import_module(f"{generated}.{name}") for name in ("models", "types"))
    options = {"bbox": BOX_TEXT} if body == "raw" else {}
    with importlib.import_module(generated).Client(server.url, raise_on_unexpected_status=True) as client:
        answer = route.sync(client=client, body=_bodies(models, types, picture, method)[body], **options)
    assert not isinstance(answer, models.ErrorResponse), answer
    assert answer.inference_time_ms > 0
    if method == "person_reid":
        assert colour_of(answer.embedding) == LEFT


OPERATIONS = {
    operation["operationId"]: operation["tags"][0]
    for item in json.loads(SNAPSHOT.read_text(encoding="utf-8"))["paths"].values()
    for operation in item.values()
}


def _calls(models: ModuleType, picture: Picture) -> dict[str, dict[str, Any]]:
    """A call of each operation that succeeds, by its operationId."""
    image = models.SideByImage(image=picture.base64)
    vector = [0.0] * 511 + [1.0]
    person = models.SideByEmbedding(embedding=vector, model_id="osnet")
    candidate = models.CandidateInput(id="a", embedding=vector, model_id="osnet")
    return {
        "pose_analyze": {"body": models.DrawnInputByImage(image=picture.base64)},
        "threat_detect": {"body": models.DrawnInputByImage(image=picture.base64)},
        "person_reid": {"body": models.ImageInputByImage(image=picture.base64)},
        "pet_classify": {"body": models.DrawnInputByImage(image=picture.base64)},
        "depth_estimate": {"body": models.MapInputByImage(image=picture.base64)},
        "object_distance": {"body": models.DistanceInputByImage(image=picture.base64, bbox=list(BOX))},
        "enrich": {"body": models.EnrichInputByImage(image=picture.base64)},
        "person_reid_compare": {"body": models.CompareInput(first=image, second=image)},
        "person_reid_match": {"body": models.MatchInput(query=person, candidates=[candidate])},
        **{name: {} for name in ("health", "livez", "readyz", "metrics", "models_list", "models_status")},
        "models_get": {"name": "reid"},
        "models_unload": {"name": "reid"},
        "models_load": {"name": "reid"},
        "models_preload": {"model_name": "reid"},
        "models_unload_all": {},
    }


def test_a_generated_client_has_an_answer_of_every_operation(managed: Server, picture: Picture, generated: str) -> None:
    models = importlib.import_module(f"{generated}.models")
    calls = _calls(models, picture)
    assert set(calls) == set(OPERATIONS), "a new operation needs a call"
    headers = {"X-API-Key": "key"}
    made = importlib.import_module(generated).Client(managed.url, raise_on_unexpected_status=True, headers=headers)
    with made as client:
        for name, arguments in calls.items():
            operation = importlib.import_module(f"{generated}.api.{OPERATIONS[name]}.{name}")
            answer = operation.sync_detailed(client=client, **arguments)
            assert answer.status_code == 200, (name, answer.content)
            assert type(answer.parsed).__name__ not in {"NoneType", "ErrorResponse"}, name


def test_a_generated_client_knows_postures_and_alerts(generated: str) -> None:
    models = importlib.import_module(f"{generated}.models")
    assert {each.value for each in models.Posture} == {each.value for each in Posture}
    assert {each.value for each in models.Alert} == {each.value for each in Alert}


def test_a_generated_client_compares_people(server: Server, picture: Picture, generated: str) -> None:
    route = importlib.import_module(f"{generated}.api.analysis.person_reid_compare")
    models = importlib.import_module(f"{generated}.models")
    first, second = models.SideByImage(image=picture.base64), models.SideByImageBase64(image_base64=picture.base64)
    with importlib.import_module(generated).Client(server.url, raise_on_unexpected_status=True) as client:
        answer = route.sync(client=client, body=models.CompareInput(first=first, second=second, threshold=0.9))
    assert (answer.cosine, answer.same_person, answer.threshold) == (1.0, True, 0.9)


def test_a_generated_client_reads_errors_and_health(server: Server, generated: str) -> None:
    models = importlib.import_module(f"{generated}.models")
    route = importlib.import_module(f"{generated}.api.analysis.person_reid")
    health = importlib.import_module(f"{generated}.api.state.health")
    with importlib.import_module(generated).Client(server.url) as client:
        unreadable = route.sync(client=client, body=models.ImageInputByImage(image="AA==")).error
        assert unreadable.code is models.ErrorBodyCode.INVALID_IMAGE
        wrong = route.sync(client=client, body=models.ImageInputByImage(image="AA==", min_confidence=7)).error
        assert [detail.field for detail in wrong.details] == ["min_confidence"]
        assert health.sync(client=client).models["person_reid"].state is models.State.READY
        described = importlib.import_module(f"{generated}.api.state.models_get").sync("reid", client=client)
        assert (described.state, described.weights.licence) == (models.State.READY, "MIT")
