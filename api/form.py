"""Parses a multipart/form-data body into its fields: texts, and the bytes of files.

No library fits. python-multipart accepts neither a preamble nor bare line feeds. For a file of 1 MB werkzeug's decoder
takes 12 ms and the standard library's email parser 49 ms; this takes 1 ms (2 cores, 2026-11).
"""

from __future__ import annotations

import re
from binascii import a2b_qp
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from email.parser import HeaderParser
from email.utils import collapse_rfc2231_value
from itertools import islice
from typing import Final

from api import encoded
from api.errors import ApiError, invalid_field, printable
from api.media import UNKNOWN_TYPES, is_binary, media_type

_LONGEST_TYPE: Final = 1000  # characters of a content type; a boundary has 70 at most (RFC 2046, 5.1.1)
_MAX_PARTS: Final = 16
_MAX_BOUNDARIES: Final = 1000  # occurrences of the boundary's text, real boundaries or not
_MAX_HEADERS: Final = 4096  # bytes of one part's headers; the worst take 9 ms to parse (2 cores, 2026-11)
# The standard library's errors for a parameter of a header: an unknown encoding, and a text both in parts and whole.
_UNREADABLE: Final = (ValueError, TypeError)
_HEADERS_END: Final = re.compile(rb"\r?\n\r?\n")


@dataclass(frozen=True)
class Part:
    """One part of a form.

    is_file: whether it has a file name. closed: whether a boundary follows it; else the body ends there.
    """

    name: str
    is_file: bool
    content_type: str
    data: bytes
    closed: bool

    @property
    def value(self) -> bytes | str:
        """The bytes of a file, or a text.

        The bytes decide first, then the content type. A part without a telling type is a file if it has a file name.
        """
        if is_binary(self.data):
            return self.data
        kind = media_type(self.content_type)
        untyped = kind in UNKNOWN_TYPES and (kind != "" or self.is_file)
        if (untyped or kind.startswith("image/")) and self.name != "image_base64":  # a file may hold base64
            return self.data
        return self.data.decode("utf-8-sig", "replace")


def read(content_type: str, body: bytes) -> list[tuple[str, bytes | str]]:
    """Return names and values in the body's order. Text before the first and after the last boundary is ignored.

    A file may lack its closing boundary: the body has its declared length, and the image decoder finds missing data.
    Raises ApiError: invalid_request, or invalid_base64 for a part whose transfer encoding is base64.
    """
    fields = []
    for part in _parts(body, _boundary(content_type)):
        value = part.value
        if not part.closed and isinstance(value, str):
            raise _unreadable(f"it ends within the field {printable(part.name)}, without a closing boundary")
        fields.append((part.name, value))
    return fields


def _boundary(content_type: str) -> bytes:
    if len(content_type) > _LONGEST_TYPE:  # the standard library takes seconds for 64 KB of parameters
        raise _unreadable(f"its content type has {len(content_type)} characters; at most {_LONGEST_TYPE} are accepted")
    header = Message()
    header["Content-Type"] = content_type
    try:
        boundary = header.get_boundary()
    except _UNREADABLE:
        boundary = None
    if not boundary:
        raise _unreadable(
            f"the content type {printable(content_type)} has no boundary; leave this header to your HTTP library"
        )
    return boundary.encode("latin-1", "replace")


def _parts(body: bytes, boundary: bytes) -> Iterator[Part]:
    body = b"\n" + body  # so that a boundary at the very start is found, too
    if body.count(b"\n--" + boundary) > _MAX_BOUNDARIES:
        raise _unreadable(f"its boundary occurs over {_MAX_BOUNDARIES} times; at most {_MAX_PARTS} parts are accepted")
    delimiter = re.compile(rb"\n--%s(?:--|[ \t]*(?=\r?\n|\Z))" % re.escape(boundary))
    found = list(islice(delimiter.finditer(body), _MAX_PARTS + 2))
    if not found:
        raise _unreadable(f"its boundary does not occur in the body of {len(body) - 1} bytes")
    if len(found) > _MAX_PARTS + 1:
        raise _unreadable(f"it has over {_MAX_PARTS} parts; at most these are accepted")
    line_break = b"\r\n" if body.startswith(b"\r\n", found[0].end()) else b"\n"
    for here, after in zip(found, [*found[1:], None], strict=True):
        if here[0].endswith(b"--") or here.end() == len(body):
            return
        end = after.start() + 1 if after else len(body)  # the line feed belongs to the boundary
        yield _part(body, here.end(), end, line_break, closed=after is not None)


def _part(body: bytes, start: int, end: int, line_break: bytes, *, closed: bool) -> Part:
    headers_end = _HEADERS_END.search(body, start, min(end, start + _MAX_HEADERS))
    if headers_end is None:
        raise _unreadable(f"the headers of a part do not end within {min(end - start, _MAX_HEADERS)} bytes")
    headers = HeaderParser().parsestr(body[start : headers_end.start()].decode("utf-8", "replace").lstrip())
    try:
        disposition = {key.lower(): value for key, value in headers.get_params([], "content-disposition")}
        name = collapse_rfc2231_value(disposition.get("name", ""))
    except _UNREADABLE:
        raise _unreadable("the headers of a part name a field in an unknown encoding") from None
    data = body[headers_end.end() : end]
    if closed:
        data = data.removesuffix(line_break if data.endswith(line_break) else b"\n")
    return Part(
        name, "filename" in disposition, headers.get("content-type", ""), _transferred(name, headers, data), closed
    )


def _transferred(name: str, headers: Message, data: bytes) -> bytes:
    """Return the data without its Content-Transfer-Encoding."""
    encoding = headers.get("content-transfer-encoding", "").strip().lower()
    match encoding:
        case "" | "binary" | "8bit" | "7bit":
            return data
        case "base64":
            return encoded.to_bytes(name or "a part", data.decode("latin-1"))
        case "quoted-printable":
            return a2b_qp(data)
        case _:
            raise invalid_field(
                printable(name),
                f"the transfer encoding {printable(encoding)} was received; send binary, base64 or quoted-printable",
            )


def _unreadable(why: str) -> ApiError:
    return ApiError("invalid_request", f"the multipart form can't be read: {why}")
