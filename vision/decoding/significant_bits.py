"""Pictures whose samples fill the low bits only: 12 bits of a thermal or night camera in a 16-bit PNG."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vision.decoding.bands import bands


def right_aligned_peaks(samples: NDArray[Any], significant: bytes) -> NDArray[np.uint32] | None:
    """The greatest sample of each channel where samples stand in the low bits of their type; None where they don't.

    samples: (h, w) or (h, w, channels), uint8 or uint16. significant: PNG's sBIT, the bits that count, by channel. The
    standard wants those bits left-aligned, and some encoders write them right-aligned. That is certain where all
    samples fit into the low bits and one of them is none that a left-aligned sample can be.
    """
    channels = samples[..., None] if samples.ndim == 2 else samples
    depth = int(np.iinfo(samples.dtype).max).bit_length()
    if len(significant) != channels.shape[2] or not all(0 < bits <= depth for bits in significant):
        return None
    peaks = np.array([2**bits - 1 for bits in significant], np.uint32)
    if all(bits == depth for bits in significant) or (channels.max(axis=(0, 1)) > peaks).any():
        return None
    aligned = (_left_aligned(channels[..., index], bits, depth) for index, bits in enumerate(significant))
    return None if all(aligned) else peaks


def spread(samples: NDArray[Any], peaks: NDArray[np.uint32] | None) -> NDArray[Any]:
    """Samples scaled from 0…peak to the full range of their type; as they are where there is no peak."""
    if peaks is None:
        return samples
    factors = peaks if samples.ndim == 3 else peaks[0]
    scaled = samples.astype(np.uint32) * np.uint32(np.iinfo(samples.dtype).max) // factors
    return scaled.astype(samples.dtype)


def _left_aligned(channel: NDArray[Any], bits: int, depth: int) -> bool:
    """Whether all samples may be left-aligned: zeros, the upper bits again or a rounded product in the low ones."""
    values = np.arange(2**bits, dtype=np.int64)
    shifted = values << (depth - bits)
    repeated = shifted.copy()
    for place in range(bits, depth, bits):
        repeated |= shifted >> place
    scaled = (values * (2**depth - 1) * 2 + 2**bits - 1) // (2 * (2**bits - 1))
    possible = np.zeros(2**depth, bool)
    possible[np.concatenate([shifted, repeated, scaled])] = True
    # A few rows at a time: as an index each sample takes eight bytes.
    return all(bool(possible[channel[rows]].all()) for rows in bands(*channel.shape))
