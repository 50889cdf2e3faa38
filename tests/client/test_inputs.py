"""What a picture and a box may be, and what of them is sent."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image, ImageOps

from enrichment_client import Client, images
from enrichment_client.answers import Box, Reid
from enrichment_client.images import box, encoded
from tests.client.service import LIGHT, PET, Service, ask_sync, fields
from tests.serving.pictures import encoded as file_of

NOISE = Image.effect_noise((31, 20), 90).convert("RGB")
NOISE.putpixel((0, 0), (1, 2, 3))
PIXELS = np.asarray(NOISE)


def pixels_of(data: bytes) -> Any:
    return np.asarray(Image.open(io.BytesIO(data)))


# ── pictures ──


@pytest.mark.parametrize(
    "form",
    [Path, str, Path.read_bytes, lambda path: bytearray(path.read_bytes()), lambda path: memoryview(path.read_bytes()),
     lambda path: path.open("rb"), lambda path: io.BytesIO(path.read_bytes())],
    ids=["Path", "str", "bytes", "bytearray", "memoryview", "open file", "BytesIO"],
)  # fmt: skip
def test_files_are_sent_as_they_are(tmp_path: Path, form: Callable[[Path], Any]) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(file_of(NOISE, "JPEG"))
    service = Service([httpx.Response(200, json=PET)])
    ask_sync(service, "pet", form(path))
    assert fields(service.asked[0]) == {"image": path.read_bytes()}


@pytest.mark.parametrize(
    "pixels",
    [
        PIXELS,
        PIXELS[::2, ::-1],
        np.asfortranarray(PIXELS),
        PIXELS[:1, :1],
        PIXELS[..., 0],
        np.dstack([PIXELS, PIXELS[..., 0]]),
    ],
    ids=["rgb", "a view", "fortran", "one pixel", "grey", "rgba"],
)
def test_arrays_arrive_with_every_pixel(pixels: Any) -> None:
    before = pixels.copy()
    data = encoded(pixels)
    assert data.startswith(b"\x89PNG")
    assert np.array_equal(pixels_of(data), before)
    assert np.array_equal(pixels, before)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK", "YCbCr", "HSV", "LAB"])
def test_pillow_images_of_every_mode_become_pngs(mode: str) -> None:
    image = _of_mode(mode)
    found = Image.open(io.BytesIO(encoded(image)))
    assert found.format == "PNG"
    assert np.array_equal(np.asarray(found.convert("RGB")), np.asarray(image.convert("RGB")))


def _of_mode(mode: str) -> Image.Image:
    if mode == "I;16":
        return Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 257)
    if mode != "LAB":
        return NOISE.convert(mode)
    from PIL import ImageCms

    profiles = [ImageCms.createProfile(name) for name in ("sRGB", "LAB")]
    converted = ImageCms.profileToProfile(NOISE, profiles[0], profiles[1], outputMode="LAB")
    assert converted is not None
    return converted


def test_a_pillow_image_means_what_its_file_means(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90°
    path = tmp_path / "phone.jpg"
    NOISE.save(path, exif=exif)
    sent = Image.open(io.BytesIO(encoded(Image.open(path))))
    assert sent.getexif()[0x0112] == 6
    assert np.array_equal(np.asarray(sent), np.asarray(Image.open(path)))
    assert not Image.open(io.BytesIO(encoded(NOISE))).getexif()


def test_a_picture_whose_png_is_too_large_becomes_a_jpeg() -> None:
    generator = np.random.default_rng(1)
    image = Image.fromarray(generator.integers(0, 256, (1700, 1800, 3), np.uint8))
    data = encoded(image)
    assert Image.open(io.BytesIO(data)).format == "JPEG"
    assert len(data) < 8 * 2**20
    assert np.abs(pixels_of(data).astype(int) - np.asarray(image)).mean() < 4


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", [2, 3, 6, 8])
def test_a_turned_picture_that_pillow_opened_is_seen_as_its_file(orientation: int, form: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    NOISE.save(file, form, exif=exif, **({"lossless": True} if form == "WEBP" else {}))
    for load in (False, True):
        image = Image.open(io.BytesIO(file.getvalue()))
        if load:
            image.load()
        assert np.array_equal(upright(encoded(image)), upright(file.getvalue()))


def upright(data: bytes) -> Any:
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize(
    ("image", "mode", "value"),
    [
        (Image.fromarray(np.full((8, 8), 0x8040, np.uint16)), "L", 128),
        (Image.new("RGBA", (8, 8), (10, 20, 30, 0)), "RGB", 255),
        (Image.new("RGBA", (8, 8), (0, 0, 0, 128)), "RGB", 127),
        (Image.new("RGBA", (8, 8), (40, 40, 40, 255)), "RGB", 40),
        (Image.new("LA", (8, 8), (10, 0)), "L", 255),
        (Image.new("1", (8, 8), 1), "L", 255),
    ],
    ids=["I;16", "clear", "half clear", "opaque", "clear grey", "1"],
)
def test_a_large_picture_keeps_its_look(
    image: Image.Image, mode: str, value: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "_LARGE_PNG", 0)
    found = Image.open(io.BytesIO(encoded(image)))
    assert (found.format, found.mode) == ("JPEG", mode)
    assert np.abs(np.asarray(found).astype(int) - value).max() <= 1


def test_a_large_picture_keeps_its_colour_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import ImageCms

    monkeypatch.setattr(images, "_LARGE_PNG", 0)
    image, profile = NOISE.copy(), ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image.info["icc_profile"] = profile
    assert Image.open(io.BytesIO(encoded(image))).info["icc_profile"] == profile


@pytest.mark.parametrize(
    ("image", "error", "says"),
    [
        (None, TypeError, "a NoneType was given"),
        (3, TypeError, "a int was given"),
        ([1, 2], TypeError, "a list was given"),
        (io.StringIO("text"), TypeError, "a StringIO was given"),
        ("https://x/photo.jpg", ValueError, "give the decoded bytes"),
        ("data:image/png;base64,AA==", ValueError, "give the decoded bytes"),
        (base64.b64encode(bytes(9000)).decode(), ValueError, "give the decoded bytes"),
        ("absent.jpg", OSError, "absent.jpg"),
        (PIXELS.astype(np.float32), ValueError, r"\(20, 31, 3\) float32 was given; give \(h, w, 3\) uint8"),
        (PIXELS[None], ValueError, r"\(1, 20, 31, 3\)"),
        (PIXELS.transpose(2, 0, 1), ValueError, r"\(3, 20, 31\)"),
        (PIXELS[:0], ValueError, r"\(0, 31, 3\)"),
        (Image.new("F", (3, 3)), ValueError, "of mode F was given; convert it"),
        (Image.new("I", (3, 3)), ValueError, "of mode I was given; convert it"),  # 8 or 16 bits? nobody can know
    ],
)
def test_what_is_no_picture_is_refused_in_a_sentence(image: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        encoded(image)


# ── boxes and options ──


@pytest.mark.parametrize(
    "bbox",
    [[1, 2, 30, 40], (1, 2, 30, 40), np.array([1, 2, 30, 40]), np.array([1, 2, 30, 40], np.float32)],
    ids=["list", "tuple", "ints", "floats"],
)
def test_corners_in_every_form(bbox: Any) -> None:
    service = Service([httpx.Response(200, json=PET)])
    with Client(LIGHT, transport=httpx.MockTransport(service)) as client:
        client.pet(b"picture", bbox=bbox)
    assert json.loads(fields(service.asked[0])["bbox"]) == [1, 2, 30, 40]


def test_objects_and_answers_are_boxes() -> None:
    sizes = {"x": 1.0, "y": 2.0, "width": 3.0, "height": 4.0}
    assert box(sizes) == box(Box(**sizes)) == sizes
    assert box({"x1": np.float64(1)}) == {"x1": 1}
    with pytest.raises(TypeError, match="give four numbers"):
        box("1,2,3,4")  # type: ignore[arg-type]


def test_only_options_that_were_given_are_sent() -> None:
    pose = httpx.Response(200, json={"keypoints": [], "posture": "unknown", "alerts": []})
    service = Service([pose])
    with Client(LIGHT, transport=httpx.MockTransport(service)) as client:
        client.pose(b"picture")
        client.pose(b"picture", min_confidence=0.0, min_keypoint_confidence=0.5)
    assert fields(service.asked[0]).keys() == {"image"}
    assert fields(service.asked[1]) == {
        "image": b"picture",
        "min_confidence": b"0.0",
        "min_keypoint_confidence": b"0.5",
    }


def test_enrich_sends_models_boxes_and_options_as_json() -> None:
    answer = {"image": {"width": 4, "height": 3}, "results": {}, "boxes": [], "errors": {}}
    service = Service([httpx.Response(200, json=answer)])
    with Client(LIGHT, transport=httpx.MockTransport(service)) as client:
        client.enrich(
            b"picture",
            models=("pose", "pet"),
            boxes=[
                (1, 2, 3, 4),
                {"x": 1, "y": 2, "width": 3, "height": 4},
                {"id": "a", "bbox": np.array([1, 2, 3, 4])},
            ],
            options={"depth": {"map": True}},
        )
        client.enrich(b"picture", models="pose", bbox=[1, 2, 3, 4])
    sent = {name: value for name, value in fields(service.asked[0]).items() if name != "image"}
    assert {name: json.loads(value) for name, value in sent.items()} == {
        "models": ["pose", "pet"],
        "boxes": [[1, 2, 3, 4], {"x": 1, "y": 2, "width": 3, "height": 4}, {"id": "a", "bbox": [1, 2, 3, 4]}],
        "options": {"depth": {"map": True}},
    }
    assert json.loads(fields(service.asked[1])["models"]) == ["pose"]


def test_the_overlay_is_asked_for_as_a_jpeg() -> None:
    service = Service([httpx.Response(200, content=b"\xff\xd8", headers={"Content-Type": "image/jpeg"})])
    assert ask_sync(service, "overlay", b"picture") == b"\xff\xd8"
    (request,) = service.asked
    assert (request.url.path, request.url.query, request.headers["accept"]) == (
        "/enrich",
        b"render=overlay",
        "image/jpeg",
    )


def test_people_are_compared_by_pictures_boxes_and_embeddings() -> None:
    known = Reid(embedding=[0.6, 0.8], model_id="osnet@1")
    comparison = {"cosine": 0.9, "same_person": True, "threshold": 0.7}
    service = Service(
        [httpx.Response(200, json=comparison), httpx.Response(200, json={"matches": [], "threshold": 0.7})]
    )
    with Client(LIGHT, transport=httpx.MockTransport(service)) as client:
        assert client.compare((b"picture", [1, 2, 3, 4]), known).same_person
        client.match(b"picture", [{"id": "a", "embedding": [1.0], "model_id": "m"}], threshold=0.5)
    text = base64.b64encode(b"picture").decode()
    embedding = {"embedding": [0.6, 0.8], "model_id": "osnet@1"}
    assert [json.loads(request.content) for request in service.asked] == [
        {"first": {"image_base64": text, "bbox": [1, 2, 3, 4]}, "second": embedding},
        {
            "query": {"image_base64": text},
            "candidates": [{"id": "a", "embedding": [1.0], "model_id": "m"}],
            "threshold": 0.5,
        },
    ]


def test_neither_pillow_nor_numpy_is_imported() -> None:
    code = (
        "import sys; from enrichment_client.images import encoded; import enrichment_client.cli;"
        " assert encoded(b'x') == b'x'; assert not {'numpy', 'PIL'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2] / "client", check=True)
