"""Reads the tags of a TIFF file, or of the EXIF block in other formats."""

from __future__ import annotations

import struct
from typing import Final

from vision.errors import DamagedImage

_BIG: Final = 43  # version number of a BigTIFF; a classic TIFF has 42
_MOST_ENTRIES: Final = 65_535  # the limit of a classic TIFF
_MOST_VALUES: Final = 2**18  # per tag; enough for the strips or tiles of 50 megapixels
_INTEGERS: Final = {1: "B", 3: "H", 4: "I", 7: "B", 13: "I", 16: "Q", 18: "Q"}  # TIFF type → struct's format
_RATIO: Final = 5  # TIFF's RATIONAL: two 32-bit numbers
_SIZES: Final = {**{kind: struct.calcsize(form) for kind, form in _INTEGERS.items()}, _RATIO: 8}


class Directory:
    """The first directory of a classic TIFF or BigTIFF. order: the byte order, `<` or `>`.

    Raises DamagedImage if the bytes have no readable directory.
    """

    def __init__(self, data: bytes) -> None:
        self.order: Final = {b"II": "<", b"MM": ">"}.get(data[:2], "")
        self._data: Final = data
        try:
            self._entries: Final = self._read()
        except (struct.error, OverflowError):
            raise DamagedImage("the TIFF directory lies outside the file") from None

    def __contains__(self, tag: int) -> bool:
        return tag in self._entries

    def integers(self, tag: int, default: tuple[int, ...] = ()) -> tuple[int, ...]:
        """All values of a tag, or the default if it is absent. Raises DamagedImage if they are not integers."""
        if tag not in self._entries:
            return default
        kind, count, place = self._entries[tag]
        if kind not in _INTEGERS or not 0 < count <= _MOST_VALUES:
            raise DamagedImage(f"the TIFF tag {tag} has {count} values of type {kind}; whole numbers were expected")
        try:
            return struct.unpack_from(f"{self.order}{count}{_INTEGERS[kind]}", self._data, place)
        except (struct.error, OverflowError):
            raise DamagedImage(f"the values of the TIFF tag {tag} lie outside the file") from None

    def integer(self, tag: int, default: int) -> int:
        """The first value of a tag, or the default if it is absent. Raises DamagedImage as `integers` does."""
        return self.integers(tag, (default,))[0]

    def ratios(self, tag: int) -> tuple[float, ...]:
        """All values of a RATIONAL tag. Empty if it is absent or of another type. A zero denominator counts as 1."""
        kind, count, place = self._entries.get(tag, (0, 0, 0))
        if kind != _RATIO or place + 8 * count > len(self._data):
            return ()
        numbers = struct.unpack_from(f"{self.order}{2 * count}I", self._data, place)
        return tuple(above / max(below, 1) for above, below in zip(numbers[::2], numbers[1::2], strict=True))

    def raw(self, tag: int) -> bytes | None:
        """The value of a tag of bytes; None if it is absent, of another type, or outside the file."""
        kind, count, place = self._entries.get(tag, (0, 0, 0))
        return self._data[place : place + count] if kind in (1, 7) and place + count <= len(self._data) else None

    def _read(self) -> dict[int, tuple[int, int, int]]:
        """Tag → type, number of values, offset of the values."""
        if not self.order:
            raise DamagedImage("the TIFF header is damaged")
        if self._number("H", 2) == _BIG:
            start = self._number("Q", 8)
            count, form, inline, start = self._number("Q", start), "HHQ8s", "Q", start + 8
        else:
            start = self._number("I", 4)
            count, form, inline, start = self._number("H", start), "HHI4s", "I", start + 2
        if count > _MOST_ENTRIES:
            raise DamagedImage(f"the TIFF directory has {count} entries; at most {_MOST_ENTRIES} are taken")
        entry, room = struct.Struct(self.order + form), struct.calcsize(inline)
        entries: dict[int, tuple[int, int, int]] = {}
        for place in range(start, start + count * entry.size, entry.size):
            tag, kind, number, value = entry.unpack_from(self._data, place)
            offset = place + entry.size - room
            if _SIZES.get(kind, 1) * number > room:
                (offset,) = struct.unpack(self.order + inline, value)
            entries.setdefault(tag, (kind, number, offset))
        return entries

    def _number(self, form: str, place: int) -> int:
        number: int = struct.unpack_from(self.order + form, self._data, place)[0]
        return number
