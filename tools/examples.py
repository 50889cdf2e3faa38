"""Asks a live service for api/examples.json, the example answers of the OpenAPI document.

usage: export ENRICHMENT_MODEL_MANAGEMENT=true ENRICHMENT_API_KEY=KEY; bentoml serve service:EnrichmentLight;
then, with the same key: python -m tools.examples [URL]

The service needs the real weights of all models. The pictures are the samples of the page at /.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
from collections.abc import Mapping
from typing import Any, Final

import httpx

from api.examples import FILE
from api.page import FILES

_TIMEOUT_S: Final = 60
_MOST_NUMBERS: Final = 8  # of an embedding
_MOST_MODELS: Final = 2  # of a list of models or runners
_MOST_LINES: Final = 4  # of the metrics
_PERSON: Final = [80, 0, 430, 512]


def collect(service: httpx.Client) -> dict[str, Any]:
    """Return one answer of each operation, by its operationId, shortened."""
    answers = {name: _answer(service.request(*asked[:2], json=asked[2])) for name, asked in _requests().items()}
    embedded = {name: answers["person_reid"][name] for name in ("embedding", "model_id")}
    query = {"query": _image("astronaut.jpg"), "candidates": [{"id": "visitor-1", **embedded}]}
    answers["person_reid_match"] = _answer(service.post("/person-reid/match", json=query))
    return {name: shortened(answer) for name, answer in sorted(answers.items())}


def _requests() -> Mapping[str, tuple[str, str, Mapping[str, Any] | None]]:
    """Return method, path and body by operationId. A model is asked before the state of the service is."""
    person = _image("astronaut.jpg", _PERSON)
    people = {"first": person, "second": _image("astronaut.jpg")}
    box = {"id": "visitor", "bbox": _PERSON, "models": ["person_reid", "depth_estimator"]}
    return {
        "pose_analyze": ("POST", "/pose-analyze", _image("astronaut.jpg")),
        "threat_detect": ("POST", "/threat-detect", _image("astronaut.jpg") | {"min_confidence": 0.01}),
        "person_reid": ("POST", "/person-reid", person),
        "person_reid_compare": ("POST", "/person-reid/compare", people),
        "pet_classify": ("POST", "/pet-classify", _image("cat.jpg")),
        "depth_estimate": ("POST", "/depth-estimate", _image("coffee.jpg", [200, 150, 216, 162])),
        "object_distance": ("POST", "/object-distance", person | {"method": "median", "near_m": 1, "far_m": 6}),
        "enrich": ("POST", "/enrich", _image("astronaut.jpg") | {"boxes": [box]}),
        "health": ("GET", "/health", None),
        "livez": ("GET", "/livez", None),
        "readyz": ("GET", "/readyz", None),
        "metrics": ("GET", "/metrics", None),
        "models_list": ("GET", "/models", None),
        "models_status": ("GET", "/models/status", None),
        "models_get": ("GET", "/models/pet", None),
        "models_unload": ("POST", "/models/pet/unload", None),
        "models_load": ("POST", "/models/pet/load", None),
        "models_preload": ("POST", "/models/preload?model_name=pet", None),
        "models_unload_all": ("POST", "/models/unload-all", None),
    }


def _image(sample: str, box: list[int] | None = None) -> dict[str, Any]:
    image = base64.b64encode((FILES / "samples" / sample).read_bytes()).decode()
    return {"image_base64": image} | ({"bbox": box} if box else {})


def _answer(response: httpx.Response) -> Any:
    is_json = response.raise_for_status().headers["content-type"] == "application/json"
    return response.json() if is_json else response.text


def shortened(value: Any) -> Any:
    """Return an answer with fewer numbers, models and lines of text. It keeps its form."""
    match value:
        case {"source": str(source)}:  # a path of this machine
            return {name: shortened(part) for name, part in value.items()} | {"source": source.rpartition("/")[2]}
        case dict():
            return {name: shortened(part) for name, part in value.items()}
        case [float(), *_]:
            return value[:_MOST_NUMBERS]
        case [{"state": _}, *_]:
            return [shortened(model) for model in value[:_MOST_MODELS]]
        case list():
            return [shortened(part) for part in value]
        case str() if "\n" in value:
            ours = [line for line in value.splitlines(keepends=True) if "enrichment_light_model_loaded" in line]
            return "".join(ours[:_MOST_LINES])
    return value


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", nargs="?", default="http://127.0.0.1:8096")
    key = os.environ.get("ENRICHMENT_API_KEY")  # loading and unloading need one
    headers = {"X-API-Key": key} if key else {}
    with httpx.Client(base_url=parser.parse_args().url, timeout=_TIMEOUT_S, headers=headers) as service:
        examples = collect(service)
    lines = (f"{json.dumps(name)}: {json.dumps(answer, ensure_ascii=False)}" for name, answer in examples.items())
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    print(f"{FILE}: {len(examples)} answers, {FILE.stat().st_size} bytes")


if __name__ == "__main__":
    main()
