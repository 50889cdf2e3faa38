from __future__ import annotations

import gzip
import json
import tracemalloc
import zlib

import pytest

from api.coding import check_encoding, inflate
from api.errors import ApiError, ErrorCode
from api.request import Received
from tests.api.bodies import BASE64, IMAGE, LIMIT, as_form, as_json, read, refusal

TEXT = b"one body " * 100
ZIPPED = gzip.compress(TEXT, mtime=0)  # pytest-xdist wants the same names of tests in each process


def raw_deflate(data: bytes) -> bytes:
    deflater = zlib.compressobj(wbits=-15)
    return deflater.compress(data) + deflater.flush()


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("", TEXT),
        ("identity", TEXT),
        ("gzip", ZIPPED),
        (" GZip ", ZIPPED),
        ("x-gzip", ZIPPED),
        ("deflate", zlib.compress(TEXT)),
        ("deflate", raw_deflate(TEXT)),
    ],
)
def test_a_body_is_inflated(encoding: str, body: bytes) -> None:
    assert inflate(body, encoding, len(TEXT)) == TEXT


@pytest.mark.parametrize(
    ("encoding", "body", "code"),
    [
        ("gzip", b"", "invalid_encoding"),
        ("gzip", TEXT, "invalid_encoding"),
        ("gzip", zlib.compress(TEXT), "invalid_encoding"),
        ("gzip", ZIPPED[:-4], "invalid_encoding"),
        ("gzip", ZIPPED[:-8] + bytes(8), "invalid_encoding"),
        ("gzip", ZIPPED + b"more", "invalid_encoding"),
        ("deflate", b"", "invalid_encoding"),
        ("deflate", ZIPPED, "invalid_encoding"),
        ("deflate", zlib.compress(TEXT)[:-1], "invalid_encoding"),
        ("gzip", gzip.compress(TEXT + b"!", mtime=0), "payload_too_large"),
        ("deflate", zlib.compress(TEXT + b"!"), "payload_too_large"),
        ("br", TEXT, "unsupported_media_type"),
        ("zstd", TEXT, "unsupported_media_type"),
        ("gzip, gzip", gzip.compress(ZIPPED, mtime=0), "unsupported_media_type"),
        ("x" * 500 + "\n", TEXT, "unsupported_media_type"),
    ],
)
def test_a_body_that_cannot_be_inflated(encoding: str, body: bytes, code: ErrorCode) -> None:
    with pytest.raises(ApiError) as caught:
        inflate(body, encoding, len(TEXT))
    assert caught.value.code == code
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 200


def test_what_is_accepted_is_named() -> None:
    with pytest.raises(ApiError, match="content encoding br is not accepted; send gzip, deflate or none"):
        check_encoding("br")


def test_a_bomb_is_never_inflated_beyond_the_limit() -> None:
    bomb = gzip.compress(bytes(100_000_000))
    tracemalloc.start()
    try:
        with pytest.raises(ApiError, match="over 1000000 bytes"):
            inflate(bomb, "gzip", 1_000_000)
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("received", [as_json({"image": BASE64}), as_form(("image", IMAGE))])
def test_any_kind_of_body_may_be_compressed(received: Received) -> None:
    compressed = Received(received.content_type, gzip.compress(received.body), {}, "gzip")
    assert read(compressed).image == IMAGE


def test_the_inflated_body_is_bounded_as_any_body() -> None:
    # 1,000 bytes of image may have a body of 1,466.
    body = json.dumps({"image": BASE64, "padding": " " * LIMIT}).encode()
    assert refusal(Received("application/json", gzip.compress(body + bytes(100)), {}, "gzip")).code == (
        "payload_too_large"
    )


def test_gzip_of_several_members_and_with_padding_behind_it_is_one_body() -> None:
    first, second = gzip.compress(b"one "), gzip.compress(b"two")
    assert inflate(first + second + bytes(8), "gzip", 7) == b"one two"
    with pytest.raises(ApiError, match="over 6 bytes"):
        inflate(first + second, "gzip", 6)
    with pytest.raises(ApiError, match="3 bytes follow"):
        inflate(first + b"abc", "gzip", 7)
    with pytest.raises(ApiError, match="over 16 members"):
        inflate(first * 17, "gzip", 1000)
