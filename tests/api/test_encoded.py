from __future__ import annotations

import base64
import quopri
import random
import time
from urllib.parse import quote

import pytest

from api.encoded import percent_decoded, to_bytes
from api.errors import ApiError, ErrorCode
from tests.api.bodies import SECRET

# Of each length modulo 3, with both of the characters in which the alphabets differ.
DATA = [bytes([251, 255, 190, *range(200)])[:length] for length in (201, 202, 203)]
TEXTS = [(base64.b64encode(data).decode(), data) for data in DATA]


def refusal(text: str) -> ApiError:
    with pytest.raises(ApiError) as caught:
        to_bytes("image", text)
    error = caught.value
    assert "image" in error.message
    assert len(error.message) < 400
    return error


@pytest.mark.parametrize(("text", "data"), TEXTS)
def test_the_usual_text(text: str, data: bytes) -> None:
    assert "+" in text
    assert "/" in text
    assert to_bytes("image", text) == data


@pytest.mark.parametrize(("text", "data"), TEXTS)
def test_the_url_safe_alphabet_with_and_without_padding(text: str, data: bytes) -> None:
    url_safe = base64.urlsafe_b64encode(data).decode()
    assert to_bytes("image", url_safe) == data
    assert to_bytes("image", url_safe.rstrip("=")) == data
    assert to_bytes("image", f"data:image/jpeg;base64,{url_safe.rstrip('=')}") == data


@pytest.mark.parametrize(("text", "data"), TEXTS)
def test_missing_padding(text: str, data: bytes) -> None:
    for missing in range(text.count("=") + 1):
        assert to_bytes("image", text[: len(text) - missing]) == data


@pytest.mark.parametrize(("text", "data"), TEXTS)
@pytest.mark.parametrize("gap", ["\n", "\r\n", "\r", "\t", "\f", " ", "\r\n\t ", "\v"])
@pytest.mark.parametrize("width", [76, 61, 1])
def test_white_space_anywhere(text: str, data: bytes, gap: str, width: int) -> None:
    broken = gap.join(text[start : start + width] for start in range(0, len(text), width))
    assert to_bytes("image", broken) == data
    assert to_bytes("image", f"{gap}{broken}{gap}") == data


@pytest.mark.parametrize(("text", "data"), TEXTS)
def test_quoted_printable_around_it(text: str, data: bytes) -> None:
    assert to_bytes("image", quopri.encodestring(text.encode()).decode()) == data
    assert to_bytes("image", quopri.encodestring(text.encode()).decode().replace("\n", "\r\n")) == data


@pytest.mark.parametrize("data", [bytes(range(256)), b"a  \r\n b\t\n=\n==41=3D_", b"", "Tür".encode()])
def test_percent_encoding(data: bytes) -> None:
    assert percent_decoded(quote(data, safe="").encode()) == data
    assert percent_decoded(quote(data, safe="").lower().encode()).lower() == data.lower()
    assert percent_decoded(quote(data, safe="\r\n\t =").encode()) == data


HEADS = [
    "data:image/jpeg;base64,",
    "DATA:IMAGE/JPEG;BASE64,",
    "data:image/svg+xml;base64,",
    "data:image/*;base64,",
    "data:image/jpeg;name=a.jpg;charset=utf-8;base64,",
    'data:image/jpeg;name="a, b.jpg";base64,',
    "data:image/jpeg;base64;name=a.jpg,",
    "data:application/octet-stream;base64,",
    "data:binary/octet-stream;base64,",
    "data:;base64,",
    "data:;charset=utf-8;base64,",
    " \r\n\tdata: image/jpeg ; base64 ,",
]


@pytest.mark.parametrize(("text", "data"), TEXTS)
@pytest.mark.parametrize("head", HEADS)
def test_a_data_url(head: str, text: str, data: bytes) -> None:
    assert to_bytes("image", head + text) == data
    assert to_bytes("image", f"{head}{text}\r\n") == data
    assert to_bytes("image", f"{head}{quote(text, safe='')}") == data  # %2B, %2F, %3D
    assert to_bytes("image", f"{head}{text[:77]}%0D%0A{text[77:]}") == data


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("head", ["data:image/png,", "data:,", "data:image/png;charset=latin-1,"])
def test_a_data_url_without_base64(head: str, data: bytes) -> None:
    assert to_bytes("image", head + quote(data, safe="")) == data


