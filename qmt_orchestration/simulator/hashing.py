"""Counter-based randomness: any number of the market can be computed on its own, in any order, in any process.

A number is ``mix(key + counter)`` (the finalizer of splitmix64); a key comes from (seed, symbol) and, for what changes
daily, the day's index. Nothing is drawn in sequence, so one symbol's day is the same whatever else is simulated.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

import numpy as np
import numpy.typing as npt

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]

_GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)
_M1: Final = np.uint64(0xBF58476D1CE4E5B9)
_M2: Final = np.uint64(0x94D049BB133111EB)


def symbol_keys(seed: int, symbols: tuple[str, ...]) -> U64:
    """One 64-bit key per symbol."""
    raw = (blake2b(f"{seed}:{s}".encode(), digest_size=8).digest() for s in symbols)
    keys: U64 = np.frombuffer(b"".join(raw), dtype=np.uint64).copy()
    return keys


def mix(bits: U64) -> U64:
    """The finalizer of splitmix64, in place."""
    bits ^= bits >> np.uint64(30)
    bits *= _M1
    bits ^= bits >> np.uint64(27)
    bits *= _M2
    bits ^= bits >> np.uint64(31)
    return bits


def draw(keys: U64, purpose: int, number: int | I64 = 0) -> U64:
    """64 random bits per key for one *purpose*; *number* (scalar or one per key) distinguishes repeated draws."""
    counter = np.atleast_1d(np.asarray(number, dtype=np.int64)).astype(np.uint64) + np.uint64(purpose << 40)
    return mix(keys + counter * _GOLDEN)


def draws(keys: U64, purpose: int, first: int, count: int) -> U64:
    """64 random bits per key and number in [first, first + count): shape (keys, count)."""
    counters = np.arange(first, first + count, dtype=np.uint64) + np.uint64(purpose << 40)
    return mix(keys[:, None] + (counters * _GOLDEN)[None, :])


def unit(bits: U64) -> F64:
    """Floats in [0, 1) from 64 random bits."""
    floats: F64 = (bits >> np.uint64(11)) * 2.0**-53
    return floats


def field(bits: U64, shift: int, width: int) -> I64:
    """*width* bits from *shift* on, as int64."""
    values: I64 = ((bits >> np.uint64(shift)) & np.uint64((1 << width) - 1)).astype(np.int64)
    return values
