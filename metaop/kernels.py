"""Operators that a user writes as a Python function of an index, or as NumPy code.

`kernel` calls the function once on symbols: where that works it becomes meta-operators, fused with
its neighbours and differentiated (`metaop.branches`: ifs on values, too).  Where it does not (a
loop that ends when a value says so), Numba compiles the function, and it stands as a host callback
between kernels.
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from . import dtype as dt
from .branches import explored
from .build import cast
from .control import Packing
from .dtype import DType, as_dtype
from .errors import DTypeError, ShapeError
from .function import Function
from .graph import Escape, Node, Shape, pending
from .movement import shape_of
from .notation import Indexed, axes
from .placeholder import as_var
from .var import Var

# Nodes that a traced function may make of one element: more would be a loop that Numba runs better.
TRACED_NODES = 400


class Kernel:
    """What `mo.kernel` makes of a function; calling it on Vars returns a Var."""

    def __init__(self, function: Callable[..., Any], shape: Any, dtype: Any, gradient: Any):
        self.function, self.shape, self.dtype, self.gradient = function, shape, dtype, gradient
        self.name = getattr(function, "__name__", "kernel")
        functools.update_wrapper(self, function)
        self._key = code_key(function)

    def __call__(self, *operands: Any) -> Var:
        """The result for these operands.  Raises ShapeError if the function cannot take them."""
        vars = [as_var(v) for v in operands]
        shape = self._shape(vars)
        count = len(inspect.signature(self.function).parameters)
        if len(shape) + len(vars) != count:
            raise ShapeError(
                f"{self.name}: {count} arguments are declared, there are {len(shape)} indices "
                f"and {len(vars)} operands"
            )
        if self.gradient is None:
            return self._value(shape, vars)
        own = _WithGradient(lambda given: self._value(shape, given), self.gradient)
        found: Var = own(*vars)
        return found

    def _value(self, shape: Shape, vars: list[Var]) -> Var:
        traced = self._traced(shape, vars)
        return self._compiled(shape, vars) if traced is None else traced

    def _shape(self, vars: list[Var]) -> Shape:
        shape = self.shape
        if shape is None:
            shape = vars[0].shape
        elif callable(shape):
            shape = shape(*vars)
        return shape_of((shape,) if hasattr(shape, "__index__") else (tuple(shape),))

    def _traced(self, shape: Shape, vars: list[Var]) -> Var | None:
        """As meta-operators, if the function can be called on symbols."""
        loops = axes(*shape)
        try:
            found, branched = explored(self.function, loops, vars)
            if not isinstance(found, Indexed):
                return None
            missing = [a for a in loops if all(a is not b for b in found.axes)]
            result = found.array() if not missing else None
        except Exception:  # whatever user code does with symbols that it cannot handle
            return None
        if result is None:
            return None
        nodes = pending([result._node])
        if len(nodes) > TRACED_NODES or (branched and any(_may_fail(n) for n in nodes)):
            return None
        kind = self.dtype
        if kind is None and branched:
            kind = self._result_dtype([v._node for v in vars])
        return result if kind is None else result.astype(kind)

    def _compiled(self, shape: Shape, vars: list[Var]) -> Var:
        nodes = [cast(v._node, v.dtype.compute) for v in vars]
        kind = self._result_dtype(nodes)
        loop = _loop_of(self.function, len(shape), len(nodes))
        call = functools.partial(_run_loop, loop, shape, kind)
        key = None if self._key is None else ("kernel", self._key, shape, kind.name)
        return Var._of(Escape(self.name, call, shape, kind, *nodes, key=key))

    def _result_dtype(self, nodes: list[Node]) -> DType:
        if self.dtype is not None:
            return as_dtype(self.dtype)
        floats = [n.dtype for n in nodes if n.dtype.is_float]
        if floats:
            return dt.float64 if dt.float64 in floats else dt.float32
        return nodes[0].dtype if nodes else dt.float32


def _may_fail(node: Node) -> bool:
    """A division of integers, which must not be computed where a function does not come to it."""
    divides = getattr(node, "op", "") in ("floordiv", "mod", "truncdiv", "truncmod")
    return divides and not node.dtype.is_float


def kernel(
    function: Callable[..., Any] | None = None,
    *,
    shape: Any = None,
    dtype: Any = None,
    gradient: Callable[..., Any] | None = None,
) -> Any:
    """A decorator: the operator `out[i, j, …] = function(i, j, …, *operands)`.

    shape: of the result, a tuple or a function of the operands (default: the first operand's);
    dtype: of the result (default: that of the operands); gradient: (g, *operands) -> a gradient
    (or None) for each operand, in functions of metaop.

        @mo.kernel(shape=lambda x, w: (x.shape[0] - w.shape[0] + 1,))
        def smoothed(i, x, w):
            total = 0.0
            for r in range(w.shape[0]):
                total += x[i + r] * w[r]
            return total

    If the function can be called on symbols, as this one, it becomes meta-operators: fused, and
    differentiated to any order; what it reads outside an operand is 0 there.  Its ifs may depend on
    values: both ways are computed, and chosen from.  Else, as with a loop that a value ends, Numba
    compiles it, with IndexError for reads outside; only a given `gradient` differentiates it.
    """
    if function is None:
        return functools.partial(kernel, shape=shape, dtype=dtype, gradient=gradient)
    return Kernel(function, shape, dtype, gradient)


class _WithGradient(Function):
    """A value with a gradient that the user wrote."""

    def __init__(self, value: Callable[[list[Var]], Var], gradient: Callable[..., Any]):
        self.value, self.gradient = value, gradient
        self.operands: tuple[Var, ...] = ()

    def execute(self, *operands: Var) -> Var:
        """The value, of operands that are kept."""
        self.operands = operands
        return self.value(list(operands))

    def grad(self, g: Var) -> Any:
        """The user's gradient."""
        return self.gradient(g, *self.operands)


_loops: dict[Any, Any] = {}


def _loop_of(function: Callable[..., Any], rank: int, operands: int) -> Any:
    """The compiled loops around a function."""
    known = (code_key(function) or function, rank, operands)
    if known not in _loops:
        import numba  # a third of a second, only for who needs it

        indices = [f"i{k}" for k in range(rank)]
        names = [f"a{k}" for k in range(operands)]
        lines = [f"def loop(out{''.join(f', {n}' for n in names)}):"]
        for k, index in enumerate(indices):
            lines.append(f"{'    ' * (k + 1)}for {index} in range(out.shape[{k}]):")
        place = ", ".join(indices) or "()"
        lines.append(
            f"{'    ' * (rank + 1)}out[{place}] = function({', '.join([*indices, *names])})"
        )
        scope = {"function": numba.njit(boundscheck=True)(function)}
        exec("\n".join(lines), scope)
        _loops[known] = numba.njit(boundscheck=True)(scope["loop"])
    return _loops[known]


def _run_loop(loop: Any, shape: Shape, dtype: DType, *arrays: np.ndarray) -> np.ndarray:
    out = np.empty(shape, dtype.compute.storage)
    loop(out, *arrays)
    if dtype is dt.bfloat16:
        raise DTypeError("a compiled kernel cannot return bfloat16; return float32 and cast")
    return out


def code_key(function: Any, seen: tuple[Any, ...] = ()) -> Any:
    """What a function computes: its bytecode, constants and, recursively, what it reads from
    outside; None if that holds anything but modules, numbers, strings and such functions."""
    code = getattr(function, "__code__", None)
    if code is None or function in seen:
        return ("recursion", seen.index(function)) if function in seen else None
    seen = (*seen, function)
    cells = function.__closure__ or ()
    outside: list[tuple[str, Any]] = [
        (name, cell.cell_contents) for name, cell in zip(code.co_freevars, cells)
    ]
    names = [n for n in _names(code) if n in function.__globals__]
    outside += [(n, function.__globals__[n]) for n in names]
    parts = [(name, _value_key(value, seen)) for name, value in outside]
    parts += [("default", _value_key(v, seen)) for v in function.__defaults__ or ()]
    constants = tuple(_constant_key(c) for c in code.co_consts)
    if any(key is None for _, key in parts) or None in constants:
        return None
    return (code.co_code, constants, code.co_names, tuple(parts))


def _names(code: types.CodeType) -> list[str]:
    """The names that a function and the functions inside it read."""
    inner = [n for c in code.co_consts if isinstance(c, types.CodeType) for n in _names(c)]
    return list(dict.fromkeys([*code.co_names, *inner]))


def _constant_key(value: Any) -> Any:
    if isinstance(value, types.CodeType):
        inner = tuple(_constant_key(c) for c in value.co_consts)
        return None if None in inner else ("code", value.co_code, inner, value.co_names)
    return ("constant", type(value).__name__, repr(value))


def _value_key(value: Any, seen: tuple[Any, ...]) -> Any:
    if isinstance(value, types.ModuleType):
        return ("module", value.__name__)
    if isinstance(value, bool | int | float | str | bytes | type(None)):
        return ("value", type(value).__name__, repr(value))
    if isinstance(value, types.BuiltinFunctionType):
        return ("builtin", value.__module__, value.__qualname__)
    if isinstance(value, types.FunctionType):
        return code_key(value, seen)
    compiled = getattr(value, "py_func", None)  # a function that the user gave to Numba
    if isinstance(compiled, types.FunctionType):
        inner = code_key(compiled, seen)
        return None if inner is None else ("numba", repr(value.targetoptions), inner)
    return None


# ------------------------------------------------------------------------------------- NumPy code


def numpy_code(
    shape: Any,
    dtype: Any,
    inputs: Sequence[Any],
    forward: Callable[[Any, dict[str, Any]], object],
    backward: Sequence[Callable[[Any, dict[str, Any]], object]] | None = None,
) -> Any:
    """An operator in NumPy (as Jittor's numpy_code): forward(np, data) fills data["outputs"] from
    data["inputs"], arrays of the given shape and dtype.

    shape, dtype: of the result, or lists of several; backward: one function for each input, which
    fills data["outputs"][0] with its gradient from data["dout"], the gradient of result number
    data["out_index"], data["f_outputs"] and data["inputs"].  It is differentiated once.
    """
    several = isinstance(dtype, list | tuple)
    shapes = [tuple(s) for s in shape] if several else [shape_of((shape,))]
    dtypes = [as_dtype(d) for d in (dtype if several else [dtype])]
    vars = [as_var(v) for v in inputs]
    packing = Packing(list(zip(shapes, dtypes)))

    def run(*arrays: np.ndarray) -> np.ndarray:
        outputs = [np.zeros(s, d.storage) for s, d in packing.kinds]
        forward(np, {"inputs": list(arrays), "outputs": outputs})
        return packing.pack(outputs)

    def gradient(node: Escape, g: Node) -> list[Node | None]:
        if backward is None or len(backward) != len(vars):
            raise DTypeError(f"numpy_code: one backward function for each of {len(vars)} inputs")
        results, flows = packing.unpack(node), packing.unpack(g)
        found: list[Node | None] = []
        for rule, source in zip(backward, node.inputs):
            found.append(_numpy_gradient(rule, source, results, flows, node.inputs))
        return found

    node = Escape(
        "numpy_code", run, (packing.starts[-1],), packing.dtype, *(v._node for v in vars),
        gradient=gradient,
    )  # fmt: skip
    results = packing.unpack(node)
    return results if several else results[0]


def _numpy_gradient(
    rule: Callable[[Any, dict[str, Any]], object],
    source: Node,
    results: list[Var],
    flows: list[Var],
    inputs: Sequence[Node],
) -> Node | None:
    """The gradient of one input: the sum of what the rule makes of every result's gradient."""
    if not source.dtype.is_float:
        return None
    count = len(results)
    kind = (source.shape, source.dtype)

    def run(*arrays: np.ndarray) -> np.ndarray:
        total = np.zeros(kind[0], kind[1].storage)
        for k in range(count):
            out = np.zeros(kind[0], kind[1].storage)
            rule(np, {
                "inputs": list(arrays[2 * count :]), "f_outputs": list(arrays[:count]),
                "dout": arrays[count + k], "out_index": k, "outputs": [out],
            })  # fmt: skip
            total += out
        return total

    given = (*(v._node for v in results), *(v._node for v in flows), *inputs)
    return Escape("gradient of numpy_code", run, *kind, *given)
