from __future__ import annotations

import base64
import time

import pytest

from api.errors import ErrorCode
from api.request import Received
from tests.api.bodies import BASE64, IMAGE, SECRET, as_form, read, refusal, refused_field

TYPE = "multipart/form-data; boundary=edge"
FILE = 'form-data; name="image"; filename="a.jpg"'


def part(disposition: str, data: bytes, *headers: str, line: bytes = b"\r\n") -> bytes:
    lines = [f"Content-Disposition: {disposition}", *headers, ""]
    return b"--edge" + line + b"".join(header.encode() + line for header in lines) + data + line


def form(*parts: bytes, end: bytes = b"--edge--\r\n", content_type: str = TYPE) -> Received:
    return Received(content_type, b"".join(parts) + end, {})


@pytest.mark.parametrize(
    "image_part",
    [
        part(FILE, IMAGE, "Content-Type: image/jpeg"),
        part(FILE, IMAGE),
        part('form-data; name="image"', IMAGE, "Content-Type: image/jpeg"),
        part('form-data; name="image"', IMAGE, "Content-Type: application/octet-stream"),
        part('form-data; name="image"', IMAGE, "content-type:IMAGE/JPEG;x=1"),
        part('form-data; name="image"', IMAGE),
        part('form-data; name="image_base64"', IMAGE, "Content-Type: image/jpeg"),
        part(FILE, IMAGE, "Content-Type: text/plain"),
        part(FILE, IMAGE, "Content-Transfer-Encoding: binary"),
        part("form-data; name=image; filename=a.jpg", IMAGE),
        part('FORM-DATA; Name="image"; FileName=""', IMAGE),
        part("form-data;\r\n name=\"image\";\r\n\tfilename*=UTF-8''T%C3%BCr.jpg", IMAGE),
        part('form-data; name="image"; filename="C:\\tmp\\a;b, \\"c\\".jpg"', IMAGE),
        part('form-data; name="image[]"; filename="a.jpg"', IMAGE),
        part('form-data; name="image"', BASE64.encode()),
        part('form-data; name="image"', BASE64.encode(), "Content-Type: text/plain; charset=utf-8"),
        part('form-data; name="image"', b"\xef\xbb\xbf" + BASE64.encode(), "Content-Type: text/plain"),
        part('form-data; name="image_base64"; filename="b64.txt"', BASE64.encode(), "Content-Type: text/plain"),
        part('form-data; name="image_base64"; filename="image_base64"', BASE64.encode()),
        part(FILE, base64.encodebytes(IMAGE), "Content-Type: image/jpeg", "Content-Transfer-Encoding: base64"),
        part('form-data; name="image"', base64.encodebytes(IMAGE), "Content-Transfer-Encoding: BASE64"),
        part(FILE, b"".join(b"=%02X" % byte for byte in IMAGE), "Content-Transfer-Encoding: quoted-printable"),
        b'--edge\r\nX-First: 1\r\nContent-Type: image/png\r\nContent-Disposition: form-data; name="image"\r\n\r\n'
        + IMAGE
        + b"\r\n",
    ],
)
def test_the_image_of_a_part(image_part: bytes) -> None:
    other = part('form-data; name="camera"', b"door")
    box = part('form-data; name="bbox"', b"1,2,30,40")
    asked = read(form(other, image_part, box))
    assert (asked.image, asked.box) == (IMAGE, (1, 2, 30, 40))


@pytest.mark.parametrize("name", ["file", "upload", "photo", "Tür", "file[]", ""])
def test_a_lone_file_of_another_name_is_the_image(name: str) -> None:
    file = part(f'form-data; name="{name}"; filename="a.jpg"', IMAGE, "Content-Type: image/jpeg")
    note = part('form-data; name="note"; filename="note.txt"', b"of no interest", "Content-Type: text/plain")
    nothing = part('form-data; name="second"; filename=""', b"", "Content-Type: application/octet-stream")
    assert read(form(file, part('form-data; name="bbox"', b"1,2,3,4"))).image == IMAGE
    assert read(form(note, nothing, file)).image == IMAGE


def test_a_part_that_is_not_named_at_all_may_be_the_lone_file() -> None:
    assert (
        read(Received(TYPE, b"--edge\r\nContent-Type: image/jpeg\r\n\r\n" + IMAGE + b"\r\n--edge--", {})).image == IMAGE
    )
    assert read(Received(TYPE, b"--edge\r\n\r\n" + IMAGE + b"\r\n--edge--", {})).image == IMAGE


