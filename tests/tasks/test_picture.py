"""What a box means for the picture that it was sent with."""

from __future__ import annotations

import pytest

from tests.tasks.made import picture
from vision.errors import BoxOutside


def test_a_box_that_is_the_image_itself_does_not_make_it_a_crop() -> None:
    asked = picture(640, 480, (0, 0, 640, 480))
    assert (asked.frame.box, asked.is_crop) == (None, False)


def test_a_box_of_another_size_outside_the_image_is_refused() -> None:
    with pytest.raises(BoxOutside):
        picture(80, 240, (700, 400, 780, 660))
