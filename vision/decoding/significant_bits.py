"""Scales pictures whose samples use only the low bits, such as 12 bits of a thermal camera in a 16-bit PNG."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray


def present(bands: Iterable[NDArray[Any]], channels: int, depth: int) -> NDArray[np.bool_]:
    """Find the sample values of a picture: a mask (channels, 2 ** depth). bands: (h, w) or (h, w, channels) each."""
    found = np.zeros((channels, 2**depth), bool)
    for band in bands:
        for index, channel in enumerate(found):
            channel[band if band.ndim == 2 else band[..., index]] = True
    return found


def is_narrow(significant: bytes, channels: int, depth: int) -> bool:
    """Whether PNG's sBIT announces fewer significant bits than `depth`. significant: number of bits by channel."""
    known = len(significant) == channels and all(0 < bits <= depth for bits in significant)
    return known and any(bits < depth for bits in significant)


def right_aligned_peaks(found: NDArray[np.bool_], significant: bytes) -> NDArray[np.uint32] | None:
    """The largest possible sample (channels,) if samples are right-aligned, in the low bits; None if they are not.

    found: mask (channels, 2 ** depth) of the samples that occur. significant: PNG's sBIT, narrow. The standard requires
    left-aligned samples, but some encoders align them right. Right-aligned is certain if all samples fit into the low
    bits, and at least one can't be left-aligned.
    """
    depth = found.shape[1].bit_length() - 1
    peaks = np.array([2**bits - 1 for bits in significant], np.uint32)
    if any(channel[peak + 1 :].any() for channel, peak in zip(found, peaks.tolist(), strict=True)):
        return None
    aligned = (_is_left_aligned(channel, bits, depth) for channel, bits in zip(found, significant, strict=True))
    return None if all(aligned) else peaks


def spread(samples: NDArray[Any], peaks: NDArray[np.uint32] | None) -> NDArray[Any]:
    """Scale samples from 0…peak to the full range of their dtype. Without peaks, return them unchanged."""
    if peaks is None:
        return samples
    factors = peaks if samples.ndim == 3 else peaks[0]
    scaled = samples.astype(np.uint32) * np.uint32(np.iinfo(samples.dtype).max) // factors
    return scaled.astype(samples.dtype)


def _is_left_aligned(found: NDArray[np.bool_], bits: int, depth: int) -> bool:
    """Whether all samples may be left-aligned, with low bits of zeros, of the repeated upper bits or of scaling."""
    values = np.arange(2**bits, dtype=np.int64)
    shifted = values << (depth - bits)
    repeated = shifted.copy()
    for place in range(bits, depth, bits):
        repeated |= shifted >> place
    scaled = (values * (2**depth - 1) * 2 + 2**bits - 1) // (2 * (2**bits - 1))
    possible = np.zeros(2**depth, bool)
    possible[np.concatenate([shifted, repeated, scaled])] = True
    return not (found & ~possible).any()
