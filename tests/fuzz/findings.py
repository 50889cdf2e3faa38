"""What a fuzzer found: a case that ended as none may."""

from __future__ import annotations


class Finding(AssertionError):
    """The text says what happened, and what may happen."""
