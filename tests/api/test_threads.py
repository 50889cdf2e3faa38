"""The event loop's own thread does no work that grows with a request's bytes or pixels."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

import pytest

from api.comparison import COMPARE_ROUTE, MATCH_ROUTE
from api.deepstack_shapes import ASKED
from api.enrichment import ENRICH_ROUTE
from api.request import Received
from api.steps import MODEL_OF
from engines.deadline import Deadline
from settings import DEFAULT_FILE, load
from tests.api.answered import Runner, answering_of
from tests.api.bodies import as_form, as_json
from tests.serving.pictures import base64_of, encoded, plain

KEY: Final = "a-key-of-twenty-four-chars"
SETTINGS: Final = load(DEFAULT_FILE, {"ENRICHMENT_DEEPSTACK": "true", "ENRICHMENT_API_KEY": KEY})
IMAGE: Final = encoded(plain((9, 8, 7), (60, 40)), "JPEG")
# Modules that read, decode, hash, draw or encode.
HEAVY: Final = (
    *(
        "json",
        "zlib",
        "email.parser",
        "pybase64",
        "_hashlib",
        "PIL",
        "cv2",
        "simplejpeg",
        "cykooz_resizer",
        "pydantic_core",
    ),
    *("api.body", "api.form", "api.encoded", "api.coding", "vision.decoding", "vision.canvas", "vision.depth_map"),
)
VECTOR: Final = {"embedding": [0.5] * 512, "model_id": "m"}
BOXES: Final = [[1, 2, 30, 40], [4, 4, 20, 20]]
REQUESTS: Final[dict[str, tuple[str, Received]]] = {
    **{f"base64 to {route}": (route, as_json({"image": base64_of(IMAGE), "bbox": BOXES[0]})) for route in MODEL_OF},
    "a form": ("/pose-analyze", as_form(("image", IMAGE))),
    "a picture as the answer": ("/pose-analyze", as_form(("image", IMAGE), ("render", "overlay"))),
    "a map as the answer": ("/depth-estimate", as_form(("image", IMAGE), ("format", "png16"))),
    "boxes": (ENRICH_ROUTE, as_json({"image": base64_of(IMAGE), "boxes": BOXES, "render": "overlay"})),
    "two embeddings": (COMPARE_ROUTE, as_json({"first": VECTOR, "second": VECTOR})),
    "candidates": (MATCH_ROUTE, as_json({"query": VECTOR, "candidates": [{"id": "a", **VECTOR}]})),
    **{f"{route} of DeepStack": (route, as_form(("image", IMAGE), ("api_key", KEY))) for route in ASKED},
}


@contextmanager
def calls_of_this_thread() -> Iterator[set[str]]:
    """Collect the modules whose functions this thread calls within the block."""
    modules: set[str] = set()

    def note(frame: FrameType, event: str, called: Any) -> None:
        if event == "call":
            modules.add(frame.f_globals.get("__name__", ""))
        elif event == "c_call":
            modules.add(called.__module__ or "")

    sys.setprofile(note)
    try:
        yield modules
    finally:
        sys.setprofile(None)


@pytest.mark.parametrize("name", REQUESTS)
async def test_the_loop_hands_over_whatever_may_take_long(name: str) -> None:
    route, received = REQUESTS[name]
    untrusted = Received(received.content_type, received.body, received.query, trusted=False)
    answering = answering_of(Runner(people=1), settings=SETTINGS)
    with calls_of_this_thread() as modules:
        body = await answering.answer(route, untrusted, Deadline.after(30))
    assert len(body.data) > 0
    assert not [module for module in modules if any(f"{module}.".startswith(f"{heavy}.") for heavy in HEAVY)]


def test_the_recorder_sees_python_s_and_c_s_functions() -> None:
    with calls_of_this_thread() as modules:
        json.loads("[1]")
        base64_of(IMAGE)
    assert {"json", "json.decoder", "binascii"} <= modules
