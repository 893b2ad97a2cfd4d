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

from .ops import Ops, Value
from .table import FUNCTIONS, ULP

__all__ = ["FUNCTIONS", "ULP", "Ops", "Value"]
