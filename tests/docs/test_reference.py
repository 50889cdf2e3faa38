"""The generated pages hold everything that the code knows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from api.errors import STATUS
from settings import DEFAULT_FILE, ENVIRONMENT, SERVICE_NAME
from tools.docs import reference
from tools.docs.text import Schema, fields, kind


def test_each_variable_has_a_row_with_its_meaning() -> None:
    rows = {
        line.split("|")[1].strip(" `"): line for line in reference.settings().splitlines() if line.startswith("| `")
    }
    for variable, _ in ENVIRONMENT:
        cells = [cell.strip() for cell in rows[variable].replace("\\|", "").strip("|").split("|")]
        assert len(cells) == 4, variable
        assert cells[2], variable
        assert cells[3], variable


def test_each_key_of_the_file_has_a_row() -> None:
    def leaves(tree: dict[str, Any], place: str = "") -> Iterator[str]:
        for key, value in tree.items():
            if isinstance(value, dict):
                yield from leaves(value, f"{place}{key}.")
            else:
                yield f"{place}{key}"

    tree = yaml.safe_load(DEFAULT_FILE.read_text("utf-8"))["services"][SERVICE_NAME]["enrichment"]
    keys = list(leaves(tree))
    assert len(keys) > 40
    assert [line.split("`")[1] for line in reference.configuration().splitlines() if line.startswith("| `")] == sorted(
        keys, key=lambda key: "." in key
    )


def test_each_metric_and_error_has_a_row() -> None:
    assert "| `enrichment_light_inference_requests_total` | counter | `endpoint`, `status` |" in reference.metrics()
    assert "| `enrichment_light_inference_latency_seconds` | histogram | `endpoint` |" in reference.metrics()
    for code, status in STATUS.items():
        assert f"| {status} | `{code}` |" in reference.errors()


MODELS: dict[str, Schema] = {"Box": {"type": "object", "properties": {"x": {"type": "number"}}}}


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "integer", "minimum": 1, "maximum": 9}, "integer, ≥ 1, ≤ 9"),
        ({"type": "number", "exclusiveMinimum": 0}, "number, > 0"),
        ({"enum": ["a", "b"]}, "`a`, `b`"),
        ({"const": True}, "`true`"),
        ({"anyOf": [{"const": "auto"}, {"type": "number"}, {"type": "null"}]}, "`auto` or number or null"),
        ({"type": "array", "items": {"type": "number"}, "minItems": 4, "maxItems": 4}, "list of 4 numbers"),
        ({"$ref": "#/x/Box"}, "object"),
        ({"type": "string", "format": "uri"}, "URL"),
    ],
)
def test_types_are_words(schema: Schema, words: str) -> None:
    assert kind(schema, MODELS) == words


def test_fields_have_their_paths() -> None:
    schema = {
        "type": "object",
        "properties": {
            "boxes": {"type": "array", "items": {"$ref": "#/x/Box"}},
            "models": {"type": "object", "additionalProperties": {"anyOf": [{"$ref": "#/x/Box"}, {"type": "boolean"}]}},
        },
    }
    assert [path for path, _ in fields(schema, MODELS)] == ["boxes", "boxes[].x", "models", "models.*", "models.*.x"]
