"""Changes image files where their formats have meaning: one case is a seed, and so is the same file every time."""

from __future__ import annotations

import random
import zlib
from collections.abc import Sequence
from typing import Final, Literal

from tests.fuzz.containers import Piece, Pieces, join, split

# Where parsers change their minds.
_NUMBERS: Final = (0, 1, 2, 3, 4, 7, 8, 9, 16, 255, 256, 4096, 2**15 - 1, 2**15, 2**16 - 1, 2**24, 2**31 - 1, 2**32 - 1)
_ORDERS: Final[tuple[Literal["little", "big"], ...]] = ("little", "big")
_HEAD: Final = 48  # bytes of a piece in which most fields lie
_KINDS: Final = (
    *(bytes([0xFF, marker]) for marker in (0xC0, 0xC1, 0xC2, 0xC3, 0xC4, 0xC9, 0xCA, 0xCC, 0xDA, 0xDB, 0xDC, 0xDD)),
    *(bytes([0xFF, marker]) for marker in (0xE0, 0xE1, 0xE2, 0xEE, 0xFE)),
    *(b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"cHRM", b"gAMA", b"iCCP", b"sBIT", b"sRGB", b"cICP", b"bKGD"),
    *(b"eXIf", b"zTXt", b"iTXt", b"acTL", b"fcTL", b"fdAT", b"CgBI"),
    *(b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF", b"ICCP", b"EXIF", b"XMP "),
)  # fmt: skip


def case(seeds: Sequence[bytes], number: int) -> bytes:
    """Return the file of one case: a seed with one to eight changes."""
    dice = random.Random(number)
    data = dice.choice(seeds)
    pieces = split(data)
    for _ in range(dice.choice((1, 1, 2, 3, 8))):
        _change(pieces, dice, seeds)
    whole = join(data, pieces)
    return whole[: dice.randrange(len(whole) + 1)] if dice.random() < 0.05 else whole


def _change(pieces: Pieces, dice: random.Random, seeds: Sequence[bytes]) -> None:
    if not pieces:
        pieces.extend(split(dice.choice(seeds)))
    at = dice.randrange(len(pieces))
    kind, content = pieces[at]
    match dice.randrange(12):
        case 0:
            del pieces[at]
        case 1:
            pieces[at:at] = [pieces[at]] * dice.choice((1, 1, 2, 40))
        case 2:
            other = dice.randrange(len(pieces))
            pieces[at], pieces[other] = pieces[other], pieces[at]
        case 3:
            pieces.insert(at, dice.choice(split(dice.choice(seeds)) or pieces))
        case 4 if kind:
            same = [known for known in _KINDS if len(known) == len(kind)]
            pieces[at] = Piece(dice.choice(same) if same else _with_number(kind, dice), content)
        case 5:
            pieces[at] = Piece(kind, content[: dice.randrange(len(content) + 1)])
        case 6:
            place = dice.randrange(len(content) + 1)
            pieces[at] = Piece(kind, content[:place] + dice.randbytes(dice.choice((1, 4, 300))) + content[place:])
        case 7:
            pieces[at] = Piece(kind, _recoded(content, dice))
        case _:
            pieces[at] = Piece(kind, _with_number(content, dice))


def _with_number(content: bytes, dice: random.Random) -> bytes:
    """Write a number of 1 to 4 bytes over what stands somewhere, mostly near the start."""
    size, order = dice.choice((1, 1, 2, 2, 3, 4)), _ORDERS[dice.randrange(2)]
    place = dice.randrange(max(1, min(len(content), dice.choice((_HEAD, _HEAD, len(content) or 1))) - size + 1))
    old = int.from_bytes(content[place : place + size], order)
    new: int = dice.choice((*_NUMBERS, old + 1, old - 1, old * 2, old ^ 1 << dice.randrange(8 * size), len(content)))
    written: bytes = (new % (1 << 8 * size)).to_bytes(size, order)
    return content[:place] + written + content[place + size :]


def _recoded(content: bytes, dice: random.Random) -> bytes:
    """Compress again what is compressed, with changed or missing bytes: its checksum is right, its length is not."""
    try:
        plain = zlib.decompress(content)
    except zlib.error:
        return content[::-1]
    plain = _with_number(plain, dice) if dice.random() < 0.5 else plain[: dice.randrange(len(plain) + 1)]
    return zlib.compress(plain * dice.choice((1, 1, 3)))
