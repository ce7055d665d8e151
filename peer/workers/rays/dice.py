"""Random numbers without a generator: each is a function of what it is for.

Theory of operation. A picture must not depend on how it was cut, on which process computed a tile, or on the processor.
So a random number is never *drawn*: it is a hash of (seed, pixel, bounce, purpose), shifted along a lattice by the number of
the sample. Integer arithmetic modulo 2**32 is exact everywhere. The arithmetic of floating point in this package
is limited to what IEEE 754 rounds exactly and numpy applies to each element alone: + - * /, square root, comparison, minimum,
maximum, absolute value, conversion. No sine, exponential or power (their last bit is the library's choice), no sum or dot over
an axis (their order is the library's choice). Where a curve is needed it is a polynomial, written out operation by operation.

Sources: the integer hash is C. Wellons' "lowbias32"; the lattice is M. Roberts' R2, on powers of the plastic number.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

U32 = npt.NDArray[np.uint32]
F32 = npt.NDArray[np.floating[Any]]
"""Held as float32. The type is wider because numpy's stubs take a Python float for a float64, which at run time it is not."""

_R2_FIRST: Final = np.uint32(3_242_174_889)  # 2**32 / plastic number
_R2_SECOND: Final = np.uint32(2_447_445_414)  # 2**32 / plastic number squared
_UNIT: Final = np.float32(1.0 / (1 << 24))
_QUARTER_PI: Final = np.float32(0.785398163397448)


def mix(value: U32) -> U32:
    """A well mixed 32-bit hash of each element."""
    value = value ^ (value >> np.uint32(16))
    value = value * np.uint32(0x7FEB352D)
    value = value ^ (value >> np.uint32(15))
    value = value * np.uint32(0x846CA68B)
    return value ^ (value >> np.uint32(16))


def pixel_keys(seed: int, x: U32, y: U32) -> U32:
    """One key for each pixel of the whole picture."""
    return mix(mix(x + np.uint32(seed)) ^ (y * np.uint32(0x9E3779B9) + np.uint32(0x5BD1E995)))


def pair(keys: U32, samples: U32, mask: int, purpose: int) -> tuple[F32, F32]:
    """Two numbers in [0, 1) for each ray. Over the samples of a pixel they fill the square evenly.

    ``mask`` is a power of two less one, not below any sample number: within it each purpose visits the lattice in another
    order, so that the samples of two purposes are not in step.
    """
    first = mix(keys + np.uint32(purpose * 0x3C6EF372 & 0xFFFFFFFF))
    second = mix(first ^ np.uint32(0xA511E9B3))
    step = (((samples ^ first) * (second | np.uint32(1))) ^ (second >> np.uint32(16))) & np.uint32(mask)
    return _unit(first + step * _R2_FIRST), _unit(second + step * _R2_SECOND)


def _unit(value: U32) -> F32:
    return (value >> np.uint32(8)).astype(np.float32) * _UNIT


def disc(u: F32, v: F32) -> tuple[F32, F32]:
    """A point of the unit disc for each point of the unit square, areas kept (Shirley and Chiu's concentric map)."""
    a, b = u + u - 1, v + v - 1
    wide = np.abs(a) > np.abs(b)
    radius = np.where(wide, a, b)
    other = np.where(wide, b, a)
    safe = np.where(radius == 0, np.float32(1), radius)
    angle = other / safe * _QUARTER_PI
    square = angle * angle
    sine = angle * (1 - square * (np.float32(1 / 6) - square * (np.float32(1 / 120) - square * np.float32(1 / 5040))))
    cosine = 1 - square * (np.float32(0.5) - square * (np.float32(1 / 24) - square * np.float32(1 / 720)))
    return radius * np.where(wide, cosine, sine), radius * np.where(wide, sine, cosine)
