"""Transcendental functions as branch-free polynomial algorithms over an abstract instruction set.

A function here is written once, against `Ops`, and becomes whatever the given `Ops` makes of it:
16-lane LLVM vectors, LLVM scalars, NumPy arrays. Every instruction of `Ops` is one operation of
IEEE 754 (or of two's complement integers), correctly rounded, so a scalar has the same bits as a
lane of a vector, and one machine the same bits as another.

Each function has three parts, after the standard plan (J.-M. Muller, "Elementary Functions"):
reduce the argument to a short interval, evaluate a minimax polynomial, put the result together and
select the special values. Where one working-precision number is not enough (`pow`, the logarithm
in float64, arguments near a zero of the result) a value travels as an unevaluated sum `high + low`;
the error-free transformations are those of Dekker, Knuth and Ogita, Rump, Oishi ("Accurate sum and
dot product", 2005).

`FUNCTIONS` names the functions, `ULP` states how far each may be from the exact result.
Special values are NumPy's (C99 annex F); results below the smallest normal number underflow
gradually, with one rounding.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Any, NamedTuple, Protocol, TypeAlias

Value: TypeAlias = Any  # a float, an integer or a mask of the backend: opaque here


class Ops(Protocol):
    """The instruction set, for one working type: float32 or float64 with integers as wide.

    A backend may also have `rarely(mask, usual, slow)`: a tuple whose lanes are those of the tuple
    `usual`, or of the tuple that `slow()` returns where `mask` is set. It may skip the code that
    `slow()` emits when no lane is set. Without it both are computed, and selected.

    Nor need every backend have `scale(a, n)`: a * 2**n for a whole number n, a float, rounded once.
    """

    width: int  # 32 or 64

    def const(self, value: float) -> Value: ...
    def iconst(self, value: int) -> Value: ...

    def add(self, a: Value, b: Value) -> Value: ...
    def sub(self, a: Value, b: Value) -> Value: ...
    def mul(self, a: Value, b: Value) -> Value: ...
    def div(self, a: Value, b: Value) -> Value: ...
    def neg(self, a: Value) -> Value: ...
    def abs(self, a: Value) -> Value: ...
    def sqrt(self, a: Value) -> Value: ...
    def fma(self, a: Value, b: Value, c: Value) -> Value: ...
    def floor(self, a: Value) -> Value: ...
    def round_even(self, a: Value) -> Value: ...
    def minimum(self, a: Value, b: Value) -> Value: ...
    def maximum(self, a: Value, b: Value) -> Value: ...
    def copysign(self, magnitude: Value, sign: Value) -> Value: ...

    def lt(self, a: Value, b: Value) -> Value: ...
    def le(self, a: Value, b: Value) -> Value: ...
    def gt(self, a: Value, b: Value) -> Value: ...
    def ge(self, a: Value, b: Value) -> Value: ...
    def eq(self, a: Value, b: Value) -> Value: ...
    def ne(self, a: Value, b: Value) -> Value: ...
    def isnan(self, a: Value) -> Value: ...
    def select(self, mask: Value, a: Value, b: Value) -> Value: ...
    def mask_and(self, a: Value, b: Value) -> Value: ...
    def mask_or(self, a: Value, b: Value) -> Value: ...
    def mask_not(self, a: Value) -> Value: ...

    def to_int(self, a: Value) -> Value: ...
    def to_float(self, a: Value) -> Value: ...
    def bits(self, a: Value) -> Value: ...
    def from_bits(self, a: Value) -> Value: ...

    def iadd(self, a: Value, b: Value) -> Value: ...
    def isub(self, a: Value, b: Value) -> Value: ...
    def imul(self, a: Value, b: Value) -> Value: ...
    def iand(self, a: Value, b: Value) -> Value: ...
    def ior(self, a: Value, b: Value) -> Value: ...
    def ixor(self, a: Value, b: Value) -> Value: ...
    def ishl(self, a: Value, count: int) -> Value: ...
    def ilshr(self, a: Value, count: int) -> Value: ...
    def iashr(self, a: Value, count: int) -> Value: ...
    def ieq(self, a: Value, b: Value) -> Value: ...
    def ilt(self, a: Value, b: Value) -> Value: ...


Unary: TypeAlias = Callable[[Ops, Value], Value]

_INF = float("inf")
_NAN = float("nan")


# ---------------------------------------------------------------------------- numbers and formats

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


_TWO_OVER_PI = _fraction(_TWO_OVER_PI_DIGITS)
_HALF_PI = 1 / _TWO_OVER_PI
_LN2 = _fraction(_LN2_DIGITS)
_LN10_OVER_LN2 = Fraction("3.32192809488736234787031942948939017586483139302458061205475640")


def _nearest(value: Fraction, width: int) -> float:
    """`value` rounded to the working type."""
    return struct.unpack("f", struct.pack("f", value))[0] if width == 32 else float(value)


@cache
def _parts(value: Fraction, width: int, count: int) -> tuple[float, ...]:
    """Numbers of the working type, each the rounding of what the ones before leave of `value`."""
    parts = []
    for _ in range(count):
        part = _nearest(value, width)
        parts.append(part)
        value -= Fraction(part)
    return tuple(parts)


@cache
def _words(value: Fraction, bits: int, count: int) -> tuple[float, ...]:
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


_FORMATS = {
    32: _Format(32, 23, 127, (-104.0, 89.0), 10.0, 90.0, 10.3, 2.0**17),
    64: _Format(64, 52, 1023, (-746.0, 710.0), 20.0, 711.0, 27.4, 2.0**45),
}


def _format(ops: Ops) -> _Format:
    return _FORMATS[ops.width]


# ------------------------------------------------------------------------------------- polynomials
# Minimax in the relative error that they cause in the function's result, which the comment after
# a width states; lowest power first. Obtained with Remez's exchange algorithm.

_Table: TypeAlias = dict[int, tuple[float, ...]]

# fmt: off
# (exp(r) - 1 - r) / r**2, |r| <= ln(2)/2
_EXP: _Table = {
    32: (  # error 2**-28.2
        0.499999931, 0.166665148, 0.0416684564, 0.00836941911, 0.00138131602,
    ),
    64: (  # error 2**-63.8
        0.5, 0.16666666666666685, 0.04166666666666604, 0.008333333333315695,
        0.0013888888889132867, 0.00019841269899746654, 2.4801586905781385e-05,
        2.755723146545587e-06, 2.755759103917836e-07, 2.511323138448958e-08,
        2.0825987537605565e-09,
    ),
}
# (log(1 + f) - f + f**2/2) / f**3, 1 + f in [sqrt(1/2), sqrt(2)]
_LOG: _Table = {
    32: (  # error 2**-27.4
        0.333333317, -0.250008209, 0.200012279, -0.166233616, 0.142017421, -0.131601281,
        0.127616501, -0.0763471598,
    ),
}
# (log(m) / s - 2 - 2/3 s**2) / s**4 in s**2, s = (m - 1) / (m + 1), m in [sqrt(1/2), sqrt(2)]
_LOG_WIDE: _Table = {
    32: (  # error 2**-44.2
        0.399999981, 0.285718875, 0.221842509, 0.194811775,
    ),
    64: (  # error 2**-87.8
        0.4, 0.28571428571428575, 0.22222222222221205, 0.18181818182044224, 0.15384615354376188,
        0.1333333591863203, 0.11764561302353282, 0.10531576593948157, 0.09404162694892373,
        0.10225779814174467,
    ),
}
# (sin(r) / r - 1) / r**2 in r**2, |r| <= pi/4
_SIN: _Table = {
    32: (  # error 2**-27.9
        -0.166666542, 0.00833213173, -0.000195108707,
    ),
    64: (  # error 2**-68.6
        -0.16666666666666666, 0.008333333333333321, -0.00019841269841253608,
        2.7557319213423896e-06, -2.5052104709732568e-08, 1.6058340660994214e-10,
        -7.577399514852289e-13,
    ),
}
# (cos(r) - 1 + r**2/2) / r**4 in r**2, |r| <= pi/4
_COS: _Table = {
    32: (  # error 2**-33.1
        0.0416666457, -0.00138873066, 2.44312649e-05,
    ),
    64: (  # error 2**-75.0
        0.041666666666666664, -0.0013888888888888872, 2.48015873015699e-05,
        -2.755731921468759e-07, 2.087675421051632e-09, -1.1470275543326742e-11,
        4.737307277224906e-14,
    ),
}
# (asin(s) / s - 1) / s**2 in s**2, s <= 1/2
_ASIN: _Table = {
    32: (  # error 2**-27.6
        0.166667539, 0.0749524176, 0.0454770986, 0.02414761, 0.0422185418,
    ),
    64: (  # error 2**-59.8
        0.16666666666666763, 0.0749999999997026, 0.044642857175123354, 0.030381942683499794,
        0.022372215663394823, 0.017351600040769494, 0.0139809620095449, 0.011397771835230415,
        0.010786550245542821, 0.003682968823933569, 0.02176366260487766, -0.0210775057639197,
        0.03267701371008802,
    ),
}
# (sinh(x) / x - 1) / x**2 in x**2, x <= 1
_SINH: _Table = {
    32: (  # error 2**-34.0
        0.166666665, 0.0083333506, 0.000198360663, 2.81743945e-06,
    ),
    64: (  # error 2**-73.6
        0.16666666666666666, 0.008333333333333333, 0.0001984126984126959, 2.7557319224120245e-06,
        2.5052108345641085e-08, 1.6059050705915008e-10, 7.646476358283487e-13,
        2.8483983624278064e-15,
    ),
}
# (tanh(x) / x - 1) / x**2 in x**2, x <= 5/8
_TANH: _Table = {
    32: (  # error 2**-32.6
        -0.333333309, 0.133332098, -0.0539472046, 0.0217029684, -0.00818267667, 0.00214753917,
    ),
    64: (  # error 2**-61.3
        -0.33333333333333315, 0.1333333333332989, -0.0539682539661344, 0.02186948847065353,
        -0.008863234341494915, 0.0035921142712154815, -0.001455727616355768,
        0.0005894586211411821, -0.00023703012004247894, 9.158980381466967e-05,
        -3.0217972482545123e-05, 6.055637946526104e-06,
    ),
}
# erf(x) / x - 1 in x**2, x <= 1
_ERF: _Table = {
    32: (  # error 2**-29.7
        0.128379166, -0.376126271, 0.112836002, -0.0268544447, 0.00518953553, -0.000802084299,
        7.88912516e-05,
    ),
    64: (  # error 2**-68.7
        0.1283791670955126, -0.37612638903183754, 0.1128379167095512, -0.026866170645129868,
        0.00522397762542361, -0.0008548327021955978, 0.00012055332903810957,
        -1.4925647594460196e-05, 1.6462045979997099e-06, -1.6364649546193744e-07,
        1.4792469616123238e-08, -1.2164968558275113e-09, 8.710465480609703e-11,
        -4.2331302355710826e-12,
    ),
}
# log2(erfc(x)), x in [0.92, 3.95]
_ERF_TAIL: _Table = {
    32: (  # error 2**-28.7
        -0.000282340465, -1.62689185, -0.919259991, -0.149941297, 0.0320665128, -0.00439039359,
        0.000282673283,
    ),
}
# (atan(t) / t - 1) / t**2 in t**2, t <= 1
_ATAN: _Table = {
    32: (  # error 2**-28.7
        -0.333333019, 0.199986387, -0.142652459, 0.109575785, -0.0841946526, 0.0582346469,
        -0.0314557906, 0.0110644853, -0.00182722218,
    ),
    64: (  # error 2**-60.4
        -0.3333333333333329, 0.19999999999991236, -0.14285714285086432, 0.11111111088052777,
        -0.09090908578442067, 0.07692300112747168, -0.06666587344888633, 0.058817400925222654,
        -0.052595528625054594, 0.04745380832748385, -0.042877421733771515, 0.038241572701174745,
        -0.03284329709527399, 0.026235304937728552, -0.01870877148660758, 0.01140030211604173,
        -0.0056670674751865225, 0.002178047276275518, -0.0006017229256919724,
        0.00010568734152527691, -8.827476825436774e-06,
    ),
}
# (1 + 2x) exp(x**2) erfc(x) in t = (x - k) / (x + k), k = 2 (float32) and 4 (float64), x >= 0
_ERFCX: _Table = {
    32: (  # error 2**-30.0
        1.27697838, -0.0927638204, -0.166030522, 0.164051031, -0.0542178214, -0.00803079741,
        0.00870911418, 0.00125249183, -0.00142098541, -0.000400586488, 0.000169684369,
        7.95338795e-05,
    ),
    64: (  # error 2**-59.5
        1.2329951186255526, -0.13962111684056253, 0.015379652102619655, 0.06809705425469542,
        -0.10103906603629963, 0.09373283499825136, -0.0663303658123174, 0.03716751553908206,
        -0.016197734056677203, 0.005031969963689925, -0.0007577732964476612,
        -0.00019925661751945964, 0.00015062171450703373, -2.439947504541208e-05,
        -1.1222170976246338e-05, 5.710279297472913e-06, 2.941732617032745e-07,
        -8.260884747682419e-07, 7.404159372060608e-08, 1.1042462999416016e-07,
        -1.738584212557576e-08, -1.4087554181869823e-08, 1.6385404047538425e-09,
        1.1870248904039588e-09,
    ),
}
# erfinv(x) / x in w - center, w = -log(1 - x**2), for w up to 5 (float32), 6.25 (float64)
_ERFINV_NEAR: _Table = {
    32: (  # error 2**-28.7
        1.50140935, 0.246640288, -0.00417733941, -0.00125274467, 0.000218282632, -4.96190836e-06,
        -3.43461106e-06, 4.65891347e-07, 1.80370083e-08, -8.77277009e-09, 3.35555352e-10,
    ),
    64: (  # error 2**-58.2
        1.6536545626831027, 0.24015818242558834, -0.006033670871426997, -0.0007407025341545542,
        0.000186734208020531, -1.3882523394197457e-05, -1.3654691772665191e-06,
        4.2347881712059253e-07, -2.9070389893422946e-08, -4.112660642915041e-09,
        1.0512225657604656e-09, -5.414294626197084e-11, -1.2978503777054595e-11,
        2.6305034607290892e-12, -8.079300555849483e-14, -4.0015899576249187e-14,
        6.533354954959741e-15, -3.987771610272041e-17, -1.2344998847788223e-16,
        1.5545175706389418e-17, 6.957416967965077e-19, -3.4876379513180874e-19,
        1.6536572193117364e-20, 3.219349020312725e-21, -3.0011835046376165e-22,
    ),
}
# erfinv(x) / x in sqrt(w) - center, up to the end in float32, to w = 16 in float64
_ERFINV_MIDDLE: _Table = {
    32: (  # error 2**-29.5
        2.8329768, 1.00167523, 0.00944537054, -0.00764267534, 0.00568698492, -0.00356780355,
        0.00147775779, -0.000118252693, -0.000281609455, 0.000159162255, -2.71748576e-05,
    ),
    64: (  # error 2**-59.8
        3.0838856104922208, 1.0052589676941655, 0.00537091455355509, -0.003751208508223806,
        0.0024914420979534444, -0.001688275535478027, 0.0009532893416627607,
        -0.000355037813368596, 2.403151186922997e-05, 6.828711417094254e-05,
        -4.732067385782416e-05, 1.2465042849460793e-05, 2.9325502615902676e-06,
        -3.985746059255022e-06, 1.4816698135645121e-06, -2.7551798143886095e-08,
        -2.4560908283512874e-07, 1.315284048012537e-07, -2.0820219086515685e-08,
        -1.5283559298532668e-08, 7.646172457910805e-09,
    ),
}
# the same from there on
_ERFINV_FAR: _Table = {
    64: (  # error 2**-57.4
        4.849906401408584, 1.0103004648645453, -0.00013871931838078637, -0.00021503011982638789,
        7.59952781128352e-05, -1.9681770720481563e-05, 4.526052370483772e-06,
        -9.930292712172017e-07, 2.2905357609112032e-07, -6.755649335978494e-08,
        2.901656592667627e-08, -1.5254703231367597e-08, 7.824800301895959e-09,
        -3.471490781727655e-09, 1.3128342953637141e-09, -4.3760127308879336e-10,
        7.11577831780431e-11, 4.2907152982408435e-11, -2.0721864745479435e-11,
    ),
}
# lgamma(1 + u) / (u (u - 1)), 0 <= u <= 1
_LGAMMA: _Table = {
    32: (  # error 2**-28.0
        0.577215663, -0.245250918, 0.155418616, -0.114932712, 0.0907227971, -0.0709295674,
        0.0493967239, -0.0266470905, 0.00931723987, -0.0015264188,
    ),
    64: (  # error 2**-59.5
        0.5772156649015329, -0.24525136852257967, 0.1554342658638363, -0.11514654255631028,
        0.09223900820268997, -0.07731816291328264, 0.06673164735243697, -0.05877711286445026,
        0.05255003647689298, -0.04750669147799438, 0.043245970676396024, -0.039349870191680535,
        0.03527026559990337, -0.03037631881708097, 0.02428166490840046, -0.017297238785761237,
        0.010515421535865942, -0.005210537229581994, 0.00199522960073194, -0.0005490571766504451,
        9.605114096257273e-05, -7.990625809849606e-06,
    ),
}
# x times what Stirling's formula for lgamma(x) lacks, in 1 / x**2, x >= 3
_LGAMMA_TAIL: _Table = {
    32: (  # error 2**-29.7
        0.0833331623, -0.00276988789, 0.00067897918,
    ),
    64: (  # error 2**-63.2
        0.08333333333333301, -0.002777777777607588, 0.0007936507606924299, -0.0005952347552845768,
        0.0008415449713420522, -0.0019091243889214431, 0.006170101222988828,
        -0.024526474569682242, 0.09904063687770409, -0.3330430360880359, 0.7595135799649558,
        -0.8401342471723328,
    ),
}
# digamma(1 + u) / (u - zero), 0 <= u <= 1, zero the one that digamma has there
_DIGAMMA: _Table = {
    32: (  # error 2**-28.0
        1.25038013, -0.854692196, 0.75241984, -0.713743538, 0.691499045, -0.655492808,
        0.567942173, -0.407941112, 0.21579541, -0.071978248, 0.0111188434,
    ),
    64: (  # error 2**-58.5
        1.2503801375034054, -0.854693360601784, 0.7524682722892798, -0.7145407116844392,
        0.6983635048040637, -0.6909820775890226, 0.6874887272082701, -0.6857950806267292,
        0.6849216741767129, -0.6842235989768133, 0.6826430352990067, -0.6773965092596621,
        0.6620620271868463, -0.6256693974824211, 0.556106605412602, -0.4492138279081667,
        0.31772184228332484, -0.18931703091901714, 0.09117438776949366, -0.03376406513830358,
        0.008962940846235353, -0.0015111180744583174, 0.00012116208568193041,
    ),
}
# (log(x) - 1 / (2x) - digamma(x)) x**2, in 1 / x**2, x >= 3
_DIGAMMA_TAIL: _Table = {
    32: (  # error 2**-33.3
        0.0833332767, -0.00832876046, 0.0038452332, -0.00273342953,
    ),
    64: (  # error 2**-60.4
        0.08333333333332942, -0.00833333333109947, 0.0039682535051782574, -0.004166616988505061,
        0.007572539782814191, -0.020955431462602498, 0.07923630561532807, -0.35376827269426153,
        1.5483266585155713, -5.504751622009024, 13.073207914891462, -14.922842501464514,
    ),
}
# fmt: on


# ---------------------------------------------------------------------------------------- helpers


def _horner(ops: Ops, x: Value, coefficients: Sequence[float]) -> Value:
    """c[0] + c[1] x + c[2] x**2 + ..., in Horner's order."""
    result = ops.const(coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        result = ops.fma(result, x, ops.const(coefficient))
    return result


def _polynomial(ops: Ops, table: _Table, x: Value) -> Value:
    """The polynomial that `table` has for this width, at `x`."""
    return _horner(ops, x, table[ops.width])


def _two_sum(ops: Ops, a: Value, b: Value) -> tuple[Value, Value]:
    """(s, e) with s = a + b rounded and s + e = a + b exactly (Knuth)."""
    total = ops.add(a, b)
    b_seen = ops.sub(total, a)
    a_seen = ops.sub(total, b_seen)
    return total, ops.add(ops.sub(a, a_seen), ops.sub(b, b_seen))


def _quick_two_sum(ops: Ops, a: Value, b: Value) -> tuple[Value, Value]:
    """As `_two_sum`, for |a| >= |b| or a = 0 (Dekker)."""
    total = ops.add(a, b)
    return total, ops.sub(b, ops.sub(total, a))


def _two_product(ops: Ops, a: Value, b: Value) -> tuple[Value, Value]:
    """(p, e) with p = a * b rounded and p + e = a * b exactly, unless e underflows."""
    product = ops.mul(a, b)
    return product, ops.fma(a, b, ops.neg(product))


def _at_most(ops: Ops, x: Value, bound: float) -> Value:
    """min(x, bound) that keeps NaN; one instruction on most machines, unlike `Ops.minimum`."""
    limit = ops.const(bound)
    return ops.select(ops.gt(x, limit), limit, x)


def _at_least(ops: Ops, x: Value, bound: float) -> Value:
    """max(x, bound) that keeps NaN."""
    limit = ops.const(bound)
    return ops.select(ops.lt(x, limit), limit, x)


def _round(ops: Ops, x: Value, factor: float) -> tuple[Value, Value]:
    """(n, t): n the integer nearest to x * factor, and t, whose bits end in those of n.

    Adding 1.5 * 2**fraction pushes the bits behind the point out of the number. No conversion
    is needed, and NaN does no harm. n must be below 2**(fraction - 1).
    """
    magic = ops.const(_format(ops).magic)
    shifted = ops.add(x, magic) if factor == 1.0 else ops.fma(x, ops.const(factor), magic)
    return ops.sub(shifted, magic), shifted


class _Whole(NamedTuple):
    """What `_round` returns: a whole number n as a float, and t."""

    number: Value
    shifted: Value


def _integer(ops: Ops, n: _Whole) -> Value:
    """The n of `_round` as an integer."""
    return ops.isub(ops.bits(n.shifted), ops.iconst(_format(ops).magic_bits))


def _power_of_two(ops: Ops, n: Value) -> Value:
    """2**n for an integer n in the range of normal exponents."""
    fmt = _format(ops)
    return ops.from_bits(ops.ishl(ops.iadd(n, ops.iconst(fmt.bias)), fmt.fraction))


def _scale(ops: Ops, x: Value, whole: _Whole, less: int = 0) -> Value:
    """x * 2**(n - less) with one rounding, for x near 1: two steps, so that 2**n may over- or
    underflow."""
    at_once = getattr(ops, "scale", None)
    if at_once is not None:
        return at_once(x, ops.sub(whole.number, ops.const(float(less))) if less else whole.number)
    n = _integer(ops, whole)
    n = ops.isub(n, ops.iconst(less)) if less else n
    half = ops.iashr(n, 1)
    first = ops.mul(x, _power_of_two(ops, half))
    return ops.mul(first, _power_of_two(ops, ops.isub(n, half)))


def _sign_mask(ops: Ops, x: Value) -> Value:
    """Where the sign bit of x is set: also for -0.0."""
    return ops.ilt(ops.bits(x), ops.iconst(0))


def _mask_xor(ops: Ops, a: Value, b: Value) -> Value:
    """Where exactly one of two masks is set."""
    return ops.mask_and(ops.mask_or(a, b), ops.mask_not(ops.mask_and(a, b)))


def _rarely(
    ops: Ops, mask: Value, usual: tuple[Value, ...], slow: Callable[[], tuple[Value, ...]]
) -> tuple[Value, ...]:
    """`usual`, or where `mask` is set `slow()`; see `Ops`."""
    branch = getattr(ops, "rarely", None)
    if branch is not None:
        return tuple(branch(mask, usual, slow))
    return tuple(ops.select(mask, b, a) for a, b in zip(usual, slow(), strict=True))


# ---------------------------------------------------------------------------- exponential family


def _exp_reduce(ops: Ops, x: Value) -> tuple[Value, Value, _Whole]:
    """(r, low, n) with x = n ln 2 + r + low, |r| <= ln(2)/2."""
    fmt = _format(ops)
    n, shifted = _round(ops, x, _nearest(1 / _LN2, fmt.width))
    ln2_high, ln2_low = (ops.const(part) for part in fmt.parts(_LN2, 2))
    minus_n = ops.neg(n)
    first = ops.fma(minus_n, ln2_high, x)  # exact: x and ln2_high have their last bits close by
    r = ops.fma(minus_n, ln2_low, first)
    return r, ops.fma(minus_n, ln2_low, ops.sub(first, r)), _Whole(n, shifted)


def _exp_core(ops: Ops, r: Value, low: Value | None = None) -> Value:
    """exp(r + low) for |r| <= ln(2)/2 and `low` below the last bit of r."""
    square = ops.mul(r, r)
    q = _polynomial(ops, _EXP, r)
    tail = ops.add(r, ops.fma(square, q, low)) if low is not None else ops.fma(square, q, r)
    return ops.add(ops.const(1.0), tail)


def _exp_parts(ops: Ops, x: Value) -> tuple[Value, _Whole]:
    """(p, n) with exp(x) = p * 2**n, p in [0.7, 1.42]."""
    r, low, n = _exp_reduce(ops, x)
    return _exp_core(ops, r, low), n


def _exp_parts_wide(ops: Ops, x: Value, x_low: Value) -> tuple[Value, _Whole]:
    """As `_exp_parts` for exp(x + x_low)."""
    r, low, n = _exp_reduce(ops, x)
    r, low = _quick_two_sum(ops, r, ops.add(low, x_low))
    return _exp_core(ops, r, low), n


def exp(ops: Ops, x: Value) -> Value:
    """e**x. Source: Cody and Waite's reduction by ln 2, then a polynomial."""
    low, high = _format(ops).exp_range
    significand, exponent = _exp_parts(ops, _at_most(ops, _at_least(ops, x, low), high))
    return _scale(ops, significand, exponent)


def exp2(ops: Ops, x: Value) -> Value:
    """2**x; exact for integers."""
    fmt = _format(ops)
    x = _at_least(ops, x, -fmt.bias - fmt.fraction - 1.0)
    x = _at_most(ops, x, fmt.bias + 2.0)
    n, shifted = _round(ops, x, 1.0)
    f = ops.sub(x, n)
    ln2_high, ln2_low = (ops.const(part) for part in fmt.parts(_LN2, 2))
    r, low = _two_product(ops, f, ln2_high)
    significand = _exp_core(ops, r, ops.fma(f, ln2_low, low))
    return _scale(ops, significand, _Whole(n, shifted))


def expm1(ops: Ops, x: Value) -> Value:
    """e**x - 1, without the cancellation near 0.

    With x = n ln 2 + r it is 2**n (e**r - 1) + (2**n - 1), which is e**r - 1 itself for n = 0.
    """
    fmt = _format(ops)
    clamped = _at_most(ops, x, fmt.exp_range[1])
    clamped = _at_least(ops, clamped, -0.75 * (fmt.fraction + 3))
    r, low, whole = _exp_reduce(ops, clamped)
    tail = ops.fma(ops.mul(r, r), _polynomial(ops, _EXP, r), low)
    near = ops.add(r, tail)
    n = _integer(ops, whole)
    # Half of everything, doubled at the end, for 2**n itself can overflow.
    half_power = _power_of_two(ops, ops.isub(n, ops.iconst(1)))
    far = ops.fma(half_power, near, ops.sub(half_power, ops.const(0.5)))
    result = ops.select(ops.ieq(n, ops.iconst(0)), near, ops.add(far, far))
    return ops.copysign(result, x)


def _half_exp(ops: Ops, magnitude: Value) -> Value:
    """exp(x)/2 for x >= 0: overflows where sinh and cosh do."""
    clamped = _at_most(ops, magnitude, _format(ops).cosh_inf)
    significand, exponent = _exp_parts(ops, clamped)
    return _scale(ops, significand, exponent, less=1)


def sinh(ops: Ops, x: Value) -> Value:
    """(e**x - e**-x) / 2; an odd polynomial below 1."""
    a = ops.abs(x)
    square = ops.mul(a, a)
    near = ops.fma(ops.mul(a, square), _polynomial(ops, _SINH, square), a)
    grown = _half_exp(ops, a)
    far = ops.sub(grown, ops.div(ops.const(0.25), grown))
    return ops.copysign(ops.select(ops.lt(a, ops.const(1.0)), near, far), x)


def cosh(ops: Ops, x: Value) -> Value:
    """(e**x + e**-x) / 2."""
    grown = _half_exp(ops, ops.abs(x))
    return ops.add(grown, ops.div(ops.const(0.25), grown))


def tanh(ops: Ops, x: Value) -> Value:
    """sinh(x) / cosh(x): an odd polynomial below 5/8, 1 - 2 / (e**2x + 1) above."""
    a = ops.abs(x)
    square = ops.mul(a, a)
    near = ops.fma(ops.mul(a, square), _polynomial(ops, _TANH, square), a)
    clamped = _at_most(ops, a, _format(ops).tanh_one)
    significand, exponent = _exp_parts(ops, ops.add(clamped, clamped))
    denominator = ops.fma(significand, _power_of_two(ops, _integer(ops, exponent)), ops.const(1.0))
    far = ops.sub(ops.const(1.0), ops.div(ops.const(2.0), denominator))
    return ops.copysign(ops.select(ops.lt(a, ops.const(0.625)), near, far), x)


def sigmoid(ops: Ops, x: Value) -> Value:
    """1 / (1 + e**-x), computed from e**-|x| so that it underflows gradually."""
    falling = exp(ops, ops.neg(ops.abs(x)))
    one = ops.const(1.0)
    negative = ops.lt(x, ops.const(0.0))
    denominator, lost = _quick_two_sum(ops, one, falling)
    result = ops.div(ops.select(negative, falling, one), denominator)
    # n / (d + lost) = n/d - n/d * lost/d, and 1/d is at hand: n/d, or 1 - n/d where n = d - 1.
    reciprocal = ops.select(negative, ops.sub(one, result), result)
    return ops.fma(ops.neg(ops.mul(result, lost)), reciprocal, result)


# ------------------------------------------------------------------------------------- logarithms


def _split_exponent(ops: Ops, x: Value) -> tuple[Value, Value]:
    """(m, e) with x = m * 2**e, m in [sqrt(1/2), sqrt(2)), e a float; x positive and finite."""
    fmt = _format(ops)
    tiny = ops.lt(x, ops.const(fmt.smallest_normal))
    shift = fmt.fraction + 1
    scaled = ops.select(tiny, ops.mul(x, ops.const(2.0**shift)), x)
    offset = ops.iconst(fmt.sqrt_half_bits)
    above = ops.isub(ops.bits(scaled), offset)
    fraction = ops.iand(above, ops.iconst((1 << fmt.fraction) - 1))
    exponent = ops.to_float(ops.iashr(above, fmt.fraction))
    correction = ops.select(tiny, ops.const(-float(shift)), ops.const(0.0))
    return ops.from_bits(ops.iadd(fraction, offset)), ops.add(exponent, correction)


def _log_short(ops: Ops, m: Value, e: Value, low: Value | None) -> Value:
    """e ln 2 + log(m) + low, in single numbers: enough for float32."""
    ln2_high, ln2_low = (ops.const(part) for part in _format(ops).parts(_LN2, 2))
    f = ops.sub(m, ops.const(1.0))
    square = ops.mul(f, f)
    tail = ops.mul(ops.mul(f, square), _polynomial(ops, _LOG, f))
    tail = ops.fma(e, ln2_low, tail)
    if low is not None:
        tail = ops.add(tail, low)
    tail = ops.fma(ops.const(-0.5), square, tail)
    return ops.fma(e, ln2_high, ops.add(f, tail))


def _log_wide(ops: Ops, m: Value, e: Value, low: Value | None = None) -> tuple[Value, Value]:
    """e ln 2 + log(m) + low as (high, low), with some twelve bits more than one number.

    log(m) = 2 atanh(s) = s (2 + s**2 (2/3 + s**2 Q(s**2))), s = (m - 1) / (m + 1). Everything but
    s**2 Q is carried in two numbers.
    """
    fmt = _format(ops)
    one = ops.const(1.0)
    f = ops.sub(m, one)
    d, d_low = _two_sum(ops, m, one)
    reciprocal = ops.div(one, d)
    s = ops.mul(f, reciprocal)
    remainder = ops.sub(ops.fma(ops.neg(s), d, f), ops.mul(s, d_low))
    s_low = ops.mul(remainder, reciprocal)

    z, z_low = _two_product(ops, s, s)
    z_low = ops.fma(ops.add(s, s), s_low, z_low)
    third_high, third_low = (ops.const(part) for part in fmt.parts(Fraction(2, 3), 2))
    inner, inner_low = _quick_two_sum(ops, third_high, ops.mul(z, _polynomial(ops, _LOG_WIDE, z)))
    inner_low = ops.add(inner_low, third_low)
    product, product_low = _two_product(ops, z, inner)
    product_low = ops.fma(z, inner_low, ops.fma(z_low, inner, product_low))
    outer, outer_low = _quick_two_sum(ops, ops.const(2.0), product)
    outer_low = ops.add(outer_low, product_low)
    log_m, log_m_low = _two_product(ops, s, outer)
    log_m_low = ops.fma(s, outer_low, ops.fma(s_low, outer, log_m_low))

    ln2_high, ln2_low = (ops.const(part) for part in fmt.parts(_LN2, 2))
    whole, whole_low = _two_product(ops, e, ln2_high)
    whole_low = ops.fma(e, ln2_low, whole_low)
    high, rest = _two_sum(ops, whole, log_m)
    rest = ops.add(rest, ops.add(whole_low, log_m_low))
    if low is not None:
        rest = ops.add(rest, low)
    return _quick_two_sum(ops, high, rest)


def _log_special(ops: Ops, x: Value, result: Value) -> Value:
    """`result`, and at the ends: log(inf) = inf, log(0) = -inf, log of a negative number NaN."""
    result = ops.select(ops.lt(x, ops.const(_INF)), result, x)  # x is inf or NaN: itself
    zero = ops.const(0.0)
    pole = ops.select(ops.eq(x, zero), ops.const(-_INF), ops.const(_NAN))
    return ops.select(ops.le(x, zero), pole, result)


def _log_sum(ops: Ops, x: Value, low: Value | None, double: Value | None = None) -> Value:
    """log(x) + low, and ln 2 more where the mask `double` is set."""
    m, e = _split_exponent(ops, x)
    if double is not None:
        e = ops.add(e, ops.select(double, ops.const(1.0), ops.const(0.0)))
    if ops.width == 32:
        result = _log_short(ops, m, e, low)
    else:
        result = _log_wide(ops, m, e, low)[0]
    return _log_special(ops, x, result)


def log(ops: Ops, x: Value) -> Value:
    """The natural logarithm."""
    return _log_sum(ops, x, None)


def _log_times(ops: Ops, x: Value, factor: Fraction) -> Value:
    """log(x) * factor, rounded once but for an error far below the last bit."""
    high, low = _log_wide(ops, *_split_exponent(ops, x))
    factor_high, factor_low = (ops.const(part) for part in _format(ops).parts(factor, 2))
    product, product_low = _two_product(ops, high, factor_high)
    product_low = ops.fma(high, factor_low, ops.fma(low, factor_high, product_low))
    return _log_special(ops, x, ops.add(product, product_low))


def log2(ops: Ops, x: Value) -> Value:
    """The logarithm to base 2; exact for powers of two."""
    return _log_times(ops, x, 1 / _LN2)


def log10(ops: Ops, x: Value) -> Value:
    """The logarithm to base 10; exact for powers of ten."""
    return _log_times(ops, x, 1 / (_LN2 * _LN10_OVER_LN2))


def log1p(ops: Ops, x: Value) -> Value:
    """log(1 + x), with what 1 + x loses by rounding put back: log(u + c) = log(u) + c/u."""
    u, c = _two_sum(ops, ops.const(1.0), x)
    return ops.copysign(_log_sum(ops, u, ops.div(c, u)), x)


def _log_of_sum_with_root(ops: Ops, a: Value, offset: float) -> Value:
    """log(a + sqrt(a**2 + offset)) for a >= 0; offset is 1 or -1."""
    square, square_low = _two_product(ops, a, a)
    inside, inside_low = _two_sum(ops, square, ops.const(offset))
    root = ops.sqrt(inside)
    remainder = ops.add(ops.fma(ops.neg(root), root, inside), ops.add(inside_low, square_low))
    root_low = ops.div(remainder, ops.add(root, root))
    root_low = ops.select(ops.eq(root, ops.const(0.0)), root, root_low)  # acosh(1)
    u, c = _two_sum(ops, a, root)
    low = ops.div(ops.add(c, root_low), u)
    large = ops.gt(a, ops.const(2.0**30))  # log(2 a); a**2 may overflow
    u = ops.select(large, a, u)
    low = ops.select(large, ops.const(0.0), low)
    return _log_sum(ops, u, low, large)


def asinh(ops: Ops, x: Value) -> Value:
    """log(x + sqrt(x**2 + 1)), odd."""
    return ops.copysign(_log_of_sum_with_root(ops, ops.abs(x), 1.0), x)


def acosh(ops: Ops, x: Value) -> Value:
    """log(x + sqrt(x**2 - 1)) for x >= 1."""
    result = _log_of_sum_with_root(ops, x, -1.0)
    return ops.select(ops.lt(x, ops.const(1.0)), ops.const(_NAN), result)


def atanh(ops: Ops, x: Value) -> Value:
    """log((1 + x) / (1 - x)) / 2 = log1p(2 x / (1 - x)) / 2, odd."""
    a = ops.abs(x)
    one = ops.const(1.0)
    doubled = ops.add(a, a)
    d, d_low = _two_sum(ops, one, ops.neg(a))
    q = ops.div(doubled, d)
    remainder = ops.sub(ops.fma(ops.neg(q), d, doubled), ops.mul(q, d_low))
    u, c = _two_sum(ops, one, q)
    low = ops.div(ops.add(c, ops.div(remainder, d)), u)
    return ops.copysign(ops.mul(ops.const(0.5), _log_sum(ops, u, low)), x)


# ------------------------------------------------------------------------------------ power, hypot


def _is_odd(ops: Ops, y: Value, whole: Value) -> Value:
    """Where y, known to be an integer where the mask `whole` is set, is odd."""
    half = ops.mul(y, ops.const(0.5))
    return ops.mask_and(whole, ops.ne(ops.floor(half), half))


def _pow_magnitude(ops: Ops, a: Value, y: Value) -> Value:
    """a**y = exp(y log(a)) for a >= 0, the product carried in two numbers."""
    zero = ops.const(0.0)
    high, low = _log_wide(ops, *_split_exponent(ops, a))
    edge = ops.mask_or(ops.eq(a, zero), ops.eq(a, ops.const(_INF)))
    limit = ops.select(ops.eq(a, zero), ops.const(-_INF), ops.const(_INF))
    high = ops.select(edge, limit, high)

    product, product_low = _two_product(ops, y, high)
    product_low = ops.fma(y, low, product_low)
    # log(1) * inf is not NaN here: pow(-1, inf) = 1.
    product = ops.select(ops.eq(a, ops.const(1.0)), zero, product)
    floor, ceiling = _format(ops).exp_range
    inside = ops.mask_and(ops.gt(product, ops.const(floor)), ops.lt(product, ops.const(ceiling)))
    inside = ops.mask_and(inside, ops.ne(product, zero))
    product_low = ops.select(inside, product_low, zero)
    product = _at_most(ops, _at_least(ops, product, floor), ceiling)
    return _scale(ops, *_exp_parts_wide(ops, product, product_low))


def pow(ops: Ops, x: Value, y: Value) -> Value:
    """x**y. pow(x, 0) = pow(1, y) = 1 for every x and y; a negative base needs an integer y."""
    a = ops.abs(x)
    zero, one, nan = ops.const(0.0), ops.const(1.0), ops.const(_NAN)
    result = _pow_magnitude(ops, a, y)
    whole = ops.eq(ops.floor(y), y)
    flips = ops.mask_and(_sign_mask(ops, x), _is_odd(ops, y, whole))
    result = ops.select(flips, ops.neg(result), result)
    rootless = ops.mask_and(ops.lt(x, zero), ops.mask_not(whole))
    rootless = ops.mask_and(rootless, ops.ne(a, ops.const(_INF)))
    unknown = ops.mask_or(rootless, ops.mask_or(ops.isnan(x), ops.isnan(y)))
    result = ops.select(unknown, nan, result)
    return ops.select(ops.mask_or(ops.eq(x, one), ops.eq(y, zero)), one, result)


def hypot(ops: Ops, x: Value, y: Value) -> Value:
    """sqrt(x**2 + y**2) without overflow or underflow in between; inf beats NaN."""
    a, b = ops.abs(x), ops.abs(y)
    swap = ops.lt(a, b)
    larger, smaller = ops.select(swap, b, a), ops.select(swap, a, b)
    reach = _format(ops).bias // 2 - 3
    shift = reach + _format(ops).fraction // 2
    huge = ops.gt(larger, ops.const(2.0**reach))
    tiny = ops.lt(larger, ops.const(2.0**-reach))

    def by_size(for_huge: float, for_tiny: float) -> Value:
        scale = ops.select(tiny, ops.const(for_tiny), ops.const(1.0))
        return ops.select(huge, ops.const(for_huge), scale)

    scale = by_size(2.0**-shift, 2.0**shift)
    larger, smaller = ops.mul(larger, scale), ops.mul(smaller, scale)
    square, square_low = _two_product(ops, larger, larger)
    total, total_low = _quick_two_sum(ops, square, ops.mul(smaller, smaller))
    root = ops.sqrt(ops.add(total, ops.add(total_low, square_low)))
    result = ops.mul(root, by_size(2.0**shift, 2.0**-shift))
    infinite = ops.mask_or(ops.eq(a, ops.const(_INF)), ops.eq(b, ops.const(_INF)))
    return ops.select(infinite, ops.const(_INF), result)


# ------------------------------------------------------------------------------ circular functions


def _vector_sum(ops: Ops, terms: list[Value]) -> list[Value]:
    """The same sum in other terms: the last is the rounded total, the others what it lost."""
    terms = list(terms)
    for i in range(1, len(terms)):
        terms[i], terms[i - 1] = _two_sum(ops, terms[i], terms[i - 1])
    return terms


def _modulo_four(ops: Ops, x: Value) -> Value:
    """x less the nearest multiple of 4, exactly."""
    quarters = ops.round_even(ops.mul(x, ops.const(0.25)))
    return ops.fma(ops.const(-4.0), quarters, x)


# v * numerator >> shift is v // bits of a word, for every exponent that occurs
_WORD_DIVISION = {32: (43, 10), 64: (1237, 16)}


def _words_of_two_over_pi(ops: Ops, x: Value) -> tuple[list[Value], Value]:
    """Five words of 2/pi and x over a power of two: those that matter in x * 2/pi modulo 4.

    Words before them give multiples of 4, words after them less than the last bit. The first is
    chosen by the exponent of x, in a cascade of selects by the bits of its number.
    """
    fmt = _format(ops)
    word_bits = fmt.fraction + 1
    steps = 3 if fmt.width == 32 else 5
    words = [ops.const(w) for w in _words(_TWO_OVER_PI, word_bits, (1 << steps) + 4)]
    field = ops.ilshr(ops.bits(ops.abs(x)), fmt.fraction)
    above = ops.isub(field, ops.iconst(fmt.bias + fmt.fraction + 2))
    above = ops.select(ops.ilt(above, ops.iconst(0)), ops.iconst(0), above)
    numerator, shift = _WORD_DIVISION[fmt.width]
    first = ops.ilshr(ops.imul(above, ops.iconst(numerator)), shift)
    for step in reversed(range(steps)):
        distance = 1 << step
        zero = ops.ieq(ops.iand(first, ops.iconst(distance)), ops.iconst(0))
        keep = distance + 4
        words = [ops.select(zero, words[i], words[i + distance]) for i in range(keep)]
    exponent = ops.ishl(ops.imul(first, ops.iconst(word_bits)), fmt.fraction)
    return words, ops.from_bits(ops.isub(ops.bits(x), exponent))


def _reduce_long(ops: Ops, x: Value) -> tuple[Value, Value, Value]:
    """As `_reduce_angle`, for every finite x of at least `trig_limit`.

    Source: Payne and Hanek, "Radian reduction for trigonometric functions" (1983).
    """
    fmt = _format(ops)
    words, scaled = _words_of_two_over_pi(ops, x)
    products = []
    for i, word in enumerate(words):
        factor = ops.mul(scaled, ops.const(2.0 ** (-i * (fmt.fraction + 1))))
        products.append(_two_product(ops, factor, word))
    terms = [
        _modulo_four(ops, products[0][0]),
        _modulo_four(ops, products[0][1]),
        _modulo_four(ops, products[1][0]),
        products[1][1],
        products[2][0],
        products[2][1],
        products[3][0],
        ops.add(products[3][1], products[4][0]),
    ]
    terms = _vector_sum(ops, terms)
    n, shifted = _round(ops, terms[-1], 1.0)
    terms[-1] = ops.sub(terms[-1], n)
    terms = _vector_sum(ops, _vector_sum(ops, terms))
    turn, turn_low = terms[-1], terms[0]
    for term in terms[1:-1]:
        turn_low = ops.add(turn_low, term)
    half_pi, half_pi_low = (ops.const(part) for part in fmt.parts(_HALF_PI, 2))
    r, r_low = _two_product(ops, turn, half_pi)
    r_low = ops.fma(turn, half_pi_low, ops.fma(turn_low, half_pi, r_low))
    not_finite = ops.sub(x, x)  # 0, or NaN for inf
    return ops.add(r, not_finite), r_low, ops.bits(shifted)


def _reduce_angle(ops: Ops, x: Value) -> tuple[Value, Value, Value]:
    """(r, low, q) with x = n pi/2 + r + low, |r| <= pi/4, and n = q modulo 4.

    Source: Cody and Waite, with fma: the first step is exact, as the product is.
    """
    fmt = _format(ops)
    n, shifted = _round(ops, x, _nearest(_TWO_OVER_PI, fmt.width))
    minus_n = ops.neg(n)
    first, second, third = (ops.const(part) for part in fmt.parts(_HALF_PI, 3))
    begun = ops.fma(minus_n, first, x)
    step, step_low = _two_product(ops, minus_n, second)
    r, low = _two_sum(ops, begun, step)
    low = ops.fma(minus_n, third, ops.add(low, step_low))
    large = ops.ge(ops.abs(x), ops.const(fmt.trig_limit))
    usual = (r, low, ops.bits(shifted))
    r, low, quadrant = _rarely(ops, large, usual, lambda: _reduce_long(ops, x))
    return r, low, quadrant


def _sin_core(ops: Ops, r: Value, low: Value) -> Value:
    """sin(r + low) for |r| <= pi/4."""
    square = ops.mul(r, r)
    return ops.add(r, ops.fma(ops.mul(r, square), _polynomial(ops, _SIN, square), low))


def _cos_core(ops: Ops, r: Value, low: Value) -> Value:
    """cos(r + low) = 1 - r**2/2 + ... - r low, for |r| <= pi/4."""
    square, square_low = _two_product(ops, r, r)
    half = ops.mul(ops.const(-0.5), square)
    total, total_low = _quick_two_sum(ops, ops.const(1.0), half)
    tail = ops.fma(ops.mul(square, square), _polynomial(ops, _COS, square), total_low)
    tail = ops.fma(ops.const(-0.5), square_low, tail)
    return ops.add(total, ops.fma(ops.neg(r), low, tail))


def _sin_or_cos(ops: Ops, r: Value, low: Value, quadrant: Value) -> Value:
    """sin(r + low + quadrant * pi/2)."""
    even = ops.ieq(ops.iand(quadrant, ops.iconst(1)), ops.iconst(0))
    value = ops.select(even, _sin_core(ops, r, low), _cos_core(ops, r, low))
    sign = ops.ishl(ops.iand(quadrant, ops.iconst(2)), ops.width - 2)
    return ops.from_bits(ops.ixor(ops.bits(value), sign))


def sin(ops: Ops, x: Value) -> Value:
    """The sine of x radians, for arguments of any size."""
    result = _sin_or_cos(ops, *_reduce_angle(ops, x))
    return ops.select(ops.eq(x, ops.const(0.0)), x, result)


def cos(ops: Ops, x: Value) -> Value:
    """The cosine of x radians, for arguments of any size."""
    r, low, quadrant = _reduce_angle(ops, x)
    return _sin_or_cos(ops, r, low, ops.iadd(quadrant, ops.iconst(1)))


def tan(ops: Ops, x: Value) -> Value:
    """sin(x) / cos(x); in odd quadrants -cos(r) / sin(r)."""
    r, low, quadrant = _reduce_angle(ops, x)
    sine, cosine = _sin_core(ops, r, low), _cos_core(ops, r, low)
    even = ops.ieq(ops.iand(quadrant, ops.iconst(1)), ops.iconst(0))
    numerator = ops.select(even, sine, ops.neg(cosine))
    result = ops.div(numerator, ops.select(even, cosine, sine))
    return ops.select(ops.eq(x, ops.const(0.0)), x, result)


def _asin_parts(ops: Ops, a: Value) -> tuple[Value, Value]:
    """(s, w) with asin(s) = s + w and s = a below 1/2, sqrt((1 - a) / 2) above."""
    half = ops.const(0.5)
    small = ops.le(a, half)
    other = ops.fma(ops.const(-0.5), a, half)  # exact
    square = ops.select(small, ops.mul(a, a), other)
    s = ops.select(small, a, ops.sqrt(other))
    return s, ops.mul(ops.mul(s, square), _polynomial(ops, _ASIN, square))


def asin(ops: Ops, x: Value) -> Value:
    """The angle in [-pi/2, pi/2] whose sine is x; pi/2 - 2 asin(sqrt((1 - x)/2)) above 1/2."""
    a = ops.abs(x)
    s, w = _asin_parts(ops, a)
    near = ops.add(s, w)
    high, low = (ops.const(part) for part in _format(ops).parts(_HALF_PI, 2))
    minus_two = ops.const(-2.0)
    far = ops.add(ops.fma(minus_two, s, high), ops.fma(minus_two, w, low))
    return ops.copysign(ops.select(ops.le(a, ops.const(0.5)), near, far), x)


def acos(ops: Ops, x: Value) -> Value:
    """The angle in [0, pi] whose cosine is x.

    pi/2 - asin(x) up to 1/2; beyond 2 asin(sqrt((1 - |x|)/2)), for negative x taken from pi.
    """
    a = ops.abs(x)
    s, w = _asin_parts(ops, a)
    value = ops.add(s, w)
    high, low = (ops.const(part) for part in _format(ops).parts(_HALF_PI, 2))
    negative = ops.lt(x, ops.const(0.0))
    near = ops.add(high, ops.add(low, ops.select(negative, value, ops.neg(value))))
    twice = ops.add(value, value)
    two = ops.const(2.0)
    supplement = ops.add(ops.mul(two, high), ops.fma(two, low, ops.neg(twice)))
    far = ops.select(negative, supplement, twice)
    return ops.select(ops.le(a, ops.const(0.5)), near, far)


def _atan_core(ops: Ops, t: Value) -> Value:
    """atan(t) for 0 <= t <= 1."""
    square = ops.mul(t, t)
    return ops.fma(ops.mul(t, square), _polynomial(ops, _ATAN, square), t)


def atan(ops: Ops, x: Value) -> Value:
    """The angle in [-pi/2, pi/2] whose tangent is x; pi/2 - atan(1/x) above 1."""
    a = ops.abs(x)
    one = ops.const(1.0)
    large = ops.gt(a, one)
    value = _atan_core(ops, ops.select(large, ops.div(one, a), a))
    high, low = (ops.const(part) for part in _format(ops).parts(_HALF_PI, 2))
    complement = ops.add(high, ops.sub(low, value))
    return ops.copysign(ops.select(large, complement, value), x)


def atan2(ops: Ops, y: Value, x: Value) -> Value:
    """The angle in [-pi, pi] of the point (x, y); the signs of zeros choose the side."""
    rise, run = ops.abs(y), ops.abs(x)
    zero, infinity = ops.const(0.0), ops.const(_INF)
    steep = ops.gt(rise, run)
    numerator, denominator = ops.select(steep, run, rise), ops.select(steep, rise, run)
    t = ops.div(numerator, denominator)
    t = ops.select(ops.eq(denominator, zero), numerator, t)  # 0/0
    both = ops.mask_and(ops.eq(numerator, infinity), ops.eq(denominator, infinity))
    value = _atan_core(ops, ops.select(both, ops.const(1.0), t))

    left = _sign_mask(ops, x)
    high, low = _format(ops).parts(_HALF_PI, 2)

    def start(part: float) -> Value:
        flat = ops.select(left, ops.const(2.0 * part), zero)
        return ops.select(steep, ops.const(part), flat)

    turned = ops.select(_mask_xor(ops, steep, left), ops.neg(value), value)
    angle = ops.add(start(high), ops.add(start(low), turned))
    return ops.copysign(angle, y)


# ----------------------------------------------------------------------------------- error function


def _erf_near(ops: Ops, a: Value) -> Value:
    """erf(a) for 0 <= a <= 1."""
    return ops.fma(a, _polynomial(ops, _ERF, ops.mul(a, a)), a)


def _erfc_parts(ops: Ops, a: Value) -> tuple[Value, _Whole]:
    """(p, n) with erfc(a) = p * 2**n, for 0 <= a <= erfc_zero.

    exp(a**2) erfc(a) (1 + 2a) is a slowly varying function of (a - k)/(a + k), which maps
    [0, inf) to [-1, 1]. Source: Shepherd and Laframboise, "Chebyshev approximation of
    (1 + 2x) exp(x**2) erfc x in 0 <= x < inf" (1981).
    """
    center = ops.const(2.0 if ops.width == 32 else 4.0)
    t = ops.div(ops.sub(a, center), ops.add(a, center))
    two, one = ops.const(2.0), ops.const(1.0)
    square, square_low = _two_product(ops, a, a)
    significand, exponent = _exp_parts_wide(ops, ops.neg(square), ops.neg(square_low))
    smooth = _polynomial(ops, _ERFCX, t)
    d, d_low = _two_sum(ops, one, ops.mul(two, a))
    reciprocal = ops.div(one, d)
    quotient = ops.mul(smooth, reciprocal)
    remainder = ops.sub(ops.fma(ops.neg(quotient), d, smooth), ops.mul(quotient, d_low))
    quotient_low = ops.mul(remainder, reciprocal)
    return ops.fma(significand, quotient, ops.mul(significand, quotient_low)), exponent


def _erfc_short(ops: Ops, a: Value) -> Value:
    """erfc(a) for 0.92 <= a to float32's accuracy of 1 - erfc(a): 2 to a polynomial."""
    power = _polynomial(ops, _ERF_TAIL, _at_most(ops, a, 3.95))
    n, shifted = _round(ops, power, 1.0)
    r = ops.mul(ops.sub(power, n), ops.const(_nearest(_LN2, 32)))
    raised = ops.ishl(ops.bits(shifted), _format(ops).fraction)  # n in the exponent's place
    return ops.from_bits(ops.iadd(ops.bits(_exp_core(ops, r)), raised))


def erf(ops: Ops, x: Value) -> Value:
    """The error function, 2/sqrt(pi) times the integral of exp(-t**2) from 0 to x."""
    a = ops.abs(x)
    if ops.width == 32:
        tail = _erfc_short(ops, a)
    else:
        significand, exponent = _erfc_parts(ops, _at_most(ops, a, 6.0))
        tail = ops.mul(significand, _power_of_two(ops, _integer(ops, exponent)))
    far = ops.sub(ops.const(1.0), tail)
    near = ops.lt(a, ops.const(0.95))
    return ops.copysign(ops.select(near, _erf_near(ops, a), far), x)


def erfc(ops: Ops, x: Value) -> Value:
    """1 - erf(x), without the cancellation for positive x."""
    a = _at_most(ops, ops.abs(x), _format(ops).erfc_zero)
    one = ops.const(1.0)
    tail = _scale(ops, *_erfc_parts(ops, a))
    tail = ops.select(ops.lt(a, ops.const(0.5)), ops.sub(one, _erf_near(ops, a)), tail)
    return ops.select(ops.lt(x, ops.const(0.0)), ops.sub(ops.const(2.0), tail), tail)


def erfinv(ops: Ops, x: Value) -> Value:
    """The number whose erf is x, by polynomials in w = -log(1 - x**2) or sqrt(w).

    Source: M. Giles, "Approximating the erfinv function" (2012); other polynomials.
    """
    a = ops.abs(x)
    one = ops.const(1.0)
    w = ops.neg(log(ops, ops.fma(ops.neg(a), a, one)))
    root = ops.sqrt(w)
    pieces: list[tuple[_Table, Value, float, float]] = [
        (_ERFINV_NEAR, w, 2.5, 5.0),
        (_ERFINV_MIDDLE, root, 3.0, _INF),
    ]
    if ops.width == 64:
        pieces = [
            (_ERFINV_NEAR, w, 3.125, 6.25),
            (_ERFINV_MIDDLE, root, 3.25, 16.0),
            (_ERFINV_FAR, root, 5.0, _INF),
        ]
    ratio = ops.const(0.0)
    for table, argument, center, until in reversed(pieces):
        value = _polynomial(ops, table, ops.sub(argument, ops.const(center)))
        ratio = value if until == _INF else ops.select(ops.lt(w, ops.const(until)), value, ratio)
    result = ops.select(ops.eq(a, one), ops.const(_INF), ops.mul(a, ratio))
    return ops.copysign(ops.select(ops.gt(a, one), ops.const(_NAN), result), x)


# ---------------------------------------------------------------------------------- gamma function
# Both functions: a polynomial on [1, 2], one step of the recurrence for [0, 1] and [2, 3],
# Stirling's series with fitted coefficients from 3 on, the reflection formula for negative numbers.

_DIGAMMA_ZERO = Fraction("0.461632144968362341262659542325721328468196204006446351")  # less 1
_LOG_TWO_PI = Fraction("1.837877066409345483560659472811235279722794947275566825634")
_PI = 2 * _HALF_PI


@dataclass(frozen=True)
class _GammaRange:
    """Where a positive number is, and its distance u from 0, 1 or 2 below 3."""

    below_one: Value
    above_two: Value
    large: Value
    u: Value


def _gamma_range(ops: Ops, a: Value) -> _GammaRange:
    zero, one, two = ops.const(0.0), ops.const(1.0), ops.const(2.0)
    below_one, above_two = ops.lt(a, one), ops.ge(a, two)
    start = ops.select(below_one, zero, ops.select(above_two, two, one))
    return _GammaRange(below_one, above_two, ops.ge(a, ops.const(3.0)), ops.sub(a, start))


def _pi_times(ops: Ops, x: Value) -> tuple[Value, Value]:
    """pi times the distance of x from the nearest integer, as (r, low)."""
    pi, pi_low = (ops.const(part) for part in _format(ops).parts(_PI, 2))
    f = ops.sub(x, ops.round_even(x))
    r, low = _two_product(ops, f, pi)
    return r, ops.fma(f, pi_low, low)


def _sin_pi(ops: Ops, x: Value) -> tuple[Value, Value]:
    """(sin, cos) of pi f, f the distance of x from the nearest integer.

    |pi f| reaches pi/2, twice the interval of the polynomials: so from the half angle.
    """
    r, low = _pi_times(ops, x)
    half = ops.const(0.5)
    r, low = ops.mul(r, half), ops.mul(low, half)
    sine, cosine = _sin_core(ops, r, low), _cos_core(ops, r, low)
    double_sine = ops.mul(ops.add(sine, sine), cosine)
    return double_sine, ops.mul(ops.sub(cosine, sine), ops.add(cosine, sine))


def _lgamma_positive(ops: Ops, a: Value) -> Value:
    """lgamma(a) for a >= 0."""
    at, one = _gamma_range(ops, a), ops.const(1.0)
    smooth = _polynomial(ops, _LGAMMA, at.u)
    roots, roots_low = _two_product(ops, at.u, ops.sub(at.u, one))
    base, base_low = _two_product(ops, roots, smooth)
    base_low = ops.fma(roots_low, smooth, base_low)
    # lgamma(a) is lgamma(a + 1) - log(a) below 1 and lgamma(a - 1) + log(a - 1) above 2.
    shifted = ops.select(at.above_two, ops.sub(a, one), one)
    argument = ops.select(ops.mask_or(at.below_one, at.large), a, shifted)
    high, low = _log_wide(ops, *_split_exponent(ops, argument))
    step = ops.select(at.below_one, ops.neg(high), high)
    step_low = ops.select(at.below_one, ops.neg(low), low)
    small, small_low = _two_sum(ops, base, step)
    small = ops.add(small, ops.add(small_low, ops.add(base_low, step_low)))
    small = ops.select(ops.eq(a, ops.const(0.0)), ops.const(_INF), small)

    # (a - 1/2) (log(a) - 1) + (log(2 pi) - 1) / 2 + 1 / (12 a) - ...
    less_one, lost = _two_sum(ops, high, ops.const(-1.0))
    less_one_low = ops.add(lost, low)
    factor = ops.sub(a, ops.const(0.5))
    product, product_low = _two_product(ops, factor, less_one)
    product_low = ops.fma(factor, less_one_low, product_low)
    inverse = ops.div(one, a)
    tail = ops.mul(inverse, _polynomial(ops, _LGAMMA_TAIL, ops.mul(inverse, inverse)))
    constant = ops.const(_nearest((_LOG_TWO_PI - 1) / 2, ops.width))
    total = ops.add(product, ops.add(constant, ops.add(tail, product_low)))
    total = ops.select(ops.eq(product, ops.const(_INF)), product, total)
    return ops.select(at.large, total, small)


def lgamma(ops: Ops, x: Value) -> Value:
    """log(|gamma(x)|); inf at 0, -1, -2, ...

    For negative x it is log(pi / |sin(pi x)|) - log(-x) - lgamma(-x): near its zeros there the
    error is a few units of the last place of these terms.
    """
    a = ops.abs(x)
    positive = _lgamma_positive(ops, a)

    def reflected() -> tuple[Value]:
        sine, _ = _sin_pi(ops, a)
        over_pi = ops.mul(ops.abs(sine), ops.const(_nearest(1 / _PI, ops.width)))
        logs = ops.add(log(ops, over_pi), log(ops, a))
        value = ops.neg(ops.add(logs, positive))
        infinite, pole = ops.const(_INF), ops.eq(sine, ops.const(0.0))
        return (ops.select(ops.mask_or(ops.eq(a, infinite), pole), infinite, value),)

    return _rarely(ops, ops.lt(x, ops.const(0.0)), (positive,), reflected)[0]


def _digamma_positive(ops: Ops, a: Value) -> tuple[Value, Value]:
    """(digamma(a), digamma(a + 1)) for a >= 0."""
    at, one = _gamma_range(ops, a), ops.const(1.0)
    zero_high, zero_low = (ops.const(part) for part in _format(ops).parts(_DIGAMMA_ZERO, 2))
    distance = ops.sub(ops.sub(at.u, zero_high), zero_low)
    base = ops.mul(distance, _polynomial(ops, _DIGAMMA, at.u))
    between = ops.mask_and(at.above_two, ops.mask_not(at.large))
    inverse = ops.div(one, ops.select(between, ops.sub(a, one), a))
    down = ops.select(at.below_one, ops.sub(base, inverse), base)
    small = ops.select(at.above_two, ops.add(base, inverse), down)

    square = ops.mul(inverse, inverse)
    tail = ops.mul(square, _polynomial(ops, _DIGAMMA_TAIL, square))
    tail = ops.fma(ops.const(0.5), inverse, tail)
    value = ops.select(at.large, ops.sub(log(ops, a), tail), small)
    following = ops.select(at.below_one, base, ops.add(value, ops.div(one, a)))
    return value, following


def digamma(ops: Ops, x: Value) -> Value:
    """The derivative of lgamma; -inf at 0, inf at -0.0, NaN at -1, -2, ...

    For negative x it is digamma(1 - x) - pi / tan(pi x): near its zeros there the error is a few
    units of the last place of these terms.
    """
    a, zero = ops.abs(x), ops.const(0.0)
    positive, following = _digamma_positive(ops, a)

    def reflected() -> tuple[Value]:
        sine, cosine = _sin_pi(ops, a)
        cotangent = ops.div(ops.mul(ops.const(_nearest(_PI, ops.width)), cosine), sine)
        value = ops.add(following, cotangent)
        return (ops.select(ops.eq(sine, zero), ops.const(_NAN), value),)

    result = _rarely(ops, ops.lt(x, zero), (positive,), reflected)[0]
    pole = ops.copysign(ops.const(_INF), ops.neg(x))
    return ops.select(ops.eq(x, zero), pole, result)


# ------------------------------------------------------------------------------------------ tables

FUNCTIONS: dict[str, Callable[..., Value]] = {
    function.__name__: function
    for function in (
        *(exp, exp2, expm1, log, log2, log10, log1p, sin, cos, tan, asin, acos, atan),
        *(sinh, cosh, tanh, asinh, acosh, atanh, erf, erfc, sigmoid),
        *(pow, atan2, hypot, erfinv, lgamma, digamma),
    )
}
"""Every function by its name; `pow`, `atan2` and `hypot` have two arguments."""

_BOUNDS = {
    **{"exp": 1.0, "exp2": 1.0, "expm1": 2.0, "log": 1.0, "log2": 0.75, "log10": 0.75},
    **{"log1p": 1.0, "sin": 1.25, "cos": 1.25, "tan": 3.0, "asin": 2.25, "acos": 1.5, "atan": 2.0},
    **{"sinh": 2.0, "cosh": 1.5, "tanh": 1.5, "asinh": 1.25, "acosh": 1.0, "atanh": 1.25},
    **{"erf": 1.5, "erfc": 3.0, "sigmoid": 2.0, "pow": 1.25, "atan2": 2.0, "hypot": 1.25},
    **{"erfinv": 3.5, "lgamma": 2.5, "digamma": 4.0},
}

ULP: dict[tuple[str, int], float] = {
    (name, width): bound for name, bound in _BOUNDS.items() for width in _FORMATS
}
"""The largest error of a function for a width, in units of the last place of the exact result.

Below the smallest normal number the unit is that of the smallest one. `lgamma` and `digamma`:
for positive numbers; see there for the others.
"""
