"""The example answers of the OpenAPI document, in its committed snapshot."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from api.examples import FILE, examples
from tests.serving.document import Document
from tools.examples import shortened
from tools.openapi import SNAPSHOT

DOCUMENT = Document(json.loads(SNAPSHOT.read_text(encoding="utf-8")))
OPERATIONS = {
    operation["operationId"]: (method, path, operation)
    for path, item in DOCUMENT.content["paths"].items()
    for method, operation in item.items()
}


def test_every_operation_has_an_example() -> None:
    assert sorted(examples()) == sorted(OPERATIONS), "see `make help`: examples, then openapi"


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_example_is_an_answer_as_described(name: str) -> None:
    method, path, operation = OPERATIONS[name]
    kind, content = next(iter(operation["responses"]["200"]["content"].items()))
    value = content["example"]
    assert value == examples()[name]
    body = value if isinstance(value, str) else json.dumps(value)
    headers = {"content-type": kind, "x-request-id": "a"}
    request = httpx.Request(method.upper(), f"http://localhost{path.format(name='reid')}")
    DOCUMENT.check_response(httpx.Response(200, text=body, headers=headers, request=request))


def test_the_examples_are_small() -> None:
    assert FILE.stat().st_size <= 30_000


@pytest.mark.parametrize(
    ("answer", "short"),
    [
        ({"embedding": [0.5] * 512, "embedding_dim": 512}, {"embedding": [0.5] * 8, "embedding_dim": 512}),
        ({"models": [{"state": "ready"}] * 5}, {"models": [{"state": "ready"}] * 2}),
        ({"keypoints": [{"x": 1.5}] * 17}, {"keypoints": [{"x": 1.5}] * 17}),
        ([{"weights": {"source": "/home/me/best.pt"}}], [{"weights": {"source": "best.pt"}}]),
        ({"detail": None, "labels": ["Gun"], "bbox_xyxy": [1.0, 2.0]}, None),
    ],
)
def test_a_shortened_answer_keeps_its_form(answer: Any, short: Any) -> None:
    assert shortened(answer) == (answer if short is None else short)
