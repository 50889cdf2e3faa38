"""Canvas: lines, boxes and labels at every size, and the encoded picture with its comment."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from vision import canvas as module
from vision.arrays import RGB, Box
from vision.canvas import MAX_SIDE, Canvas, canvas_bytes, encode
from vision.colours import BLUE, GREEN, YELLOW
from vision.labels import Places, Size

GREY = 90


def grey(width: int, height: int) -> RGB:
    return np.full((height, width, 3), GREY, np.uint8)


def near(image: Image.Image, point: tuple[float, float], colour: tuple[int, int, int], radius: int = 3) -> bool:
    """Whether a colour is at a point, or a few pixels beside it."""
    x, y = (round(value) for value in point)
    part = np.asarray(image)[max(0, y - radius) : y + radius + 1, max(0, x - radius) : x + radius + 1]
    return bool((np.abs(part.astype(int) - colour).max(axis=-1) < 40).any())


def rows_of(image: Image.Image, colour: tuple[int, int, int]) -> int:
    """The number of rows in which a colour fills many pixels: of a label, not of a line."""
    return int(((np.abs(np.asarray(image).astype(int) - colour).max(axis=-1) < 10).sum(axis=1) > 40).sum())


@pytest.mark.parametrize("size", [(640, 480), (3840, 2160), (480, 640)])
def test_a_box_has_its_colour_on_all_sides_and_leaves_the_rest(size: tuple[int, int]) -> None:
    canvas = Canvas(grey(*size))
    width, height = size
    left, top, right, bottom = width * 0.3, height * 0.4, width * 0.8, height * 0.9
    canvas.box((left, top, right, bottom), BLUE, "x")
    image = canvas.drawn()
    assert image.size == size
    middle = (left + right) / 2, (top + bottom) / 2
    for point in ((left, middle[1]), (right, middle[1]), (middle[0], top), (middle[0], bottom)):
        assert near(image, point, BLUE, 8)
    assert np.asarray(image)[round(middle[1]), round(middle[0])].tolist() == [GREY] * 3
    assert np.asarray(image)[-1, -1].tolist() == [GREY] * 3


def test_limbs_join_their_joints() -> None:
    canvas = Canvas(grey(640, 480))
    canvas.limbs([((100, 100), (300, 200))], [(100, 100), (300, 200), (500, 400)], GREEN)
    image = canvas.drawn()
    for point in ((100, 100), (200, 150), (300, 200), (500, 400)):
        assert near(image, point, GREEN)
    assert not near(image, (400, 300), GREEN)


@pytest.mark.parametrize(("width", "least"), [(320, 15), (640, 20), (1920, 36), (3840, 68)])
def test_labels_grow_with_the_picture(width: int, least: int) -> None:
    canvas = Canvas(grey(width, width * 9 // 16))
    canvas.note("household pet household pet", YELLOW)
    assert rows_of(canvas.drawn(), YELLOW) >= least


@pytest.mark.parametrize("people", [1, 7, 70])
def test_the_labels_of_many_people_keep_all_their_text_apart(people: int) -> None:
    canvas = Canvas(grey(640, 480))
    for _ in range(people):
        canvas.box((300, 200, 340, 300), BLUE, "walking 0.90")
    image = np.asarray(canvas.drawn()).astype(int)
    alone = Canvas(grey(640, 480))
    alone.box((300, 200, 340, 300), BLUE, "walking 0.90")
    one = np.asarray(alone.drawn()).astype(int)
    filled, single = ((np.abs(array - BLUE).max(axis=-1) < 10).sum() for array in (image, one))
    assert filled >= people * single * 0.4  # smaller text where there are many


def test_the_number_of_labels_is_bounded_for_any_number_of_boxes(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    class Counting(Places):
        def take(self, size: Size, box: Box) -> Box | None:
            asked.append(1)
            return super().take(size, box)

    monkeypatch.setattr(module, "Places", Counting)
    canvas = Canvas(grey(320, 240))
    for _ in range(3600):  # twelve views with the most detections
        canvas.keep_clear((30, 30, 90, 90))
        canvas.box((30, 30, 90, 90), BLUE, "walking 0.90")
    canvas.drawn()
    assert len(asked) <= 150 * 5


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (200, 3), (32, 32), (64, 48), (5000, 20)])
@pytest.mark.parametrize("text", ["", "a\nname\tof a checkpoint", "x" * 5000, "刀"])
def test_every_picture_and_every_name_can_be_drawn(size: tuple[int, int], text: str) -> None:
    canvas = Canvas(grey(*size))
    canvas.box((0, 0, *size), BLUE, text)
    canvas.box((size[0], size[1], size[0], size[1]), BLUE, text)
    canvas.note(text, GREEN)
    scale = min(1, MAX_SIDE / max(size))
    assert canvas.drawn().size == tuple(max(1, round(side * scale)) for side in size)


def test_a_larger_picture_is_reduced_with_all_that_is_drawn() -> None:
    canvas = Canvas(grey(2 * MAX_SIDE, 1000))
    canvas.box((2000, 400, 6000, 900), BLUE, "x")
    image = canvas.drawn()
    assert image.size == (MAX_SIDE, 500)
    assert near(image, (1000, 325), BLUE, 8)
    assert near(image, (2000, 450), BLUE, 8)
    assert canvas_bytes(1000, 2 * MAX_SIDE) == canvas_bytes(500, MAX_SIDE)


def test_a_read_only_picture_is_left_alone() -> None:
    image = grey(64, 48)
    image.flags.writeable = False
    canvas = Canvas(image)
    canvas.box((1, 1, 40, 40), BLUE, "x")
    canvas.drawn()
    assert (image == GREY).all()


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_the_picture_holds_the_comment(form: str) -> None:
    encoded = encode(Image.new("RGB", (20, 10), BLUE), "PNG" if form == "PNG" else "JPEG", '{"a": "ä"}')
    image = Image.open(io.BytesIO(encoded))
    assert (image.format, image.size) == (form, (20, 10))
    comment = image.info["Comment" if form == "PNG" else "comment"]
    assert (comment if isinstance(comment, str) else comment.decode()) == '{"a": "ä"}'


def test_a_comment_that_a_jpeg_cannot_hold_is_left_out() -> None:
    for length, held in ((65_533, True), (65_534, False)):
        image = Image.open(io.BytesIO(encode(Image.new("RGB", (9, 9)), "JPEG", "x" * length)))
        assert ("comment" in image.info) is held
