"""Asks a server with the client packages of DeepStack and CodeProject.AI, in a process that can import them.

`python deepstack_ways.py PORT IMAGE` prints one JSON object: what each package makes of the answers.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import codeprojectai.core as codeproject  # type: ignore[import-not-found]
import deepstack.core as deepstack  # type: ignore[import-not-found]
from deepstack_sdk import Detection, Face, ServerConfig  # type: ignore[import-not-found]

HOST = "127.0.0.1"


def main(port: int, image: bytes) -> dict[str, Any]:
    server = ServerConfig(f"http://{HOST}:{port}", api_key="key")

    def sdk(name: str | None = None) -> list[Any]:
        found = Detection(server, name=name).detectObject(image, min_confidence=0.2)
        return [[each.label, each.confidence, each.x_min, each.y_min, each.x_max, each.y_max] for each in found]

    def objects(custom_model: str = "") -> Any:
        return deepstack.DeepstackObject(HOST, port, "key", 60, 0.2, custom_model).detect(image)

    return {
        "deepstack-python": {
            "detection": objects(),
            "pose": objects("pose"),
            "summary": deepstack.get_objects_summary(objects()),
            "unknown model": _error(lambda: objects("ipcam-general")),
            "faces": _error(lambda: deepstack.DeepstackFace(HOST, port).detect(image)),
        },
        "codeproject-ai-api": {
            "detection": codeproject.CodeProjectAIObject(HOST, port, 60, 0.2).detect(image),
            "faces": _error(lambda: codeproject.CodeProjectAIFace(HOST, port).detect(image)),
        },
        "deepstack-sdk": {
            "detection": sdk(),
            "pose": sdk("pose"),
            "damaged": _error(lambda: Detection(server).detectObject(image[:40])),
            "confidence": _error(lambda: Detection(server).detectObject(image, min_confidence=40)),
            "faces": _error(lambda: Face(server).detectFace(image)),
        },
    }


def _error(ask: Callable[[], Any]) -> str:
    """Return the text of the error that a package raises."""
    try:
        ask()
    except Exception as error:  # noqa: BLE001 - deepstack-sdk raises Exception itself
        return str(error)
    raise AssertionError("the package raised no error")


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(int(sys.argv[1]), Path(sys.argv[2]).read_bytes())))
