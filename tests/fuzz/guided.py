"""Fuzzing led by the lines that it reaches: atheris, in an environment of its own. `make fuzz GUIDED=bodies` runs it.

It ends with the first finding, which stands in tests/fuzz/corpus then. What it learned stays in .run/fuzz.

usage: python -m tests.fuzz.guided {bodies,pictures} [--minutes 5]
"""

from __future__ import annotations

import argparse
import hashlib
import random
import struct
import sys
from pathlib import Path
from typing import Final

import atheris

with atheris.instrument_imports(include=["api", "email", "vision.decoding"]):
    from api.request import Received
    from tests.fuzz import bodies, containers, parsers, pictures
    from tests.fuzz.run import CORPUS

_LEARNED: Final = Path(__file__).parents[2] / ".run" / "fuzz"
_LONGEST: Final = 6000  # bytes of a case
_SECONDS: Final = 60  # of a case; one that hangs is a finding, too


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=["bodies", "pictures"])
    parser.add_argument("--minutes", type=float, default=5)
    arguments = parser.parse_args()
    of_bodies = arguments.target == "bodies"
    learned = _LEARNED / arguments.target
    learned.mkdir(parents=True, exist_ok=True)
    for seed in bodies.seeds() if of_bodies else pictures.seeds():
        if len(seed) <= _LONGEST:
            (learned / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)
    options = [
        f"-max_total_time={round(60 * arguments.minutes)}",
        f"-max_len={_LONGEST}",
        f"-timeout={_SECONDS}",
        f"-exact_artifact_path={CORPUS / ('found.form' if of_bodies else 'found')}",
        "-print_final_stats=1",
    ]
    check = _check_body if of_bodies else _check_picture
    atheris.Setup([sys.argv[0], str(learned), *options], check, **({} if of_bodies else {"custom_mutator": _mutated}))
    atheris.Fuzz()


def _check_body(data: bytes) -> None:
    """Let all parsers read a seed as tests/fuzz/corpus has it: the content type, a line break, the body."""
    content_type, _, body = data.partition(b"\n")
    for parser in parsers.PARSERS:
        parsers.check(parser, Received(content_type.decode("latin-1"), body, {}))


def _check_picture(data: bytes) -> None:
    pictures.check(data)


def _mutated(data: bytes, most: int, seed: int) -> bytes:
    """Change one piece of a file, with right lengths and checksums; or the file as it is."""
    dice = random.Random(seed)
    try:
        pieces = containers.split(data) if dice.random() < 0.5 else []
    except (IndexError, struct.error):  # what an earlier change broke
        pieces = []
    if pieces:
        at = dice.randrange(len(pieces))
        kind, content = pieces[at]
        pieces[at] = containers.Piece(kind, atheris.Mutate(content or b"\0", len(content) + 64))
        whole = containers.join(data, pieces)
        if len(whole) <= most:
            return whole
    changed: bytes = atheris.Mutate(data, most)
    return changed


if __name__ == "__main__":
    main()
