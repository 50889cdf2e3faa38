"""Bodies of the full size whose reading could take long: each is read or refused in a moment."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Final

import pytest

from api import comparison_request, enrich_request
from api.errors import ApiError
from api.request import Received, parse

SIZE: Final = 14_600_000  # what limits.max_image_mib lets through
MAX_IMAGE: Final = 10 * 2**20
# A quarter of a second is the aim; the machine of a test may be slow and busy. The worst took 1.8 and 2.9 s.
MOST_S: Final = 1.0
JSON: Final = "application/json"
FORM: Final = "multipart/form-data; boundary=X"
ENCODED: Final = "application/x-www-form-urlencoded"


def image(text: bytes) -> bytes:
    return b'{"image":"' + text * (SIZE // len(text)) + b'"}'


def beside(name: bytes, value: bytes) -> bytes:
    return b'{"image":"AAAA","' + name + b'":' + value + b"}"


def parts(count: int, headers: bytes, data: bytes) -> bytes:
    return (b"--X\r\nContent-Disposition: form-data; " + headers + b"\r\n\r\n" + data + b"\r\n") * count + b"--X--\r\n"


def field(name: bytes, text: bytes) -> bytes:
    """A form of an image and a text."""
    image = parts(1, b'name="image"; filename="a"', b"\xff\xd8\xff").removesuffix(b"--X--\r\n")
    return image + parts(1, b'name="' + name + b'"', text)


def keys(count: int) -> bytes:
    return b"{" + b",".join(b'"k%d":1' % number for number in range(count)) + b"}"


BODIES: Final[dict[str, tuple[str, Callable[[], bytes]]]] = {
    "keys": (JSON, lambda: keys(900_000)),
    "keys behind spaces": (JSON, lambda: b" " * 600 + keys(900_000)),
    "keys behind spaces in UTF-16": (JSON, lambda: (b"\n" * 600 + keys(500_000)).decode().encode("utf-16-le")),
    "the same key": (JSON, lambda: b"{" + b",".join([b'"image":"A"'] * 1_200_000) + b"}"),
    "numbers in a box": (JSON, lambda: beside(b"bbox", b"[" + b",".join([b"1"] * 5_000_000) + b"]")),
    "boxes in a box": (JSON, lambda: beside(b"bbox", b"[" * (SIZE // 2) + b"]" * (SIZE // 2))),
    "objects in objects": (JSON, lambda: b'{"a":' * (SIZE // 5)),
    "brackets": (JSON, lambda: b"[" * SIZE),
    "digits": (JSON, lambda: beside(b"min_confidence", b"1" * SIZE)),
    "digits behind a point": (JSON, lambda: beside(b"min_confidence", b"0." + b"1" * SIZE)),
    "digits as text": (JSON, lambda: beside(b"min_confidence", b'"' + b"1" * SIZE + b'"')),
    "a box as text": (JSON, lambda: beside(b"bbox", b'"' + b"1 " * (SIZE // 2) + b'"')),
    "escapes": (JSON, lambda: image(b"\\u0041")),
    "escaped slashes": (JSON, lambda: image(b"\\/")),
    "escaped line breaks": (JSON, lambda: image(b"A\\n")),
    "quoted-printable": (JSON, lambda: image(b"=3D")),
    "quoted-printable lines": (JSON, lambda: image(b"A=\\n")),
    "percent signs": (JSON, lambda: b'{"image":"data:image/png;base64,' + b"%41" * (SIZE // 3) + b'"}'),
    "a long head of a data URL": (JSON, lambda: b'{"image":"data:' + b"a;" * (SIZE // 2) + b',AAAA"}'),
    "a wrong character at the end": (JSON, lambda: b'{"image":"' + b"A" * SIZE + b'!"}'),
    "files": (FORM, lambda: parts(100_000, b'name="f"; filename="a"', b"x")),
    "fields": (FORM, lambda: parts(220_000, b'name="f"', b"")),
    "near boundaries": (FORM, lambda: parts(1, b'name="image"; filename="a"', b"\r\n--XX" * (SIZE // 6))),
    "headers": (FORM, lambda: parts(1, b'name="' + b"a" * SIZE + b'"', b"x")),
    "a quoted-printable part": (
        FORM,
        lambda: parts(1, b'name="image"\r\nContent-Transfer-Encoding: quoted-printable', b"=41" * (SIZE // 3)),
    ),
    "urlencoded fields": (ENCODED, lambda: b"&".join([b"a=1"] * 3_600_000)),
    "urlencoded percent signs": (ENCODED, lambda: b"image=" + b"%41" * (SIZE // 3)),
    "parameters of the content type": (FORM + "; a=b" * 15_000, lambda: parts(1, b'name="image"', b"AAAA")),
    "a quoted parameter": (f'multipart/form-data; a="{";" * 60_000}"; boundary=X', lambda: parts(1, b"", b"x")),
}
# Fields of /enrich that hold lists, as texts.
LISTS: Final[dict[str, tuple[str, Callable[[], bytes]]]] = {
    "lists as boxes": (FORM, lambda: field(b"boxes", b"[" + b"[]," * (SIZE // 3) + b"1]")),
    "objects as boxes": (FORM, lambda: field(b"boxes", b"[" + b"{}," * (SIZE // 3) + b"1]")),
    "keys as boxes": (FORM, lambda: field(b"boxes", keys(900_000))),
    "keys as options": (FORM, lambda: field(b"options", keys(900_000))),
    "commas as models": (FORM, lambda: field(b"models", b"," * SIZE)),
    "names as models": (FORM, lambda: field(b"models", b"pose," * (SIZE // 5))),
    "a list as models": (FORM, lambda: field(b"models", b"[" + b"[]," * (SIZE // 3) + b"1]")),
    "boxes with escaped commas": (JSON, lambda: beside(b"boxes", b'"[' + b"1\\u002c" * (SIZE // 7) + b'1]"')),
    "names with escaped commas": (JSON, lambda: beside(b"models", b'["' + b"pose\\u002c" * (SIZE // 10) + b'"]')),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_body_of_the_full_size_is_read_or_refused_in_a_moment(name: str) -> None:
    content_type, make = BODIES[name]
    received = Received(content_type, make(), {})
    began = time.process_time()
    with contextlib.suppress(ApiError):
        parse(received, MAX_IMAGE)
    assert time.process_time() - began < MOST_S


@pytest.mark.parametrize("entry", [b"[],", b"{},", b'"a",', b'{"a":1},'])
def test_candidates_of_many_parts_are_counted_before_they_are_read(entry: bytes) -> None:
    body = b'{"candidates":[' + entry * 200_000 + b"1]}"
    with pytest.raises(ApiError, match="brackets and quotes; at most 60000 are accepted"):
        comparison_request.parse_match(Received(JSON, body, {}), MAX_IMAGE)


@pytest.mark.parametrize("name", LISTS)
def test_a_list_as_text_is_refused_in_a_moment(name: str) -> None:
    content_type, make = LISTS[name]
    received = Received(content_type, make(), {})
    began = time.process_time()
    with pytest.raises(ApiError) as refused:
        enrich_request.parse(received, MAX_IMAGE)
    assert time.process_time() - began < MOST_S
    assert "of length" in refused.value.message


@pytest.mark.parametrize(
    "name",
    [
        *("keys", "keys behind spaces", "numbers in a box", "quoted-printable", "near boundaries"),
        *("a wrong character at the end", "lists as boxes", "keys as options", "boxes with escaped commas"),
    ],
)
def test_nobody_else_is_kept_waiting_meanwhile(name: str) -> None:
    content_type, make = (BODIES | LISTS)[name]
    received, stop, longest = Received(content_type, make(), {}), threading.Event(), [0.0]

    def tick() -> None:
        last = time.process_time()  # a thread that keeps the lock, not a busy machine
        while not stop.is_set():
            time.sleep(0.002)
            now = time.process_time()
            longest[0], last = max(longest[0], now - last), now

    thread = threading.Thread(target=tick)
    thread.start()
    time.sleep(0.05)
    with pytest.raises(ApiError):
        (enrich_request.parse if name in LISTS else parse)(received, MAX_IMAGE)
    stop.set()
    thread.join()
    assert longest[0] < 0.4  # 0.1 is the aim; it was as long as the whole


@pytest.mark.parametrize(("count", "refused"), [(16, False), (17, True)])
def test_a_form_has_at_most_sixteen_parts(count: int, refused: bool) -> None:
    fields = parts(count - 1, b'name="other"', b"x").removesuffix(b"--X--\r\n")
    body = fields + parts(1, b'name="image"; filename="a"', b"\xff\xd8\xff")
    if refused:
        with pytest.raises(ApiError, match="over 16 parts"):
            parse(Received(FORM, body, {}), MAX_IMAGE)
    else:
        assert parse(Received(FORM, body, {}), MAX_IMAGE).image == b"\xff\xd8\xff"


def test_what_callers_send_beside_an_image_is_far_from_the_bounds() -> None:
    heavy = b",".join(b'"option%d":{"names":["a","b"],"box":[1,2,3,4]}' % number for number in range(500))
    assert parse(Received(JSON, b'{"image":"AAAA",' + heavy + b"}", {}), MAX_IMAGE).image == b"\0\0\0"
