"""Images on their way from the API to a runner by memory that both see: of 0.9 MB a socket makes a millisecond's work.

The API writes an image into a segment and sends where it is; the runner maps it by way of /proc. A segment has no name
(memfd), so that the kernel frees it when both processes are gone or done with it, however they ended, and that it is
not part of /dev/shm, of which a container has 64 MB. (The segments of Python's own multiprocessing.shared_memory have
names, and Python 3.11 takes them away when the first process that attached to them ends.)
"""

from __future__ import annotations

import itertools
import logging
import math
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from runners.contract import SharedImage

logger = logging.getLogger("bentoml.enrichment.api")  # BentoML gives handlers to its own namespace only

MOST: Final = 32  # segments of a pool; what is under way beyond that is sent
CAPACITY: Final = 2 * 2**20  # more than any network's input by default; pages that nobody has written take no memory
WORTH_IT: Final = 2**17  # bytes; of 98 KB the socket made no more work

Image = NDArray[np.uint8]


class Pool:
    """The API's segments for one runner. To be used by one thread."""

    def __init__(self) -> None:
        self._free: list[_Segment] = []
        self._made = 0
        self._given_up = not hasattr(os, "memfd_create")  # on Linux alone

    @contextmanager
    def lend(self, image: Image) -> Iterator[Image | SharedImage]:
        """An image as it is to be sent for a call that the block waits for: where it is, or itself.

        A segment is written again only after a call that was answered. After one that ended otherwise the runner may
        be reading yet, so that it gets this one to keep.
        """
        segment = self._take(image)
        if segment is None:
            yield image
            return
        answered = False
        try:
            yield segment.holding(image)
            answered = True
        finally:
            if answered and not self._given_up:
                self._free.append(segment)
            else:
                self._made -= 1
                segment.close()

    def give_up(self, why: str) -> None:
        """From now on images are sent. why: for the log."""
        if not self._given_up:
            logger.warning("images go to the runner through the socket, not by shared memory: %s", why)
        self._given_up = True
        while self._free:
            self._free.pop().close()

    def _take(self, image: Image) -> _Segment | None:
        if self._given_up or not WORTH_IT <= image.nbytes <= CAPACITY:
            return None
        if self._free:
            return self._free.pop()
        if self._made == MOST:
            return None
        try:
            segment = _Segment()
        except OSError as error:
            self.give_up(f"none could be had ({error})")
            return None
        self._made += 1
        return segment


class _Segment:
    _serials = itertools.count()

    def __init__(self) -> None:
        """Raises OSError where there is no memory or file descriptor left."""
        self._serial = next(self._serials)
        self._fd = os.memfd_create(_name(self._serial))
        try:
            os.ftruncate(self._fd, CAPACITY)
            self._memory = mmap.mmap(self._fd, CAPACITY)
        except OSError:
            os.close(self._fd)
            raise

    def holding(self, image: Image) -> SharedImage:
        _view(self._memory, image.shape)[...] = image
        return {"pid": os.getpid(), "fd": self._fd, "serial": self._serial, "shape": image.shape}

    def close(self) -> None:
        self._memory.close()
        os.close(self._fd)


def find(image: SharedImage) -> Image:
    """An image that lies in another process, read-only and not copied. Raises OSError where that can't be read."""
    return _view(_map(image["pid"], image["fd"], image["serial"]), image["shape"])


@lru_cache(maxsize=MOST)
def _map(pid: int, fd: int, serial: int) -> mmap.mmap:
    path = Path(f"/proc/{pid}/fd/{fd}")
    # The API may have closed it, and have another file of this number by now.
    if str(path.readlink()) != f"/memfd:{_name(serial)} (deleted)":
        raise FileNotFoundError("it was given up")
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), CAPACITY, prot=mmap.PROT_READ)


def _view(memory: mmap.mmap, shape: tuple[int, ...]) -> Image:
    return np.frombuffer(memory, np.uint8, math.prod(shape)).reshape(shape)


def _name(serial: int) -> str:
    return f"enrichment-image-{serial}"
