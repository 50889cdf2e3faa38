"""How much decoded picture may be in memory at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class PixelBudget:
    """Pixels that requests hold from decoding to the answer; who finds too few left waits.

    A picture of 49 megapixels is 147 MB of RGB out of a file of 160 KB: counting requests would not bound memory.
    """

    def __init__(self, pixels: int) -> None:
        self._free = pixels
        self._change = asyncio.Condition()

    @asynccontextmanager
    async def hold(self, pixels: int) -> AsyncIterator[None]:
        """Keep `pixels` for as long as the block runs; not more than the budget has in all."""
        async with self._change:
            await self._change.wait_for(lambda: self._free >= pixels)
            self._free -= pixels
        try:
            yield
        finally:
            # Without waiting for the lock: a cancelled request must give back, too.
            self._free += pixels
            async with self._change:
                self._change.notify_all()
