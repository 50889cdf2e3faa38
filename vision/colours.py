"""Colours for drawings that colour-blind people can tell apart, and the text colour that is readable on each."""

from __future__ import annotations

from typing import Final

Colour = tuple[int, int, int]  # sRGB, 0…255

BLACK: Final[Colour] = (0, 0, 0)
WHITE: Final[Colour] = (255, 255, 255)
# Okabe & Ito, "Color Universal Design" (2008). The first three differ in lightness, too: dark is worst.
VERMILION: Final[Colour] = (213, 94, 0)
ORANGE: Final[Colour] = (230, 159, 0)
YELLOW: Final[Colour] = (240, 228, 66)
BLUE: Final[Colour] = (0, 114, 178)
GREEN: Final[Colour] = (0, 158, 115)
PURPLE: Final[Colour] = (204, 121, 167)
SKY: Final[Colour] = (86, 180, 233)


def contrast(one: Colour, other: Colour) -> float:
    """The contrast ratio of two colours by WCAG 2.2: 1 (equal) to 21 (black on white). Text needs 4.5."""
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def text_on(background: Colour) -> Colour:
    """Black or white, whichever has more contrast. It is at least 4.58 on any background."""
    return max((BLACK, WHITE), key=lambda text: contrast(text, background))


def _luminance(colour: Colour) -> float:
    """Relative luminance (WCAG 2.2), 0…1."""
    channels = (value / 255 for value in colour)
    red, green, blue = (value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