@pytest.mark.parametrize(
    ("kind", "shown"), [("text/html", "text/html"), ("text/plain", "text/plain"), ("video/mp4", "video/mp4")]
)
def test_a_data_url_of_another_type_is_refused_with_its_type(kind: str, shown: str) -> None:
    for text in (f"data:{kind};base64,{TEXTS[0][0]}", f"data:{kind},hello"):
        error = refusal(text)
        assert error.code == "unsupported_media_type"
        assert f"of the type {shown};" in error.message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("abcde", "5 characters were received, one over a multiple of four"),
        ("A", "1 characters were received"),
        ("-_-_+/+/", "two alphabets were received mixed"),
        ("ab_c/def", "two alphabets were received mixed"),
        ("QUJD=", "4 characters and 1 `=` were received; 0 `=` belong there"),
        ("QUI==", "3 characters and 2 `=` were received; 1 `=` belong there"),
        ("QQ==QQ==", "`=` was received as character 3 of 8"),
        ("=QQQ", "`=` was received as character 1 of 4"),
        ("QQ=41QQ=", "`=` was received as character 3 of 8"),
        ("QUJD!QUJD", "a punctuation mark was received as character 5 of 9"),
        ("QUJD\x00QUJD", "a control character was received as character 5 of 9"),
        ("QUJDéUJD", "a character outside ASCII was received as character 5 of 8"),
        ("QUJD\u00a0QUJD", "a character outside ASCII was received as character 5 of 9"),
        ("\ud800", "a character outside ASCII was received as character 1 of 1"),
        ("QUJD%2BQUJD", "a percent sign was received as character 5 of 11"),
        ("https://example.test/a.jpg", "the address of an image was received"),
        (" http://camera/snapshot\n?id=1", "the address of an image was received"),
        ("photo.jpg", "the name of a file was received, and the service opens none"),
        ("/srv/cameras/yard 1/2026-11-27.JPEG\n", "the name of a file was received"),
        (r"C:\cameras\yard.tif", "the name of a file was received"),
        ("b'QUJD'", "Python's text of bytes (b'…') was received; `.decode()` is missing"),
        ('b"QUJD\n"', "Python's text of bytes"),
        ('{"image_base64": "QUJD"}', "JSON was received"),
        ("[1, 2]", "JSON was received"),
        ("QUJD.QUJD", "a punctuation mark was received as character 5 of 9"),
        ("data:image/jpeg;base64", "a data URL has a comma before its data"),
        ("data:image/jpeg,QUJDREVG", "a data URL without ;base64 before its comma"),
        ("data:image/jpeg;base64,QUJDR", "one over a multiple of four"),
        ("data:image/jpeg;base64,data:image/jpeg;base64,QUJD", "a punctuation mark was received as character 5"),
        (f"{SECRET}!", "a punctuation mark was received as character 30 of 30"),
    ],
)
def test_nothing_is_guessed_and_the_refusal_says_what_is_wrong(text: str, said: str) -> None:
    error = refusal(text)
    assert (error.code, error.status) == ("invalid_base64", 400)
    assert said in error.message
    assert "accepted are A–Z a–z 0–9 + / (or - _" in error.message
    assert SECRET not in error.message


@pytest.mark.parametrize("text", ["", " \r\n", "=", "data:;base64,", "data:image/png,", "data:image/png;base64, "])
def test_no_bytes_at_all(text: str) -> None:
    code: ErrorCode = "invalid_base64" if text == "=" else "invalid_request"
    assert refusal(text).code == code


@pytest.mark.parametrize(
    "text",
    [
        "data:" + 5_000_000 * "a",
        "data:" + 5_000_000 * '"',
        "data:" + 2_000_000 * ";x",
        5_000_000 * "=",
        5_000_000 * "=\n",
        5_000_000 * "a" + "!",
    ],
    ids=["head", "quotes", "parameters", "padding", "soft breaks", "foreign at the end"],
)
def test_a_hostile_text_takes_no_longer_than_a_right_one(text: str) -> None:
    began = time.monotonic()
    refusal(text)
    assert time.monotonic() - began < 10


def test_one_changed_character_never_goes_through_unseen() -> None:
    # Every text that is read as something stands for exactly that: encoding it again gives the text's own characters.
    random.seed(0)
    text, _ = TEXTS[1]
    alphabet = "AZaz09+/-_= \n!%é"
    for _ in range(3000):
        place = random.randrange(len(text))
        changed = text[:place] + random.choice(alphabet) + text[place + random.randrange(2) :]
        try:
            data = to_bytes("image", changed)
        except ApiError:
            continue
        kept = "".join(changed.split()).rstrip("=")
        again = base64.b64encode(data).decode().rstrip("=")
        assert again[:-1] == kept.replace("-", "+").replace("_", "/")[:-1]
