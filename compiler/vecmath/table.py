"""All functions by name, and how exact each is."""

from __future__ import annotations

from collections.abc import Callable

from .circular import acos, asin, atan, atan2, cos, sin, tan
from .error_function import erf, erfc, erfinv
from .exponential import cosh, exp, exp2, expm1, sigmoid, sinh, tanh
from .formats import FORMATS
from .gamma import digamma, lgamma
from .logarithm import acosh, asinh, atanh, log, log1p, log2, log10
from .ops import Value
from .power import hypot, pow

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
    (name, width): bound for name, bound in _BOUNDS.items() for width in FORMATS
}
"""The largest error of a function for a width, in units of the last place of the exact result.

Below the smallest normal number the unit is that of the smallest one. `lgamma` and `digamma`:
for positive numbers; see there for the others.
"""
