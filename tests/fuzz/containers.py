"""Takes image files apart into their segments, chunks, blocks or tags, and puts them together with right lengths."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from typing import Final, NamedTuple


class Piece(NamedTuple):
    """A part of a file. kind: its marker, chunk name or tag; empty for bytes that have none."""

    kind: bytes
    content: bytes


Pieces = list[Piece]
_PNG: Final = b"\x89PNG\r\n\x1a\n"
_ENTRY: Final = 12  # bytes of a TIFF's tag
_LONELY: Final = frozenset({0x01, *range(0xD0, 0xDA)})  # JPEG markers without a length


def split(data: bytes) -> Pieces:
    """Return the pieces of a file; one without a kind if its format has none."""
    return _format(data)[0](data)


def join(like: bytes, pieces: Pieces) -> bytes:
    """Return a file of the format that `like` has. Lengths and checksums are right."""
    return _format(like)[1](pieces)


def _format(data: bytes) -> tuple[Callable[[bytes], Pieces], Callable[[Pieces], bytes]]:
    known = (
        (b"\xff\xd8", _split_jpeg, _join_jpeg),
        (_PNG, _split_png, _join_png),
        (b"RIFF", _split_riff, _join_riff),
        (b"GIF8", _split_gif, _join_plain),
        (b"II*\0", _split_tiff, lambda pieces: _join_tiff(pieces, "<")),
        (b"MM\0*", _split_tiff, lambda pieces: _join_tiff(pieces, ">")),
        (b"BM", _split_bmp, _join_plain),
    )
    found = next(((take, put) for magic, take, put in known if data.startswith(magic)), None)
    return found or (lambda whole: [Piece(b"", whole)], _join_plain)


def _join_plain(pieces: Pieces) -> bytes:
    return b"".join(kind + content for kind, content in pieces)


def _split_jpeg(data: bytes) -> Pieces:
    """Segments: the kind is the marker, the content follows the length. The coded data have no kind."""
    pieces, place = [], 2
    while place + 4 <= len(data):
        if data[place] != 0xFF or data[place + 1] in (0x00, 0xFF):
            following = place + 1
            while following + 1 < len(data) and not (data[following] == 0xFF and data[following + 1] not in (0, 0xFF)):
                following += 1
            pieces.append(Piece(b"", data[place:following]))
            place = following
        elif data[place + 1] in _LONELY:
            pieces.append(Piece(b"", data[place : place + 2]))
            place += 2
        else:
            (size,) = struct.unpack_from(">H", data, place + 2)
            pieces.append(Piece(data[place : place + 2], data[place + 4 : place + 2 + size]))
            place += 2 + max(size, 2)
    return [*pieces, Piece(b"", data[place:])]


def _join_jpeg(pieces: Pieces) -> bytes:
    return b"\xff\xd8" + b"".join(
        kind + struct.pack(">H", min(len(content) + 2, 0xFFFF)) + content if kind else content
        for kind, content in pieces
    )


def _split_png(data: bytes) -> Pieces:
    pieces, place = [], len(_PNG)
    while place + 12 <= len(data):
        (size,) = struct.unpack_from(">I", data, place)
        pieces.append(Piece(data[place + 4 : place + 8], data[place + 8 : place + 8 + size]))
        place += 12 + size
    return pieces


def _join_png(pieces: Pieces) -> bytes:
    return _PNG + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in pieces
    )


def _split_riff(data: bytes) -> Pieces:
    pieces, place = [], 12
    while place + 8 <= len(data):
        kind, size = struct.unpack_from("<4sI", data, place)
        pieces.append(Piece(kind, data[place + 8 : place + 8 + size]))
        place += 8 + size + size % 2
    return pieces


def _join_riff(pieces: Pieces) -> bytes:
    body = b"WEBP" + b"".join(
        kind + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2) for kind, content in pieces
    )
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _split_gif(data: bytes) -> Pieces:
    """The header with its table, then each block; the kind is its first byte or two."""
    flags = data[10]
    place = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    pieces = [Piece(data[:6], data[6:13]), Piece(b"", data[13:place])]
    while place < len(data) and data[place] in (0x21, 0x2C):
        head = 2 if data[place] == 0x21 else 10
        if head == 10:
            flags = data[place + 9]
            head += (3 << (flags & 7) + 1 if flags & 0x80 else 0) + 1
        end = place + head
        while end < len(data) and data[end]:
            end += data[end] + 1
        pieces.append(Piece(data[place : place + 1], data[place + 1 : end + 1]))
        place = end + 1
    return [*pieces, Piece(b"", data[place:])]


def _split_bmp(data: bytes) -> Pieces:
    size = min(struct.unpack_from("<I", data, 14)[0], len(data))
    return [Piece(b"BM", data[2:14]), Piece(data[14:18], data[18 : 14 + size]), Piece(b"", data[14 + size :])]


def _split_tiff(data: bytes) -> Pieces:
    """The file without its header, then the tags of the first directory: the kind is number and type of the tag."""
    order = "<" if data.startswith(b"II") else ">"
    (start,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, start)
    tags = [data[start + 2 + _ENTRY * number :][:_ENTRY] for number in range(count)]
    return [Piece(b"", data[8:]), *(Piece(tag[:4], tag[4:]) for tag in tags)]


def _join_tiff(pieces: Pieces, order: str) -> bytes:
    """A new directory stands at the end, so that all offsets stay right."""
    body = b"".join(content for kind, content in pieces if not kind)
    tags = [kind + content[:8].ljust(8, b"\0") for kind, content in pieces if kind]
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8 + len(body))
    return head + body + struct.pack(order + "H", len(tags)) + b"".join(tags) + bytes(4)
