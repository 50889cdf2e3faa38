"""Generates docs/reference from the code, or measures README and docs.

usage: python -m tools.docs generate | check | measure

check: fail if a generated page differs from the code. measure: print words, sentences, numbers and dead links of each
page, and fail on a dead link.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tools.docs import measure, reference, routes
from tools.docs.text import ROOT

FOLDER: Final = ROOT / "docs" / "reference"


def generated() -> Mapping[Path, str]:
    """File → text, of each page that the code determines."""
    texts = {
        "api": routes.page(routes.document()),
        "configuration": reference.configuration(),
        "errors": reference.errors(),
        "metrics": reference.metrics(),
        "settings": reference.settings(),
    }
    return {FOLDER / f"{name}.md": text for name, text in texts.items()}


def main(command: str) -> int:
    """Run one command. Returns the exit status."""
    if command == "generate":
        for file, text in generated().items():
            file.write_text(text, encoding="utf-8")
        return 0
    if command == "check":
        stale = [file.name for file, text in generated().items() if file.read_text(encoding="utf-8") != text]
        print(f"run `python -m tools.docs generate`: {', '.join(stale)} differ" if stale else "as the code says")
        return 1 if stale else 0
    pages = measure.pages()
    print(measure.table(pages))
    problems = measure.problems(pages)
    print("\n".join(problems))
    return 1 if problems else 0


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in {"generate", "check", "measure"}:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1]))
