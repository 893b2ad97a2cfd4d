"""Further names of functions: torch's and NumPy's, and reductions that also take named axes."""

from __future__ import annotations

from typing import Any

from . import elementwise, movement, random, reduction
from .notation import Indexed, reduce_over

cat = concatenate = movement.concat
permute = movement.permute_dims
unsqueeze = movement.expand_dims
arcsin, arccos, arctan = elementwise.asin, elementwise.acos, elementwise.atan
mul, sub, div, neg = (
    elementwise.multiply,
    elementwise.subtract,
    elementwise.divide,
    elementwise.negative,
)
mod, power, absolute = elementwise.remainder, elementwise.pow, elementwise.abs
eq, ne, lt, le = (
    elementwise.equal,
    elementwise.not_equal,
    elementwise.less,
    elementwise.less_equal,
)
gt, ge, clamp = elementwise.greater, elementwise.greater_equal, elementwise.clip
cast = elementwise.astype
seed = set_global_seed = random.manual_seed

_OVER = {"sum": "add", "prod": "multiply", "max": "maximum", "min": "minimum",
         "all": "logical_and", "any": "logical_or"}  # fmt: skip


def _reduction(name: str) -> Any:
    plain = getattr(reduction, name)

    def function(x: Any, *args: Any, over: Any = None, **options: Any) -> Any:
        if isinstance(x, Indexed):
            return reduce_over(_OVER[name], x, () if over is None else over)
        return plain(x, *args, **options)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"{plain.__doc__}\n\n    With `over=`: of an expression over named axes."
    return function


sum, prod = _reduction("sum"), _reduction("prod")
max, min = _reduction("max"), _reduction("min")
all, any = _reduction("all"), _reduction("any")

__all__ = [
    "absolute", "all", "any", "arccos", "arcsin", "arctan", "cast", "cat", "clamp", "concatenate",
    "div", "eq", "ge", "gt", "le", "lt", "max", "min", "mod", "mul", "ne", "neg", "permute",
    "power", "prod", "seed", "set_global_seed", "sub", "sum", "unsqueeze",
]  # fmt: skip