def test_the_named_image_goes_before_other_files() -> None:
    other = part('form-data; name="thumbnail"; filename="t.jpg"', IMAGE[::-1])
    assert read(form(other, part(FILE, IMAGE), other)).image == IMAGE


def test_several_files_are_refused_and_named() -> None:
    files = [part(f'form-data; name="{name}"; filename="x.jpg"', IMAGE) for name in ("left", "right\x1b", "z" * 500)]
    field, message = refused_field(form(*files))
    assert field == "image"
    assert message.startswith("3 files were received (left, right\N{REPLACEMENT CHARACTER}, zzz")
    assert len(message) < 200
    assert refused_field(form(part(FILE, IMAGE), part(FILE, IMAGE)))[1] == "received 2 times; send exactly one"


@pytest.mark.parametrize("line", [b"\r\n", b"\n"], ids=["CRLF", "LF"])
@pytest.mark.parametrize("image", [IMAGE, IMAGE + b"\r", IMAGE + b"\n", IMAGE + b"\r\n", b"\0\n--edg", b"\0--edge\n"])
@pytest.mark.parametrize("before", [b"", b"\r\n", b"A preamble that mentions --edge and\n--edges.\r\n"])
@pytest.mark.parametrize(
    "after", [b"--edge--", b"--edge--\r\n", b"--edge--\r\nAn epilogue.\r\n", b"--edge--  \n", b"--edge"]
)
def test_line_ends_preamble_and_epilogue(line: bytes, image: bytes, before: bytes, after: bytes) -> None:
    parts = part(FILE, image, line=line), part('form-data; name="bbox"', b"1,2,30,40", line=line)
    asked = read(form(before, *parts, end=after))
    assert (asked.image, asked.box) == (image, (1, 2, 30, 40))


@pytest.mark.parametrize("padding", [b"", b" ", b" \t "])
def test_white_space_after_a_boundary(padding: bytes) -> None:
    assert read(form(part(FILE, IMAGE).replace(b"--edge", b"--edge" + padding))).image == IMAGE


@pytest.mark.parametrize("end", [b"", b"\r\n", b"\r\n--ed", b"\r\n--edge"])
def test_a_file_at_the_end_needs_no_closing_boundary(end: bytes) -> None:
    whole = part('form-data; name="bbox"', b"1,2,30,40") + part(FILE, IMAGE)
    asked = read(Received(TYPE, whole.removesuffix(b"\r\n") + end, {}))
    assert asked.image.startswith(IMAGE)
    assert asked.box == (1, 2, 30, 40)


def test_a_text_that_is_cut_off_is_not_taken() -> None:
    # "1,2,30,4" would be another box.
    cut = part(FILE, IMAGE) + part('form-data; name="bbox"', b"1,2,30,40")[:-3]
    error = refusal(Received(TYPE, cut, {}))
    assert error.code == "invalid_request"
    assert "it ends within the field bbox, without a closing boundary" in error.message


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        ('multipart/form-data; boundary="edge"', b"edge"),
        ("multipart/form-data;boundary=edge; charset=utf-8", b"edge"),
        ("Multipart/Form-Data; charset=utf-8; Boundary=edge", b"edge"),
        ('multipart/form-data; boundary="a b=c;d:(?)+.*"', b"a b=c;d:(?)+.*"),
        ("multipart/form-data; boundary=----WebKitFormBoundary7MA4YWxk", b"----WebKitFormBoundary7MA4YWxk"),
        ("multipart/form-data; boundary=" + "x" * 200, b"x" * 200),
    ],
)
def test_boundaries(content_type: str, boundary: bytes) -> None:
    body = (part(FILE, IMAGE) + b"--edge--\r\n").replace(b"--edge", b"--" + boundary)
    assert read(Received(content_type, body, {})).image == IMAGE


@pytest.mark.parametrize(
    ("received", "said"),
    [
        (form(part(FILE, IMAGE), content_type="multipart/form-data"), "multipart/form-data has no boundary; leave"),
        (form(part(FILE, IMAGE), content_type="multipart/form-data; boundary="), "has no boundary"),
        (form(part(FILE, IMAGE), content_type='multipart/form-data; boundary=""'), "has no boundary"),
        (form(part(FILE, IMAGE), content_type="multipart/form-data; boundary=other"), "does not occur in the body of"),
        (form(SECRET.encode(), end=b""), "its boundary does not occur in the body of 29 bytes"),
        (form(end=b""), "does not occur in the body of 0 bytes"),
        (form(b"--edge\r\nno header\r\n", end=b""), "the headers of a part do not end"),
        (form(b"--edge\r\nA: " + b"b" * 50_000 + b"\r\n\r\nx\r\n"), "the headers of a part do not end within 4096"),
        (form(*[part('form-data; name="x"', b"y")] * 17), "over 16 parts"),
    ],
)
def test_a_form_that_cannot_be_read(received: Received, said: str) -> None:
    error = refusal(received)
    assert (error.code, error.status) == ("invalid_request", 422)
    assert said in error.message


