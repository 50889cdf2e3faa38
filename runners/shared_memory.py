"""Images on their way from the API to a runner by memory that both see: of 0.9 MB a socket makes a millisecond's work.

The API writes an image into a segment and sends where it is; the runner maps it by way of /proc. A segment is in no
file system (memfd), so that the kernel frees it when both processes are gone or done with it, however they ended, and
that it takes nothing of /dev/shm, of which a container has 64 MB. (Python's own multiprocessing.shared_memory is there,
and Python 3.11 removes a segment when the first process that attached to it ends.)
"""

from __future__ import annotations

import logging
import math
import mmap
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from runners.contract import SharedImage

logger = logging.getLogger("bentoml.enrichment.api")  # BentoML gives handlers to its own namespace only

MOST: Final = 32  # segments of a pool; what is under way beyond that is sent
CAPACITY: Final = 2 * 2**20  # more than any network's input by default; pages that nobody has written take no memory
WORTH_IT: Final = 2**17  # bytes; of 98 KB the socket made no more work

_PREFIX: Final = "enrichment-image-"

Image = NDArray[np.uint8]


class Pool:
    """The API's segments for one runner process. To be used by one thread."""

    def __init__(self) -> None:
        self._free: list[_Segment] = []
        self._made = 0
        self._closed = not hasattr(os, "memfd_create")  # on Linux alone
        self._said = False

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
            if answered and not self._closed:
                self._free.append(segment)
            else:
                self._made -= 1
                segment.close()

    def close(self, why: str | None = None) -> None:
        """From now on images are sent. why: for the log, unless the runner process is gone."""
        if why is not None:
            self._say(why)
        self._closed = True
        while self._free:
            self._free.pop().close()

    def _take(self, image: Image) -> _Segment | None:
        if self._closed or not WORTH_IT <= image.nbytes <= CAPACITY:
            return None
        if self._free:
            return self._free.pop()
        if self._made == MOST:
            return None
        try:
            segment = _Segment()
        except OSError as error:
            self._say(f"none could be had ({error})")
            return None
        self._made += 1
        return segment

    def _say(self, why: str) -> None:
        if not self._said:
            logger.warning("images go to the runner through the socket, not by shared memory: %s", why)
        self._said = True


class _Segment:
    def __init__(self) -> None:
        """Raises OSError where there is no memory or file descriptor left."""
        self._name = uuid.uuid4().hex
        self._fd = os.memfd_create(_PREFIX + self._name)
        try:
            os.ftruncate(self._fd, CAPACITY)
            self._memory = mmap.mmap(self._fd, CAPACITY)
        except OSError:
            os.close(self._fd)
            raise

    def holding(self, image: Image) -> SharedImage:
        _view(self._memory, image.shape)[...] = image
        return {"pid": os.getpid(), "fd": self._fd, "name": self._name, "shape": image.shape}

    def close(self) -> None:
        self._memory.close()
        os.close(self._fd)


def find(image: SharedImage) -> Image:
    """An image that lies in the API's process, not copied: not to be written. Raises OSError where it can't be read."""
    return _view(_map(image["pid"], image["fd"], image["name"]), image["shape"])


@lru_cache(maxsize=MOST)
def _map(pid: int, fd: int, name: str) -> mmap.mmap:
    # For writing, too: of what can't be written OpenVINO makes a copy.
    opened = os.open(f"/proc/{pid}/fd/{fd}", os.O_RDWR | os.O_NONBLOCK)
    try:
        # The API may have closed it, and have another file of this number by now.
        if os.readlink(f"/proc/self/fd/{opened}") != f"/memfd:{_PREFIX}{name} (deleted)":  # noqa: PTH115
            raise FileNotFoundError("it was given up")
        return mmap.mmap(opened, CAPACITY)
    finally:
        os.close(opened)


def _view(memory: mmap.mmap, shape: tuple[int, ...]) -> Image:
    return np.frombuffer(memory, np.uint8, math.prod(shape)).reshape(shape)
