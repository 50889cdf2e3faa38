"""BentoML's own client: whatever a person would try works, or somebody says what is wrong."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import bentoml
import numpy as np
import pytest
from PIL import Image

from tests.clients.ways import BOX, BOX_TEXT
from tests.serving.fake import colour_of
from tests.serving.pictures import ROUTES, base64_of, encoded, plain
from tests.serving.server import Server

pytestmark = pytest.mark.serve

LEFT: Final = (10, 200, 30)  # the colour in BOX
METHODS: Final = tuple(route.removeprefix("/").replace("-", "_") for route in ROUTES)
Form = Callable[[Path], dict[str, Any]]


def text_of(path: Path) -> str:
    return base64_of(path.read_bytes())


def loaded(path: Path) -> Image.Image:
    image = Image.open(path)
    image.load()
    return image


# What works.
IMAGES: Final[dict[str, Form]] = {
    "Path": lambda path: {"image": path},
    "str": lambda path: {"image": str(path)},
    "Pillow, opened": lambda path: {"image": Image.open(path)},
    "Pillow, opened from bytes": lambda path: {"image": Image.open(io.BytesIO(path.read_bytes()))},
    "a list of one": lambda path: {"image": [path]},
    "base64": lambda path: {"image_base64": text_of(path)},
    "data URL": lambda path: {"image_base64": f"data:image/png;base64,{text_of(path)}"},
    "no base64": lambda path: {"image": path, "image_base64": None},
}
OPTIONS: Final[dict[str, dict[str, Any]]] = {
    "list": {"bbox": list(BOX)},
    "tuple": {"bbox": BOX},
    "floats": {"bbox": [float(value) for value in BOX]},
    "size": {"bbox": {"x": 0, "y": 0, "width": 30, "height": 48}, "min_confidence": 0.5},
    "corners": {"bbox": {"x1": 0, "y1": 0, "x2": 30, "y2": 48}, "min_confidence": 1},
    "text": {"bbox": BOX_TEXT, "min_confidence": None},
    "JSON": {"bbox": str(list(BOX)), "min_confidence": "0.5", "min_keypoint_confidence": 0.2},
    "array.tolist()": {"bbox": np.array(BOX).tolist()},
}

# What the service refuses, and what it says.
REFUSED: Final[dict[str, tuple[Form, str]]] = {
    "nothing": (lambda _: {}, "send {"),
    "both": (lambda path: {"image": path, "image_base64": text_of(path)}, "send exactly one of the two"),
    "two files": (lambda path: {"image": [path, path]}, "send exactly one"),
    "a URL": (lambda _: {"image": "https://camera/1.jpg"}, "the service fetches nothing"),
    "a path as base64": (lambda path: {"image_base64": str(path)}, "the service opens none; send what is in it"),
    "base64 of str(bytes)": (lambda path: {"image_base64": str(text_of(path).encode())}, "`.decode()` is missing"),
    "several boxes": (lambda path: {"image": path, "bbox": [BOX, BOX]}, "send one box in a request"),
    "an empty box": (lambda path: {"image": path, "bbox": [5, 5, 5, 5]}, "must have x2 > x1"),
    "percent": (lambda path: {"image": path, "min_confidence": 50}, "from 0 to 1"),
    "true": (lambda path: {"image": path, "min_confidence": True}, "must be a number from 0 to 1"),
}

# What BentoML's client refuses before anything is sent. docs/use/python.md says what to send instead.
REFUSED_BY_ITSELF: Final[dict[str, tuple[Form, type[Exception] | tuple[type[Exception], ...]]]] = {
    "bytes": (lambda path: {"image": path.read_bytes()}, AssertionError),
    "open file": (lambda path: {"image": path.open("rb")}, AssertionError),
    "array": (lambda path: {"image": np.asarray(Image.open(path))}, AssertionError),
    "None": (lambda path: {"image": None, "image_base64": text_of(path)}, AssertionError),
    "Pillow, made": (lambda _: {"image": plain(LEFT)}, AttributeError),  # it sends the file that a picture came from
    "Pillow, loaded": (lambda path: {"image": loaded(path)}, (AttributeError, ValueError)),
    "base64 as image": (lambda path: {"image": text_of(path)}, OSError),  # a path
    "bytes as base64": (lambda path: {"image_base64": path.read_bytes()}, TypeError),
    "Path as base64": (lambda path: {"image_base64": path}, TypeError),
    "bbox array": (lambda path: {"image": path, "bbox": np.array(BOX)}, TypeError),
    "bbox of numpy's numbers": (lambda path: {"image": path, "bbox": list(np.array(BOX))}, TypeError),
    "numpy's number": (lambda path: {"image": path, "min_confidence": np.float32(0.5)}, TypeError),
    "an unknown option": (lambda path: {"image": path, "confidence": 0.5}, TypeError),
}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """64×48: the left half of one colour, noise at the right, so that the file has several kilobytes."""
    image = Image.effect_noise((64, 48), 120).convert("RGB")
    image.paste(LEFT, (0, 0, 32, 48))
    path = tmp_path_factory.mktemp("picture") / "halves.png"
    path.write_bytes(encoded(image))
    return path


@pytest.fixture(scope="module")
def bento(server: Server) -> Any:
    with bentoml.SyncHTTPClient(server.url) as client:
        yield client


@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.parametrize("options", OPTIONS)
def test_images_and_options_arrive(bento: Any, path: Path, image: str, options: str) -> None:
    assert colour_of(bento.person_reid(**IMAGES[image](path), **OPTIONS[options])["embedding"]) == LEFT
    assert colour_of(bento.call("person_reid", **IMAGES[image](path), **OPTIONS[options])["embedding"]) == LEFT


@pytest.mark.parametrize("method", METHODS)
def test_every_route_is_a_method(bento: Any, path: Path, method: str) -> None:
    for request in ({"image": path}, {"image_base64": text_of(path)}, {"image": path, "bbox": None}):
        assert getattr(bento, method)(**request)["inference_time_ms"] > 0


@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.parametrize(
    "options",
    [
        {"models": ["person_reid"], "bbox": BOX},
        {"models": ("reid",), "boxes": [{"id": "0", "bbox": BOX}], "options": None},
        {"models": "reid", "boxes": [list(BOX)], "options": {"person_reid": {}}},
        {"models": "reid,depth", "bbox": BOX_TEXT, "options": {"depth": {"map": True}}},
    ],
    ids=["list", "tuple", "str", "text"],
)
def test_enrich_takes_the_same_images(bento: Any, path: Path, image: str, options: dict[str, Any]) -> None:
    (box,) = bento.enrich(**IMAGES[image](path), **options)["boxes"]
    assert colour_of(box["results"]["person_reid"]["embedding"]) == LEFT


async def test_the_asynchronous_client_does_the_same(server: Server, path: Path) -> None:
    async with bentoml.AsyncHTTPClient(server.url) as client:
        assert await client.is_ready()
        for image in IMAGES.values():
            for method in METHODS:
                assert (await getattr(client, method)(**image(path), bbox=None))["inference_time_ms"] > 0
            for options in OPTIONS.values():
                answer = await client.person_reid(**image(path), **options)
                assert colour_of(answer["embedding"]) == LEFT
        for form, says in REFUSED.values():
            with pytest.raises(bentoml.exceptions.BentoMLException, match=re.escape(says)):
                await client.person_reid(**form(path))


def test_bentomls_client_compares_people(bento: Any, path: Path) -> None:
    side = {"image_base64": text_of(path)}
    assert bento.person_reid_compare(first=side, second=side)["cosine"] == 1.0
    candidate = {"id": "a", **bento.person_reid(**side)}
    assert bento.person_reid_match(query=side, candidates=[candidate])["best"] == {"id": "a", "cosine": 1.0}


@pytest.mark.parametrize("name", REFUSED)
def test_a_mistake_is_raised_with_its_status_and_a_sentence(bento: Any, path: Path, name: str) -> None:
    form, says = REFUSED[name]
    with pytest.raises(bentoml.exceptions.BentoMLException) as caught:
        bento.person_reid(**form(path))
    assert caught.value.error_code in (400, 422)
    assert says in json_message(caught.value)


def json_message(error: Exception) -> str:
    """The message, whose quotes are those of JSON."""
    return str(error).replace('\\"', '"')


@pytest.mark.parametrize("name", REFUSED_BY_ITSELF)
def test_what_bentomls_client_refuses_itself(bento: Any, path: Path, name: str) -> None:
    """Where this fails BentoML has learnt something: say so in docs/use/python.md."""
    form, error = REFUSED_BY_ITSELF[name]
    with pytest.raises(error):
        bento.person_reid(**form(path))
