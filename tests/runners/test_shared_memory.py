from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from runners import shared_memory
from runners.contract import SharedImage
from runners.shared_memory import CAPACITY, MOST, WORTH_IT, Image, Pool, find

HEIGHT, WIDTH = 300, 400


class GaveUp(Exception):
    pass


def picture(value: int = 7, height: int = HEIGHT, width: int = WIDTH) -> Image:
    return np.random.default_rng(value).integers(0, 256, (height, width, 3), np.uint8)


def shared(sent: Image | SharedImage) -> SharedImage:
    assert isinstance(sent, dict)
    return sent


def open_files() -> Counter[str]:
    return Counter(str(path.readlink()) for path in Path("/proc/self/fd").iterdir() if path.is_symlink())


def test_another_process_finds_the_image() -> None:
    image = picture()
    with Pool().lend(image) as sent:
        code = (
            "import json, sys; from runners.shared_memory import find; image = find(json.loads(sys.argv[1]));"
            "print(image.shape, image.dtype); sys.stdout.flush();"
            "sys.stdout.buffer.write(image.tobytes())"
        )
        told = subprocess.run([sys.executable, "-c", code, json.dumps(sent)], capture_output=True, check=True).stdout
    described, _, pixels = told.partition(b"\n")
    assert described == b"(300, 400, 3) uint8"
    assert pixels == image.tobytes()


@pytest.mark.parametrize("shape", [(HEIGHT, WIDTH), (640, 640), (WIDTH, HEIGHT)])
def test_one_segment_serves_images_of_any_shape_one_after_the_other(shape: tuple[int, int]) -> None:
    pool = Pool()
    with pool.lend(picture()) as first:
        assert np.array_equal(find(shared(first)), picture())
    other = picture(8, *shape)
    with pool.lend(other) as second:
        assert shared(second)["name"] == shared(first)["name"]
        assert np.array_equal(find(shared(second)), other)


def test_calls_at_a_time_have_segments_of_their_own() -> None:
    pool = Pool()
    with pool.lend(picture(1)) as first, pool.lend(picture(2)) as second:
        assert np.array_equal(find(shared(first)), picture(1))
        assert np.array_equal(find(shared(second)), picture(2))


def test_what_a_call_that_was_given_up_is_reading_is_never_written_again() -> None:
    pool = Pool()
    with suppress(GaveUp), pool.lend(picture(1)) as sent:
        being_read = find(shared(sent))
        raise GaveUp
    for value in range(2, 2 + 2 * MOST):
        with pool.lend(picture(value)) as other:
            assert shared(other)["name"] != shared(sent)["name"]
    assert np.array_equal(being_read, picture(1))


def test_what_was_given_up_before_it_was_read_is_not_found() -> None:
    pool = Pool()
    with suppress(GaveUp), pool.lend(picture(1)) as sent:
        raise GaveUp
    with pytest.raises(OSError, match="No such file"):
        find(shared(sent))
    with pool.lend(picture(2)) as other:  # at the place of the first
        assert shared(other)["fd"] == shared(sent)["fd"]
        with pytest.raises(OSError, match="it was given up"):
            find(shared(sent))


def test_an_image_that_is_cut_out_of_another_is_shared_whole() -> None:
    view = picture(3, 600, 800)[100:500, 200:600]
    with Pool().lend(view) as sent:
        assert np.array_equal(find(shared(sent)), view)


@pytest.mark.parametrize("size", [WORTH_IT // 3 - 1, CAPACITY // 3 + 1])
def test_an_image_for_which_it_does_not_pay_or_that_is_too_large_is_sent(size: int) -> None:
    image = picture(4, 1, size)
    with Pool().lend(image) as sent:
        assert sent is image


def test_what_is_under_way_beyond_the_most_is_sent() -> None:
    pool = Pool()
    lent = [pool.lend(picture()) for _ in range(MOST + 2)]
    sent = [each.__enter__() for each in lent]
    assert [isinstance(each, dict) for each in sent] == [True] * MOST + [False] * 2
    lent[5].__exit__(None, None, None)
    with pool.lend(picture()) as next_one:
        assert shared(next_one)["name"] == shared(sent[5])["name"]


def test_calls_that_are_given_up_leave_nothing_open() -> None:
    pool = Pool()
    before = open_files()
    for _ in range(3 * MOST):
        with suppress(GaveUp), pool.lend(picture()):
            raise GaveUp
    assert open_files() == before
    with pool.lend(picture()) as sent:  # nor do they count
        assert isinstance(sent, dict)


def test_the_runner_keeps_no_more_than_the_most_of_what_was_given_up() -> None:
    pool = Pool()
    for value in range(2 * MOST):
        with suppress(GaveUp), pool.lend(picture(value)) as sent:
            assert np.array_equal(find(shared(sent)), picture(value))
            raise GaveUp
    assert shared_memory._map.cache_info().currsize == MOST


def test_where_none_can_be_had_images_are_sent_and_it_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(_: str) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "memfd_create", full)
    pool, image = Pool(), picture()
    for _ in range(3):
        with pool.lend(image) as sent:
            assert sent is image
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "Too many open files" in caplog.text


def test_where_the_runner_cannot_read_them_none_is_made_any_more(caplog: pytest.LogCaptureFixture) -> None:
    pool, image = Pool(), picture()
    before = open_files()
    with pool.lend(image) as first:
        assert isinstance(first, dict)
        with pool.lend(image):
            pass  # which leaves a free one
        pool.close("[Errno 13] Permission denied")
        pool.close("[Errno 13] Permission denied")
        with pool.lend(image) as second:
            assert second is image
    assert caplog.text.count("Permission denied") == 1
    assert open_files() == before


def test_where_the_system_has_no_such_memory_images_are_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create")
    image = picture()
    with Pool().lend(image) as sent:
        assert sent is image
