"""Which functions are methods and operators of Var: one table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import (
    creation,
    fusion,
    hooks,
    indexing,
    interchange,
    linalg,
    linear,
    movement,
    notation,
    random,
    rearrange,
    reduction,
    samples,
    scans,
    selection,
    sorting,
    special,
)
from . import elementwise as el
from .dtype import DType, as_dtype, float32, float64, int32, int64
from .dtype import bool_ as bool_type
from .dtype import float16 as float16_type
from .errors import user_site
from .life import not_recording_gradients
from .var import Var

OPERATORS: dict[str, Callable[..., Any]] = {
    "__neg__": el.negative, "__pos__": el.positive, "__abs__": el.abs,
    "__invert__": el.bitwise_invert, "__matmul__": linear.matmul,
    "__eq__": el.equal, "__ne__": el.not_equal, "__lt__": el.less, "__le__": el.less_equal,
    "__gt__": el.greater, "__ge__": el.greater_equal,
}  # fmt: skip

ARITHMETIC: dict[str, Callable[..., Any]] = {
    "add": el.add, "sub": el.subtract, "mul": el.multiply, "truediv": el.divide,
    "floordiv": el.floor_divide, "mod": el.remainder, "pow": el.pow, "and": el.bitwise_and,
    "or": el.bitwise_or, "xor": el.bitwise_xor, "lshift": el.bitwise_left_shift,
    "rshift": el.bitwise_right_shift,
}  # fmt: skip

METHODS: dict[str, Callable[..., Any]] = {
    "stop_fuse": fusion.stop_fuse, "register_hook": hooks.register_hook,
    **{name: getattr(el, name) for name in (
        "exp exp2 expm1 log log2 log10 log1p sqrt rsqrt square reciprocal sin cos tan asin acos "
        "atan sinh cosh tanh asinh acosh atanh erf erfc sigmoid floor ceil round trunc isnan "
        "isinf isfinite logical_not logical_and logical_or logical_xor abs sign negative pow "
        "maximum minimum clip astype lerp erfinv lgamma digamma hypot atan2 fmax fmin copysign "
        "isclose add subtract multiply divide"
    ).split()},
    **{name: getattr(special, name) for name in (
        "addcdiv addcmul allclose array_equal conj deg2rad float_power fmod frac heaviside "
        "isneginf isposinf ldexp logaddexp logaddexp2 logit nan_to_num nextafter rad2deg signbit "
        "sinc xlogy"
    ).split()},
    **{name: getattr(scans, name) for name in (
        "cummax cummin cumprod cumsum diff logcumsumexp"
    ).split()},
    **{name: getattr(selection, name) for name in (
        "argwhere bincount gather index_add index_copy index_fill index_put index_select "
        "masked_fill masked_scatter masked_select nonzero scatter scatter_add scatter_reduce"
    ).split()},
    **{name: getattr(sorting, name) for name in (
        "argsort kthvalue searchsorted sort topk unique"
    ).split()},
    **{name: getattr(samples, name) for name in (
        "corrcoef cov histogram median nanmedian nanquantile quantile"
    ).split()},
    **{name: getattr(rearrange, name) for name in (
        "broadcast chunk diag diag_embed diagonal expand fliplr flipud narrow ravel "
        "repeat_interleave rot90 select t tensor_split trace unbind unflatten"
    ).split()},
    **{name: getattr(linalg, name) for name in (
        "cholesky det inv logdet matrix_power pinv qr slogdet svd"
    ).split()},
    **{name: getattr(linear, name) for name in (
        "addmm baddbmm bmm cross inner kron mm mv outer tensordot vdot"
    ).split()},
    **{name: getattr(reduction, name) for name in (
        "sum prod mean var std max min amax amin all any argmax argmin count_nonzero logsumexp "
        "norm nansum nanmean nanmax nanmin ptp aminmax dist"
    ).split()},
    **{name: getattr(movement, name) for name in (
        "reshape flatten transpose swapaxes moveaxis squeeze flip roll broadcast_to repeat tile "
        "split"
    ).split()},
    "view": movement.reshape, "permute": movement.permute_dims, "movedim": movement.moveaxis,
    "unsqueeze": movement.expand_dims, "cast": el.astype, "neg": el.negative, "eq": el.equal,
    "ne": el.not_equal, "lt": el.less, "le": el.less_equal, "gt": el.greater,
    "ge": el.greater_equal, "add": el.add, "sub": el.subtract, "mul": el.multiply,
    "div": el.divide, "clamp": el.clip, "matmul": linear.matmul, "dot": linear.dot,
    "take": indexing.take, "reduce": reduction.reduce_by,
    "reindex": notation.reindex, "reindex_reduce": notation.reindex_reduce,
}  # fmt: skip


_ORDINARY = frozenset((Var, float, int, bool))  # operands that every operator takes


def _binary_operator(function: Callable[..., Any], swap: bool) -> Callable[..., Any]:
    def operator(self: Var, other: Any) -> Any:
        if type(other) not in _ORDINARY and (
            isinstance(other, notation.Indexed) or other is None or isinstance(other, str)
        ):
            return NotImplemented
        return function(other, self) if swap else function(self, other)

    return operator


def _in_place(function: Callable[..., Any]) -> Callable[..., Any]:
    def operator(self: Var, other: Any) -> Var:
        self._before_update()
        return self._update(function(self, other))

    return operator


def _comparison(function: Callable[..., Any]) -> Callable[..., Any]:
    def operator(self: Var, other: Any) -> Any:
        if other is None or isinstance(other, str):
            return NotImplemented
        return function(self, other)

    return operator


def _getitem(self: Var, key: Any) -> Any:
    if notation.uses_axes(key):
        return notation.index_var(self, key)
    if notation.uses_loops(key):
        return notation.index_read(self, key)
    result = indexing.getitem(self, key)
    result.__dict__["_taken_from"] = key
    return result


def _setitem(self: Var, key: Any, value: Any) -> None:
    if "_taken_from" in self.__dict__:
        taken = self.__dict__.pop("_taken_from")
        if self._node.site.line == user_site().line:
            _refuse_to_write_into_a_part(taken, key)
    indexing.setitem(self, key, value)


def _refuse_to_write_into_a_part(taken: Any, key: Any) -> None:
    """x[i][j] = v, all on one line, would be lost: x[i] is a new value."""
    first, second = ((k if isinstance(k, tuple) else (k,)) for k in (taken, key))
    text = ", ".join(map(_index_text, (*first, *second)))
    raise TypeError(
        f"x[{', '.join(map(_index_text, first))}] is a new value, not a view of x: writing into it "
        f"does not change x; write x[{text}] = v"
    )


def _index_text(key: Any) -> str:
    if isinstance(key, slice):
        parts = (key.start, key.stop, key.step)[: 3 if key.step is not None else 2]
        return ":".join("" if part is None else str(part) for part in parts)
    return "..." if key is Ellipsis else repr(key)


def _filled(make: Callable[..., Any]) -> Callable[..., Var]:
    """An in-place filler: w.fill_(0.5), w.normal_(0, 0.1)."""

    def method(self: Var, *args: Any, **options: Any) -> Var:
        with not_recording_gradients():
            return self.assign(make(self, *args, **options))

    return method


FILLERS: dict[str, Callable[..., Any]] = {
    "fill_": lambda x, value: creation.full_like(x, value),
    "zero_": lambda x: creation.zeros_like(x),
    "copy_": lambda x, other: other,
    "uniform_": lambda x, low=0.0, high=1.0: random.uniform(x.shape, low, high, dtype=x.dtype),
    "normal_": lambda x, mean=0.0, std=1.0: random.normal(x.shape, mean, std, dtype=x.dtype),
    "add_": lambda x, other, alpha=1: x + other * alpha,
    "mul_": lambda x, other: x * other,
}


# In-place functions of torch that keep history, as `x += y` does.
IN_PLACE: dict[str, Callable[..., Any]] = {
    "sub_": el.subtract, "div_": el.divide, "pow_": el.pow, "neg_": el.negative, "exp_": el.exp,
    "sqrt_": el.sqrt, "abs_": el.abs, "clamp_": el.clip, "masked_fill_": selection.masked_fill,
    "scatter_": selection.scatter, "scatter_add_": selection.scatter_add,
    "index_add_": selection.index_add, "index_copy_": selection.index_copy,
    "index_fill_": selection.index_fill,
}  # fmt: skip


def _updated(function: Callable[..., Any]) -> Callable[..., Var]:
    def method(self: Var, *args: Any, **options: Any) -> Var:
        self._before_update()
        return self._update(function(self, *args, **options))

    return method


def _converted(dtype: DType) -> Callable[[Var], Var]:
    return lambda self: self if self.dtype is dtype else el.astype(self, dtype)


def _to(self: Var, *targets: Any, dtype: Any = None, device: Any = None) -> Var:
    """x in another dtype; "cpu" is accepted and means nothing."""
    for target in targets:
        if isinstance(target, Var):
            dtype = target.dtype
        elif str(target).startswith(("cuda", "mps")):
            device = target
        elif target != "cpu":
            dtype = target
    creation.check_device(device)
    return self if dtype is None else _converted(as_dtype(dtype))(self)


def _install() -> None:
    kind: Any = Var  # attributes are set here that a type checker sees on the class itself
    for name, function in OPERATORS.items():
        wrap = _comparison if name in ("__eq__", "__ne__") else lambda f: f
        setattr(kind, name, wrap(function))
    kind.__rmatmul__ = lambda self, other: linear.matmul(other, self)
    kind.__hash__ = object.__hash__
    for name, function in ARITHMETIC.items():
        setattr(kind, f"__{name}__", _binary_operator(function, False))
        setattr(kind, f"__r{name}__", _binary_operator(function, True))
        setattr(kind, f"__i{name}__", _in_place(function))
    kind.__imatmul__ = _in_place(linear.matmul)
    for name, function in METHODS.items():
        setattr(kind, name, function)
    for name, function in FILLERS.items():
        setattr(kind, name, _filled(function))
    for name, function in IN_PLACE.items():
        setattr(kind, name, _updated(function))
    kind.__getitem__, kind.__setitem__ = _getitem, _setitem
    kind.to = _to
    conversions = {"float": float32, "double": float64, "half": float16_type, "long": int64,
                   "int": int32, "bool": bool_type}  # fmt: skip
    for name, dtype in conversions.items():
        setattr(kind, name, _converted(dtype))
    for name in ("cpu", "contiguous"):
        setattr(kind, name, lambda self: self)
    kind.T = property(lambda self: movement.transpose(self))
    kind.__array_namespace__ = interchange.array_namespace
    kind.__dlpack__, kind.to_device = interchange.dlpack, interchange.to_device
    kind.mT = property(lambda self: movement.matrix_transpose(self))
    kind.type_as = lambda self, other: _to(self, other.dtype)


_install()
