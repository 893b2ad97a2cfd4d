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
from . import reduction
from .aliases import may_require_grad
from .dtype import as_dtype
from .errors import DTypeError, ShapeError, describe
from .grad_mode import no_grad
from .graph import Escape, RandomBits, size_of
from .movement import broadcast_to, expand_dims, extents_of, reshape, shape_of
from .scans import cumsum
from .sorting import topk
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


@may_require_grad
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


@may_require_grad
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
    order = Escape(
        "argsort", _argsort, (x,), dt.int64, bits._node, more._node, key="random order",
        any_size=True,
    )  # fmt: skip
    return Var._of(order)


def _argsort(bits: np.ndarray, more: np.ndarray) -> np.ndarray:
    """The order that sorts pairs of words; a host callback, ties by position."""
    return np.lexsort((more, bits))


def exponential(
    shape: Any = (), scale: float = 1.0, *, dtype: Any = None, generator: Generator | None = None
) -> Var:
    """Exponentially distributed with mean `scale`: -scale * log(1 - u)."""
    kind = _float_kind(dtype, "exponential")
    unit = _unit(extents_of("random", shape), generator, kind)
    value = el.multiply(el.log1p(el.negative(unit)), -scale)
    return value if value.dtype is kind else el.astype(value, kind)


GAMMA_ROUNDS = 8  # candidates; each is refused with a probability below 0.05


def gamma(
    alpha: Any,
    shape: Any = None,
    scale: Any = 1.0,
    *,
    dtype: Any = None,
    generator: Generator | None = None,
) -> Var:
    """Gamma distributed with a shape parameter alpha > 0, which broadcasts to `shape`.

    No gradient passes through alpha.  Source: Marsaglia and Tsang 2000; for alpha < 1 a sample of
    alpha + 1 is multiplied by u**(1/alpha).
    """
    kind = _float_kind(dtype, "gamma")
    target = node_of(alpha).shape if shape is None else extents_of("random", shape)
    work = kind if kind is dt.float64 else dt.float32
    with no_grad():
        a = broadcast_to(el.astype(alpha if isinstance(alpha, Var) else Var(alpha), work), target)
        small = el.less(a, 1.0)
        d = el.subtract(el.where(small, el.add(a, 1.0), a), 1 / 3)
        result = el.multiply(d, _gamma_factor(d, target, work, generator))
        u = el.subtract(1.0, _unit(target, generator, work))
        boost = el.exp(el.divide(el.log(u), el.where(small, a, 1.0)))
        result = el.multiply(el.where(small, el.multiply(result, boost), result), scale)
        return el.astype(result, kind)


def _gamma_factor(d: Var, target: Any, work: dt.DType, generator: Generator | None) -> Var:
    """The first accepted (1 + c x)**3; the last candidate that is positive if none is."""
    factor, found = d, None
    for _ in range(GAMMA_ROUNDS):
        x = normal(target, dtype=work, generator=generator)
        v = el.add(1.0, el.divide(x, el.multiply(3.0, el.sqrt(d))))
        positive = el.greater(v, 0.0)
        v = el.where(positive, el.multiply(el.multiply(v, v), v), 1.0)
        u = el.subtract(1.0, _unit(target, generator, work))
        bound = el.add(
            el.multiply(0.5, el.square(x)),
            el.multiply(d, el.add(el.subtract(1.0, v), el.log(v))),
        )
        accepted = el.logical_and(positive, el.less(el.log(u), bound))
        if found is None:
            factor, found = v, accepted
        else:
            factor = el.where(found, factor, el.where(positive, v, factor))
            found = el.logical_or(found, accepted)
    return factor


def multinomial(
    p: Any, num_samples: int, replacement: bool = False, *, generator: Generator | None = None
) -> Var:
    """num_samples positions (int64) drawn with probabilities proportional to the last axis of p.

    Without replacement they are the largest of log(p) plus Gumbel noise (Kool et al. 2019); p must
    have as many that are not 0.
    """
    var = p if isinstance(p, Var) else Var(p)
    weights = var.detach() if var.dtype.is_float else el.astype(var, dt.float32)
    if not weights.ndim or (not replacement and num_samples > weights.shape[-1]):
        raise ShapeError(f"multinomial(p, {num_samples}): p is {describe(weights)}")
    if replacement:
        total = cumsum(weights, -1)
        shape = (*weights.shape[:-1], num_samples)
        drawn = el.multiply(uniform(shape, generator=generator), total[..., -1:])
        passed = el.less_equal(expand_dims(total, -2), expand_dims(drawn, -1))
        return el.minimum(reduction.count_nonzero(passed, -1), weights.shape[-1] - 1)
    noise = el.negative(el.log(exponential(weights.shape, generator=generator)))
    return topk(el.add(el.log(weights), noise), num_samples).indices


@may_require_grad
def rand(*shape: Any, dtype: Any = None, generator: Generator | None = None) -> Var:
    """Uniform in [0, 1)."""
    return uniform(shape_of(shape), dtype=dtype, generator=generator)


@may_require_grad
def randn(*shape: Any, dtype: Any = None, generator: Generator | None = None) -> Var:
    """Normally distributed with mean 0 and standard deviation 1."""
    return normal(shape_of(shape), dtype=dtype, generator=generator)


def randperm(n: int, *, generator: Generator | None = None) -> Var:
    """A random order of 0 … n-1."""
    return permutation(n, generator=generator)


@may_require_grad
def rand_like(x: Any, *, dtype: Any = None, generator: Generator | None = None) -> Var:
    """Uniform in [0, 1) of x's shape and dtype."""
    node = node_of(x)
    return uniform(node.shape, dtype=dtype or node.dtype, generator=generator)


@may_require_grad
def randn_like(x: Any, *, dtype: Any = None, generator: Generator | None = None) -> Var:
    """Normally distributed, of x's shape and dtype."""
    node = node_of(x)
    return normal(node.shape, dtype=dtype or node.dtype, generator=generator)


def choice(
    x: Any,
    shape: Any = (),
    replace: bool = True,
    p: Any = None,
    *,
    generator: Generator | None = None,
) -> Var:
    """Elements of the first axis of an array, or of 0 … x-1 for an int, drawn uniformly or with
    probabilities p."""
    target = extents_of("random", shape)
    n = x if isinstance(x, int) else node_of(x).shape[0]
    count = size_of(target)
    if p is not None:
        places = multinomial(p, count, replace, generator=generator)
    elif replace:
        places = randint(0, n, (count,), generator=generator)
    else:
        places = permutation(n, generator=generator)[:count]
    places = reshape(places, target)
    return places if isinstance(x, int) else (x if isinstance(x, Var) else Var(x))[places]


def shuffle(x: Any, *, generator: Generator | None = None) -> Var:
    """The first axis of x in a random order (a new value)."""
    return permutation(x if isinstance(x, Var) else Var(x), generator=generator)
