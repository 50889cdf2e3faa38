"""Decodes the Content-Encoding of a request body, gzip or deflate, within a size limit."""

from __future__ import annotations

import zlib
from typing import Final

from api.errors import ApiError, printable

_GZIP: Final = frozenset({"gzip", "x-gzip"})
_PLAIN: Final = frozenset({"", "identity"})
_GZIP_WINDOW: Final = 31  # zlib's wbits for data with a gzip header and trailer
_GZIP_MAGIC: Final = b"\x1f\x8b"
_MOST_MEMBERS: Final = 16  # of a gzip file, which is a series of them (RFC 1952)
_RAW_WINDOW: Final = -15  # zlib's wbits for data without header and checksum


def check_encoding(encoding: str) -> None:
    """Raise ApiError unsupported_media_type for a Content-Encoding that `inflate` does not know."""
    name = encoding.strip().lower()
    if name not in _PLAIN | _GZIP | {"deflate"}:
        raise ApiError(
            "unsupported_media_type",
            f"the content encoding {printable(name)} is not accepted; send gzip, deflate or none",
        )


def inflate(body: bytes, encoding: str, limit: int) -> bytes:
    """Return the body without its Content-Encoding. At most `limit` + 1 bytes are ever inflated.

    Raises ApiError: unsupported_media_type, payload_too_large or invalid_encoding.
    """
    check_encoding(encoding)
    name = encoding.strip().lower()
    if name in _PLAIN:
        return body
    is_gzip = name in _GZIP
    plain = b""
    for _ in range(_MOST_MEMBERS):
        inflater = zlib.decompressobj(_GZIP_WINDOW if is_gzip else _deflate_window(body))
        try:
            plain += inflater.decompress(body, limit + 1 - len(plain))
        except zlib.error:
            raise _damaged(name, "the data is damaged") from None
        if len(plain) > limit:
            raise ApiError("payload_too_large", f"the body inflates to over {limit} bytes; at most these are accepted")
        if not inflater.eof:
            raise _damaged(name, f"the data is cut off after {len(body)} bytes")
        body = inflater.unused_data.lstrip(b"\0") if is_gzip else inflater.unused_data  # gzip may be padded
        if not body:
            return plain
        if not is_gzip or body[:2] != _GZIP_MAGIC:
            raise _damaged(name, f"{len(body)} bytes follow the end of the data")
    raise _damaged(name, f"it has over {_MOST_MEMBERS} members; at most these are accepted")


def _deflate_window(body: bytes) -> int:
    """Return zlib's wbits for deflate: RFC 9110 means zlib's format, but some clients send raw deflate data."""
    has_header = len(body) > 1 and body[0] & 0x0F == zlib.DEFLATED and (body[0] << 8 | body[1]) % 31 == 0
    return zlib.MAX_WBITS if has_header else _RAW_WINDOW


def _damaged(name: str, what: str) -> ApiError:
    return ApiError(
        "invalid_encoding", f"the body can't be inflated as its content encoding {name} says: {what}; send it whole"
    )
