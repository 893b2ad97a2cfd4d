"""The two working types, and numbers rounded to them."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

from .ops import Ops

INF = float("inf")
NAN = float("nan")


# The binary digits of 2/pi and of ln 2 after the point. 2/pi needs as many as float64 has powers
# of two above 1, and four words more.
_TWO_OVER_PI_DIGITS = (
    "a2f9836e4e441529fc2757d1f534ddc0db6295993c439041fe5163abdebbc561b7246e3a424dd2e0"
    "06492eea09d1921cfe1deb1cb129a73ee88235f52ebb4484e99c7026b45f7e413991d639835339f4"
    "9c845f8bbdf9283b1ff897ffde05980fef2f118b5a0a6d1f6d367ecf27cb09b74f463f669e5fea2d"
    "7527bac7ebe5f17b3d0739f78a5292ea6bfb5fb11f8d5d0856033046fc7b6babf0cfbc209af4361d"
)
_LN2_DIGITS = "b17217f7d1cf79abc9e3b39803f2f6af40f343267298b62d8a0d175b8baa"


def _fraction(digits: str) -> Fraction:
    """0.digits, in base 16."""
    return Fraction(int(digits, 16), 16 ** len(digits))


TWO_OVER_PI = _fraction(_TWO_OVER_PI_DIGITS)
HALF_PI = 1 / TWO_OVER_PI
LN2 = _fraction(_LN2_DIGITS)
LN10_OVER_LN2 = Fraction("3.32192809488736234787031942948939017586483139302458061205475640")


def nearest(value: Fraction, width: int) -> float:
    """`value` rounded to the working type."""
    return struct.unpack("f", struct.pack("f", value))[0] if width == 32 else float(value)


@cache
def _parts(value: Fraction, width: int, count: int) -> tuple[float, ...]:
    """Numbers of the working type, each the rounding of what the ones before leave of `value`."""
    parts = []
    for _ in range(count):
        part = nearest(value, width)
        parts.append(part)
        value -= Fraction(part)
    return tuple(parts)


@cache
def words_of(value: Fraction, bits: int, count: int) -> tuple[float, ...]:
    """`value` < 1 cut into `count` words of `bits` bits, each given as a number below 1."""
    scaled = int(value * 2 ** (bits * count))
    shifts = range(bits * (count - 1), -1, -bits)
    return tuple((scaled >> shift & (1 << bits) - 1) / 2.0**bits for shift in shifts)


@dataclass(frozen=True)
class _Format:
    """What the algorithms must know about a working type."""

    width: int
    fraction: int  # stored bits of the significand
    bias: int  # of the exponent
    exp_range: tuple[float, float]  # exp is 0 below, inf above; a little is allowed for
    tanh_one: float  # tanh and erf are 1 from here on
    cosh_inf: float  # cosh and sinh overflow before this
    erfc_zero: float  # erfc is 0 from here on
    trig_limit: float  # sin and cos need the long reduction from here on

    @property
    def magic(self) -> float:
        """Added to a small number, leaves the nearest integer in the low bits of the sum."""
        return 1.5 * 2.0**self.fraction

    @property
    def magic_bits(self) -> int:
        """The bits of `magic`."""
        return (self.bias + self.fraction << self.fraction) + (1 << self.fraction - 1)

    @property
    def smallest_normal(self) -> float:
        """The smallest positive number with all its bits."""
        return 2.0 ** (1 - self.bias)

    @property
    def sqrt_half_bits(self) -> int:
        """The bits of sqrt(1/2), rounded."""
        code = "<i" if self.width == 32 else "<q"
        return struct.unpack(code, struct.pack("<f" if self.width == 32 else "<d", 0.5**0.5))[0]

    def parts(self, value: Fraction, count: int) -> tuple[float, ...]:
        """`value` as an unevaluated sum of `count` numbers."""
        return _parts(value, self.width, count)


FORMATS = {
    32: _Format(32, 23, 127, (-104.0, 89.0), 10.0, 90.0, 10.3, 2.0**17),
    64: _Format(64, 52, 1023, (-746.0, 710.0), 20.0, 711.0, 27.4, 2.0**45),
}


def format_of(ops: Ops) -> _Format:
    """The format of the numbers that `ops` works on."""
    return FORMATS[ops.width]