@pytest.mark.parametrize(
    ("image_part", "code"),
    [
        (part('form-data; name="image"', f"{SECRET}!".encode()), "invalid_base64"),
        (part(FILE, f"{SECRET}!".encode(), "Content-Transfer-Encoding: base64"), "invalid_base64"),
        (part(FILE, IMAGE, "Content-Transfer-Encoding: uuencode"), "invalid_request"),
        (part('form-data; name="image"', b"null"), "invalid_request"),
        (part(FILE, b""), "invalid_request"),
        (part('form-data; name="picture"', b"text"), "invalid_request"),
        (part('form-data; name="bbox"; filename="bbox"', b"1,2,30,40"), "invalid_request"),
    ],
)
def test_a_part_that_is_no_image(image_part: bytes, code: ErrorCode) -> None:
    assert refusal(form(image_part)).code == code


@pytest.mark.parametrize("kind", [b"", b"application/octet-stream", b"text/plain", b"application/json"])
@pytest.mark.parametrize("text", [b"1,2,30,40", b"[1,2,30,40]", b'"1,2,30,40"', b"\xef\xbb\xbf1,2,30,40"])
def test_an_option_may_be_sent_as_a_file(text: bytes, kind: bytes) -> None:
    # requests' `files=` and `new Blob` do so.
    header = 'form-data; name="bbox"; filename="blob"' + (f"\r\nContent-Type: {kind.decode()}" if kind else "")
    assert read(form(part(FILE, IMAGE), part(header, text))).box == (1, 2, 30, 40)


def test_an_option_that_is_a_binary_file_is_refused_as_such() -> None:
    option = part('form-data; name="bbox"; filename="bbox"', b"1,2,30,40\0")
    field, message = refused_field(form(part(FILE, IMAGE), option))
    assert field == "bbox"
    assert message.startswith("a file of 10 bytes was received; send [x1")


@pytest.mark.parametrize(
    "body",
    [
        b"--edge\r\n" * 500_000,
        b"--edge" * 700_000,
        b"\n--edge" + b" " * 4_000_000,
        b"--edge\r\n" + b"\r" * 4_000_000,
        b"--edge\r\n" + b"A: b\r\n" * 700_000,
        b"--edge\r\n" + b";" * 4_000_000,
    ],
    ids=["boundaries", "no line ends", "spaces", "carriage returns", "headers", "semicolons"],
)
def test_a_hostile_form_is_refused_quickly(body: bytes) -> None:
    began = time.monotonic()
    refusal(Received(TYPE, body, {}))
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    "value", ['form-data; a="' + ';"' * 1980, "form-data" + "; a=b" * 790, 'x; a="\\' + '\\"' * 1980]
)
def test_headers_full_of_parameters_take_no_long_time(value: str) -> None:
    began = time.monotonic()
    assert read(form(*[part(value, b"x")] * 15, part(FILE, IMAGE))).image == IMAGE
    assert time.monotonic() - began < 10  # about 1 s of an idle machine


@pytest.mark.parametrize(
    "value",
    [
        *(
            "name*=a%00b''x",
            "name*=idna''%C3%BC",
            f"name*{'9' * 900}*=x",
            "name*=nonsense''x",
            "filename*=undefined''x",
        ),
        *("name*=a; name*0=b", "name*0=a; name*1=b; name*=utf-8''c", "filename*0*=a; filename*=b"),
    ],
)
def test_names_that_the_standard_library_cannot_read(value: str) -> None:
    received = form(part(f"form-data; {value}", b"x"), part('form-data; name="bbox"', b"1,2"))
    assert refusal(received).code == "invalid_request"
    boundary = value.replace("filename", "boundary").replace("name", "boundary")
    refusal(form(part(FILE, IMAGE), content_type=f"multipart/form-data; {boundary}"))


def test_a_text_without_a_telling_type_beside_an_image_is_not_a_second_image() -> None:
    """As requests sends files={"file": …, "metadata": ("metadata.json", "{…}")}, and cameras their events."""
    found = read(as_form(("metadata", b'{"camera": "door"}'), ("file", IMAGE)))
    assert found.image == IMAGE
    assert "2 files were received (one, two)" in refusal(as_form(("one", IMAGE), ("two", IMAGE))).message
