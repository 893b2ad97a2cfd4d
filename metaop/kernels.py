"""Operators that a user writes as a Python function of an index, or as NumPy code.

`kernel` calls the function once on symbols: where that works it becomes meta-operators, fused with
its neighbours and differentiated (`metaop.branches`: ifs on values, too).  Where it does not (a
loop that ends when a value says so), Numba compiles the function.  One whose reads do not depend on
values is a function of numbers (`metaop.scalar_code`), compiled into the kernels around it and
differentiated on its source; any other stands as a host callback between kernels.
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from . import dtype as dt
from .branches import explored
from .build import cast, full
from .control import Packing
from .dtype import DType, as_dtype
from .errors import DTypeError, NotScalar, ShapeError, describe
from .extent import map_extents
from .function import Function
from .graph import Apply, Escape, IndexOf, Node, Piece, Reindex, Shape, identity_indices, pending
from .index import TRUE, Expr, Index, as_index, as_integer, show, simplify, within
from .movement import shape_of
from .notation import Indexed, axes
from .placeholder import as_var
from .var import Var

if TYPE_CHECKING:
    from .scalar_code import ScalarForm

# Nodes that a traced function may make of one element: more would be a loop that Numba runs better.
TRACED_NODES = 400
MOST_REMEMBERED = 1024  # functions of which is known what they become


class Kernel:
    """What `mo.kernel` makes of a function; calling it on Vars returns a Var."""

    def __init__(self, function: Callable[..., Any], shape: Any, dtype: Any, gradient: Any):
        self.function, self.shape, self.dtype, self.gradient = function, shape, dtype, gradient
        self.name = getattr(function, "__name__", "kernel")
        functools.update_wrapper(self, function)

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
        if traced is not None:
            return traced
        try:
            return self._applied(shape, vars)
        except NotScalar as reason:
            return self._compiled(shape, vars, str(reason))

    def _shape(self, vars: list[Var]) -> Shape:
        shape = self.shape
        if shape is None:
            shape = vars[0].shape
        elif callable(shape):
            shape = shape(*vars)
        return shape_of((shape,) if hasattr(shape, "__index__") else (tuple(shape),))

    def _traced(self, shape: Shape, vars: list[Var]) -> Var | None:
        """As meta-operators, if the function can be called on symbols."""
        key = code_key(self.function)
        kinds = (key, shape, *((v.shape, v.dtype) for v in vars))
        if kinds in _untraceable:
            return None
        found = self._symbolic(shape, vars)
        if found is None and key is not None and len(_untraceable) < MOST_REMEMBERED:
            _untraceable.add(kinds)
        return found

    def _symbolic(self, shape: Shape, vars: list[Var]) -> Var | None:
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

    def _applied(self, shape: Shape, vars: list[Var]) -> Var:
        """As an element of kernels: a function of numbers, compiled into them.

        Raises NotScalar if it is none, or may read outside of an operand.
        """
        form = _form_of(self.function, len(shape))
        inputs: list[Node] = [IndexOf(shape, k) for k in form.loops]
        inputs += [self._read(shape, vars, number, code) for number, code in form.reads]
        for number, axis in form.extents:
            inputs.append(full(vars[number].shape[axis], shape, dt.int64))
        if not inputs:
            raise NotScalar("it reads nothing")
        kind = self._result_dtype([v._node for v in vars])
        return Var._of(Apply(form.function, kind, *inputs))

    def _read(self, shape: Shape, vars: list[Var], number: int, code: types.CodeType) -> Node:
        """What the function reads of an operand: an element for each element of the result."""
        source = vars[number]._node
        names = list(inspect.signature(self.function).parameters)
        scope = dict(zip(names, [*(Index(("i", k)) for k in range(len(shape))), *vars]))
        try:
            key = eval(code, {"__builtins__": {}}, scope)
            keys = key if isinstance(key, tuple) else (key,)
            indices = tuple(as_integer(as_index(k)) for k in keys)
        except Exception as error:
            raise NotScalar(f"it reads {names[len(shape) + number]}: {error}") from None
        if not _surely_inside(indices, source.shape, shape):
            at = ", ".join(map(show, indices))
            raise NotScalar(f"it may read outside of {describe(source)}, at [{at}]")
        if source.shape == shape and indices == identity_indices(len(shape)):
            return source
        return Reindex(shape, (Piece(0, indices),), source)

    def _compiled(self, shape: Shape, vars: list[Var], reason: str) -> Var:
        nodes = [cast(v._node, v.dtype.compute) for v in vars]
        kind = self._result_dtype(nodes)
        loop = _loop_of(self.function, len(shape), len(nodes))
        call = functools.partial(_run_loop, loop, shape, kind)
        own = code_key(self.function)
        key = None if own is None else ("kernel", own, shape, kind.name)
        return Var._of(Escape(self.name, call, shape, kind, *nodes, key=key, reason=reason))

    def _result_dtype(self, nodes: list[Node]) -> DType:
        if self.dtype is not None:
            return as_dtype(self.dtype)
        floats = [n.dtype for n in nodes if n.dtype.is_float]
        if floats:
            return dt.float64 if dt.float64 in floats else dt.float32
        return nodes[0].dtype if nodes else dt.float32


def _form_of(function: Callable[..., Any], rank: int) -> ScalarForm:
    """As `scalar_form`, which reads source, once."""
    from .scalar_code import scalar_form  # reads source: loads for who needs it

    computed = code_key(function)
    if computed is None:
        return scalar_form(function, rank)
    key = (computed, function.__code__.co_varnames, rank)
    form = _forms.get(key)
    if form is None:
        form = scalar_form(function, rank)
        if len(_forms) < MOST_REMEMBERED:
            _forms[key] = form
    return form


_forms: dict[Any, ScalarForm] = {}
_untraceable: set[Any] = set()  # functions, with shapes and dtypes, that end in no meta-operators


def _surely_inside(indices: tuple[Expr, ...], shape: Shape, loops: Shape) -> bool:
    """True if a read at these indices is within the shape for all loops, of these sizes."""
    if len(indices) != len(shape):
        return False
    numbers = [map_extents(e, int) for e in indices]
    return simplify(within(numbers, list(map(int, shape))), tuple(map(int, loops))) == TRUE


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
    values: both ways are computed, and chosen from.

    Else, as with a loop that a value ends, Numba compiles it, with Python's arithmetic: float64 and
    int64, ZeroDivisionError.  If it reads within the operands, at indices that no value decides, it
    is part of the kernels around it, and is differentiated (in the ways it takes; equal arguments
    of min and max share the gradient).  Else, or if it has what a kernel cannot hold (arrays of its
    own, raise), it is a host callback, which `mo.explain` gives the reason for: with IndexError for
    reads outside, and without a gradient but a given one.
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
    """What a function is: its name, bytecode, constants and, recursively, what it reads from
    outside; None if that holds anything but modules, numbers, strings and such functions."""
    code = getattr(function, "__code__", None)
    if code is None or function in seen:
        return ("recursion", seen.index(function)) if function in seen else None
    seen = (*seen, function)
    cells = function.__closure__ or ()
    outside: list[tuple[str, Any]] = [
        (name, cell.cell_contents) for name, cell in zip(code.co_freevars, cells)
    ]
    names = _names(code)
    outside += [(n, function.__globals__[n]) for n in names if n in function.__globals__]
    outside += _of_modules([value for _, value in outside], names)
    parts = [(name, _value_key(value, seen)) for name, value in outside]
    parts += [("default", _value_key(v, seen)) for v in function.__defaults__ or ()]
    constants = tuple(_constant_key(c) for c in code.co_consts)
    if any(key is None for _, key in parts) or None in constants:
        return None
    return (function.__name__, code.co_code, constants, code.co_names, tuple(parts))


def _of_modules(values: list[Any], names: list[str]) -> list[tuple[str, Any]]:
    """What modules have under the names that a function reads; math and NumPy do not change."""
    found: list[tuple[str, Any]] = []
    for module in values:
        if isinstance(module, types.ModuleType) and module.__name__.split(".")[0] not in _FIXED:
            own = [(n, getattr(module, n)) for n in names if hasattr(module, n)]
            found += own + _of_modules([v for _, v in own if v is not module], names)
    return found


_FIXED = ("math", "numpy", "operator", "builtins", "metaop", "numba")


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
