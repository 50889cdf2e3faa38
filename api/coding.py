"""Decodes the Content-Encoding of a request body, gzip or deflate, within a size limit."""

from __future__ import annotations

import zlib
from typing import Final

from api.errors import ApiError, printable

_GZIP: Final = frozenset({"gzip", "x-gzip"})
_PLAIN: Final = frozenset({"", "identity"})
_GZIP_WINDOW: Final = 31  # zlib's wbits for data with a gzip header and trailer
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
    inflater = zlib.decompressobj(_GZIP_WINDOW if name in _GZIP else _deflate_window(body))
    try:
        plain = inflater.decompress(body, limit + 1)
    except zlib.error:
        raise _damaged(name, "the data is damaged") from None
    if len(plain) > limit:
        raise ApiError("payload_too_large", f"the body inflates to over {limit} bytes; at most these are accepted")
    if not inflater.eof:
        raise _damaged(name, f"the data is cut off after {len(body)} bytes")
    if inflater.unused_data:
        raise _damaged(name, f"{len(inflater.unused_data)} bytes follow the end of the data")
    return plain


def _deflate_window(body: bytes) -> int:
    """Return zlib's wbits for deflate: RFC 9110 means zlib's format, but some clients send raw deflate data."""
    has_header = len(body) > 1 and body[0] & 0x0F == zlib.DEFLATED and (body[0] << 8 | body[1]) % 31 == 0
    return zlib.MAX_WBITS if has_header else _RAW_WINDOW


def _damaged(name: str, what: str) -> ApiError:
    return ApiError(
        "invalid_encoding", f"the body can't be inflated as its content encoding {name} says: {what}; send it whole"
    )
