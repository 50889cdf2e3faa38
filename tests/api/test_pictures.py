"""Which picture or file a request gets, by its options and its Accept header."""

from __future__ import annotations

from typing import Any

import pytest

from api.errors import ApiError
from api.pictures import depth_file, overlay, preferred
from api.request import ImageRequest, Received, parse
from tests.api.bodies import IMAGE, LIMIT, as_form, as_json, as_raw, as_urlencoded
from vision.depth_map import COLORMAPS, FileForm

CHROME_PAGE = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8"
CHROME_IMG = "image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8"
# Set by an HTTP library or a browser where nobody chose a header.
JAVA_17 = "text/html, image/gif, image/jpeg, */*; q=0.2"
JAVA_8 = "text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2"
FIREFOX_PAGE = (
    "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/png,image/svg+xml,*/*;q=0.8"
)
SAFARI_IMG = "image/webp,image/avif,video/*;q=0.8,image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5"


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("", None),
        ("*/*", None),
        ("application/json", None),
        ("application/json, text/plain, */*", None),  # axios
        (CHROME_PAGE, None),
        (FIREFOX_PAGE, None),
        (JAVA_17, None),
        (JAVA_8, None),
        ("image/png, TEXT/HTML;level=1;q=0.1", None),
        ("image/png, text/html;q=0", "PNG"),
        ("text/html", None),
        ("image/png;q=0", None),
        ("image/png, application/json", None),  # a tie
        ("image/*;q=0.5, application/json;q=0.6", None),
        ("image/gif", None),
        ("image", None),
        (";;,,q=1", None),
        ("image/jpeg", "JPEG"),
        ("IMAGE/JPEG", "JPEG"),
        ("image/*", "JPEG"),
        (CHROME_IMG, "JPEG"),
        ("image/png, image/jpeg", "JPEG"),  # a tie
        ("image/jpeg;q=0.9, image/png", "PNG"),
        ("image/*, image/jpeg;q=0", "PNG"),
        ("image/png", "PNG"),
        ("image/png;q=1.000", "PNG"),
        ("image/png ; Q = 0.7 ,application/json;q=0.6", "PNG"),
        ("image/png;q=0.001", "PNG"),
        (SAFARI_IMG, "PNG"),
        ("application/json;q=0.1, image/png;q=0.2, */*;q=0.9", "JPEG"),  # */* takes image/jpeg
    ],
)
def test_a_picture_is_sent_if_the_header_prefers_it_to_json(accept: str, form: str | None) -> None:
    assert overlay(None, accept) == form


def test_headers_of_libraries_ask_for_no_depth_map_as_a_file() -> None:
    assert depth_file(None, None, "image/png") == FileForm("png8")
    assert {depth_file(None, None, accept) for accept in (FIREFOX_PAGE, f"image/png, {JAVA_17}")} == {None}
    assert depth_file("png16", None, FIREFOX_PAGE) == FileForm("png16")
    assert overlay("overlay", FIREFOX_PAGE) == "PNG"


@pytest.mark.parametrize(
    ("accept", "form"),
    [("", "JPEG"), ("*/*", "JPEG"), ("application/json", "JPEG"), ("image/png", "PNG"), ("image/*", "JPEG")],
)
def test_the_option_asks_for_a_picture_whatever_the_header_says(accept: str, form: str) -> None:
    assert overlay("overlay", accept) == form


def test_a_very_long_header_is_read() -> None:
    assert preferred("a/b;q=0.5," * 6000 + "image/png", ("application/json", "image/png")) == "image/png"


def read(received: Received, *, wants_map: bool = True) -> ImageRequest:
    return parse(received, LIMIT, wants_map=wants_map)


def ways(**options: Any) -> list[Received]:
    """A request with these options in each place that may hold them."""
    texts = {name: str(value) for name, value in options.items()}
    return [
        as_json({"image": "QUJD", **options}),
        as_json({"image": "QUJD"}, **texts),
        as_form(("image", IMAGE), *texts.items()),
        as_urlencoded("&".join(["image=QUJD", *(f"{name}={value}" for name, value in texts.items())])),
        as_raw(IMAGE, "image/png", **texts),
    ]


@pytest.mark.parametrize("way", range(5))
def test_options_of_pictures_are_read_wherever_they_stand(way: int) -> None:
    assert read(ways(render="overlay")[way]).render == "overlay"
    assert read(ways(format="png16")[way]).depth_file == FileForm("png16")
    assert read(ways(format="npy")[way]).depth_file == FileForm("npy")
    assert read(ways(colormap="viridis")[way]).depth_file == FileForm("png8", "viridis")
    assert read(ways(format="png8", colormap="turbo")[way]).depth_file == FileForm("png8", "turbo")
    assert read(ways(format="", colormap="null", render="")[way]) == read(ways()[way])
    assert read(ways()[way]).depth_file is None


@pytest.mark.parametrize(
    ("options", "field", "said"),
    [
        ({"render": "boxes"}, "render", "overlay"),
        ({"render": True}, "render", "overlay"),
        ({"format": "png"}, "format", "png8, png16, npy"),
        ({"format": 8}, "format", "png8, png16, npy"),
        ({"format": "PNG8"}, "format", "png8, png16, npy"),
        ({"colormap": "jet"}, "colormap", ", ".join(COLORMAPS)),
        ({"colormap": ["inferno"]}, "colormap", ", ".join(COLORMAPS)),
        ({"colormap": "inferno", "format": "npy"}, "colormap", "png8"),
        ({"colormap": "inferno", "format": "png16"}, "colormap", "png8"),
    ],
)
def test_a_wrong_value_is_refused_with_the_right_ones(options: dict[str, Any], field: str, said: str) -> None:
    with pytest.raises(ApiError) as caught:
        read(as_json({"image": "QUJD", **options}))
    assert (caught.value.status, caught.value.details[0]["field"]) == (422, field)
    assert said in caught.value.details[0]["message"]


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("image/png", FileForm("png8")),
        ("image/*", FileForm("png8")),
        ("image/jpeg, image/png;q=0.1", FileForm("png8")),
        ("image/jpeg", None),
        ("*/*", None),
        ("", None),
        (CHROME_PAGE, None),
    ],
)
def test_a_depth_map_is_a_png_if_the_header_prefers_it(accept: str, form: FileForm | None) -> None:
    assert read(Received("image/png", IMAGE, {}, accept=accept)).depth_file == form
    assert read(Received("image/png", IMAGE, {"format": "npy"}, accept=accept)).depth_file == FileForm("npy")


def test_other_routes_ignore_the_options_of_maps() -> None:
    for received in ways(format="jpeg", colormap="mine"):
        assert read(received, wants_map=False).depth_file is None
