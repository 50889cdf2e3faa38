"""Files of the model store that vanish, are cut or exchanged: the model has failed, and comes back with its file."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from models import store
from models.catalogue import CATALOGUE, ModelName
from tests.models.cards import card
from tests.serving import fake
from tests.serving.pictures import ask, check_error, encoded, plain
from tests.serving.server import REAL, SMALL_BATCHES, Server, configuration, serving

pytestmark = pytest.mark.serve

PNG: Final = encoded(plain((1, 2, 3)))
IDLE_S: Final = 1.0


def vanish(graph: Path) -> None:
    graph.unlink()


def cut(graph: Path) -> None:
    with graph.open("r+b") as file:
        file.truncate(graph.stat().st_size // 2)


def exchange(graph: Path) -> None:
    """Write another network's bytes in, as many as before."""
    content = bytearray(graph.read_bytes())
    content[len(content) // 2] ^= 1
    graph.write_bytes(content)


FAULTS: Final[dict[Callable[[Path], None], str]] = {
    vanish: "graph.onnx is missing or not",
    cut: "graph.onnx is missing or not",
    exchange: "graph.onnx is not the file that was imported: sha256",
}


def save(folder: Path, name: ModelName, outputs: dict[str, int]) -> Path:
    """Store a network that multiplies an image's mean colour. outputs: name → size. Returns its graph."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", "h", "w", 3])
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels", "sides"], ["colour"], keepdims=0),
        *(helper.make_node("MatMul", ["colour", f"{each} weights"], [each]) for each in outputs),
    ]
    weights = [numpy_helper.from_array(np.array([1, 2]), "sides")] + [
        numpy_helper.from_array(rng.random((3, size), np.float32), f"{each} weights") for each, size in outputs.items()
    ]
    values = [helper.make_tensor_value_info(each, TensorProto.FLOAT, ["n", size]) for each, size in outputs.items()]
    model = helper.make_model(
        helper.make_graph(nodes, name, [image], values, weights), opset_imports=[helper.make_opsetid("", 18)]
    )
    model.ir_version = 9
    onnx.save(model, folder / store.GRAPH)
    weights_name = CATALOGUE[name].weights
    made = replace(card(), name=name, weights=weights_name, input=fake.PET_INPUT, outputs=tuple(outputs))
    return store.save(made, "made-1", folder).graph


@pytest.fixture
def graph(home: Path, tmp_path: Path) -> Path:
    """The pet classifier's graph, in a store that has the re-identifier, too."""
    save(tmp_path / "reid", "person_reid", {"embedding": 512})
    return save(tmp_path / "pet", "pet_classifier", {"logits": 2, "features": 16})


def check_lost(server: Server, client: httpx.Client, reason: str) -> None:
    """The model says why it can't answer, and the other one answers."""
    check_error(ask(client, "/pet-classify", PNG), 503, "model_unavailable")
    server.wait(lambda: server.model("pet_classifier")["state"] == "failed", "failed", 5)
    detail: Any = server.model("pet_classifier")["detail"]
    assert reason in detail
    assert "python -m models.import_models pet_classifier" in detail
    assert ask(client, "/person-reid", PNG).status_code == 200
    assert server.health().json()["status"] == "degraded"


@pytest.mark.slow
@pytest.mark.parametrize("fault", [vanish, cut, exchange])
def test_a_file_that_is_lost_before_the_start_or_later_is_told_and_found_again(
    home: Path, graph: Path, tmp_path: Path, fault: Callable[[Path], None]
) -> None:
    elsewhere: tuple[ModelName, ...] = ("pose_estimator", "threat_detector", "depth_estimator")
    changes = {"models.pet_classifier.idle_ttl_s": IDLE_S, "preload": ["person_reid"]}
    environment = {
        **{CATALOGUE[name].assignment_variable: "heavy" for name in elsewhere},
        **SMALL_BATCHES,
        "BENTOML_HOME": str(home),
        "BENTOML_CONFIG": str(configuration(tmp_path, changes)),
        "ENRICHMENT_PRECISION": "f32",
    }
    kept = shutil.copy2(graph, tmp_path / "kept")
    fault(graph)
    with serving(tmp_path, environment, REAL) as server, httpx.Client(base_url=server.url, timeout=30) as client:
        check_lost(server, client, FAULTS[fault])
        shutil.copy2(kept, graph)
        server.wait(lambda: ask(client, "/pet-classify", PNG).status_code == 200, "back", 30)
        server.wait(lambda: server.model("pet_classifier")["state"] == "ready", "ready", 5)  # by the next heartbeat
        fault(graph)
        server.wait(lambda: server.model("pet_classifier")["state"] == "unloaded", "unloaded", 30)
        check_lost(server, client, FAULTS[fault])
        shutil.copy2(kept, graph)
        server.wait(lambda: ask(client, "/pet-classify", PNG).status_code == 200, "back again", 30)
    assert "Traceback" not in server.log
