"""Random numbers: Threefry-2x32 of a key and a call number, so that a value depends on the seed,
on how many calls came before, and on nothing else.

Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np

from . import dtype as dt
from . import elementwise as el
from .dtype import as_dtype
from .errors import DTypeError
from .grad_mode import no_grad
from .graph import Escape, RandomBits
from .movement import extents_of
from .var import Var, node_of


class Generator:
    """A stream of random numbers: `Generator(seed)`; unseeded, the system's entropy.

    key: uint32[2] and calls: uint32[] are Vars, so that a stream can be saved and resumed.
    """

    def __init__(self, seed: int | None = None):
        self.key = Var(np.zeros(2, np.uint32))
        self.calls = Var(np.zeros((), np.uint32))
        self.key._node.shape = (2,)  # no data: always of this size
        self.manual_seed(int.from_bytes(os.urandom(8), "little") if seed is None else seed)

    def manual_seed(self, seed: int) -> Generator:
        """Starts the stream of a seed (any integer, taken modulo 2**64)."""
        seed = int(seed) % (1 << 64)
        words = np.array([seed & 0xFFFFFFFF, seed >> 32], np.uint32)
        self.key.assign(words)
        self.calls.assign(np.uint32(0))
        return self

    def bits(self, *shape: Any) -> Var:
        """Uniform uint32 of a shape."""
        with no_grad():
            result = Var._of(
                RandomBits(extents_of("random", *shape), self.key._node, self.calls._node)
            )
            self.calls._before_update()
            self.calls.assign(el.add(self.calls, 1))
        return result


_default = Generator()


def default_generator() -> Generator:
    """The generator that `manual_seed` seeds."""
    return _default


def manual_seed(seed: int) -> Generator:
    """Seeds the default generator; the same seed gives the same numbers on every machine."""
    return _default.manual_seed(seed)


def random_bits(*shape: Any, generator: Generator | None = None) -> Var:
    """Uniform uint32."""
    return (generator or _default).bits(*shape)


# Random bits of a uniform number: as many as the significand holds, or it would round up to 1.
_DIGITS = {dt.bfloat16: 8, dt.float16: 11, dt.float32: 24}


def _unit(shape: Any, generator: Generator | None, dtype: dt.DType) -> Var:
    """Uniform multiples of 2**-24 in [0, 1) (2**-53 for float64, 2**-11, 2**-8 for 16 bits), in
    the dtype that arithmetic on them runs in."""
    source = generator or _default
    high = source.bits(shape)
    if dtype is not dt.float64:
        digits = _DIGITS[dtype]
        whole = el.bitwise_right_shift(high, 32 - digits)
        return el.multiply(el.astype(whole, dt.float32), 2.0**-digits)
    low = source.bits(shape)
    upper = el.multiply(el.astype(el.bitwise_right_shift(high, 5), dtype), 2.0**26)
    lower = el.astype(el.bitwise_right_shift(low, 6), dtype)
    return el.multiply(el.add(upper, lower), 2.0**-53)


def _float_kind(dtype: Any, name: str) -> dt.DType:
    kind = dt.float32 if dtype is None else as_dtype(dtype)
    if not kind.is_float:
        raise DTypeError(f"{name}(shape): the dtype must be a float, not {kind}")
    return kind


def uniform(
    shape: Any = (),
    low: float = 0.0,
    high: float = 1.0,
    *,
    dtype: Any = None,
    generator: Generator | None = None,
) -> Var:
    """Uniform in [low, high): what rounds up to high becomes low."""
    kind = _float_kind(dtype, "uniform")
    unit = _unit(extents_of("random", shape), generator, kind)
    if (low, high) == (0.0, 1.0):
        return unit if unit.dtype is kind else el.astype(unit, kind)
    value = el.add(low, el.multiply(unit, high - low))
    value = value if value.dtype is kind else el.astype(value, kind)
    return el.where(el.less(value, high), value, low) if low < high else value


def normal(
    shape: Any = (),
    mean: float = 0.0,
    std: float = 1.0,
    *,
    dtype: Any = None,
    generator: Generator | None = None,
) -> Var:
    """Normally distributed, by the transformation of Box and Muller (1958)."""
    kind = _float_kind(dtype, "normal")
    target = extents_of("random", shape)
    work = dt.float64 if kind is dt.float64 else dt.float32
    first = el.subtract(1.0, _unit(target, generator, work))  # in (0, 1]
    second = _unit(target, generator, work)
    radius = el.sqrt(el.multiply(-2.0, el.log(first)))
    result = el.multiply(radius, el.cos(el.multiply(second, 2 * math.pi)))
    if (mean, std) != (0.0, 1.0):
        result = el.add(mean, el.multiply(result, std))
    return result if result.dtype is kind else el.astype(result, kind)


def randint(low: int, high: int, shape: Any = (), *, generator: Generator | None = None) -> Var:
    """Uniform int64 in [low, high)."""
    if high <= low:
        raise ValueError(f"randint(low, high): need low < high, got {low} and {high}")
    if low < dt.int64.lowest or high > dt.int64.highest or high - low > dt.int64.highest:
        raise ValueError(f"randint(low, high): int64 cannot hold {high} - {low}")
    source = generator or _default
    target = extents_of("random", shape)
    upper = el.astype(source.bits(target), dt.uint64)
    lower = el.astype(source.bits(target), dt.uint64)
    wide = el.bitwise_or(el.bitwise_left_shift(upper, 31), lower)
    positive = el.astype(el.bitwise_right_shift(wide, 1), dt.int64)
    return el.add(low, el.remainder(positive, high - low))


def bernoulli(p: Any, shape: Any = None, *, generator: Generator | None = None) -> Var:
    """True with probability p."""
    target = node_of(p).shape if shape is None else extents_of("random", shape)
    return el.less(uniform(target, generator=generator), p)


def permutation(x: Any, *, generator: Generator | None = None) -> Var:
    """A random order of 0 … n-1 for an int n, or of the first axis of an array."""
    if not isinstance(x, int):
        var = x if isinstance(x, Var) else Var(x)
        return var[permutation(var.shape[0], generator=generator)]
    bits = random_bits(x, generator=generator)
    more = random_bits(x, generator=generator)
    order = Escape("argsort", _argsort, (x,), dt.int64, bits._node, more._node)
    return Var._of(order)


def _argsort(bits: np.ndarray, more: np.ndarray) -> np.ndarray:
    """The order that sorts pairs of words; a host callback, ties by position."""
    return np.lexsort((more, bits))
