"""Functions of numbers that users wrote, as LLVM assembly that kernels call: `loops.Apply`.

    Python source --Numba--> LLVM assembly, linked with that of the functions of floats it calls

Floats are float64, integers int64; a kernel converts what it passes and gets.  Functions such as
exp are those of `vecmath`, as everywhere.  The function returns 0, or another status where it
divides by zero: it can raise nothing else (`metaop.scalar_code`).
"""

from __future__ import annotations

import ctypes
import functools
import math
from types import FunctionType
from typing import Any, NamedTuple

import llvmlite.binding as llvm
from llvmlite import ir

from metaop import dtype as dt
from metaop.dtype import DType, as_dtype
from metaop.errors import DTypeError
from metaop.graph import ScalarFunction

from .llvm_ops import DOUBLE, I8, I32, Builder, memory_type
from .loops import Apply
from .python_kernels import SCALAR_FUNCTIONS

PREFIX = "metaop_"  # of the names of functions of floats in assembly


class Code(NamedTuple):
    """Assembly that defines int32 `symbol`(places for the result and an exception, argument, …)."""

    symbol: str
    assembly: str
    arguments: tuple[DType, ...]
    result: DType

    def declared(self, module: Any) -> Any:
        """The function as one that a module calls."""
        known = module.globals.get(self.symbol)
        if known is not None:
            return known
        places = [memory_type(self.result).as_pointer(), I8.as_pointer().as_pointer()]
        kind = ir.FunctionType(I32, [*places, *map(memory_type, self.arguments)])
        return ir.Function(module, kind, self.symbol)


def wide(dtype: DType) -> DType:
    """The dtype in which a function gets a number."""
    if dtype.is_float:
        return dt.float64
    return dtype if dtype is dt.uint64 else dt.int64


def code_of(value: Apply) -> Code:
    """The code of a function for the dtypes of its arguments.

    Raises DTypeError if Numba cannot type it.
    """
    return _code(value.function, tuple(wide(a.dtype) for a in value.args))


@functools.lru_cache(maxsize=256)
def _code(function: ScalarFunction, arguments: tuple[DType, ...]) -> Code:
    import numba

    scope = {**_functions_of_floats(), "inf": math.inf, "nan": math.nan}
    exec(function.source, scope)
    options: dict[str, Any] = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    for name, made in list(scope.items()):
        if isinstance(made, FunctionType):
            scope[name] = numba.njit(**options)(made)
    main: Any = scope[function.name]
    failure = ""
    try:
        main.compile(tuple(getattr(numba.types, a.name) for a in arguments))
    except numba.core.errors.NumbaError as error:
        failure = str(error)
    if failure:  # raised here, without Numba's error, which would keep the frames of the caller
        raise DTypeError(f"{function.label}: Numba cannot compile it: {failure}")
    (made,) = main.overloads.values()
    result = getattr(made.signature.return_type, "name", "")
    try:
        kind = as_dtype(result)
    except (DTypeError, TypeError):
        raise DTypeError(f"{function.label}: it returns {result}, not a number") from None
    symbol = ".".join([function.name, *(a.short for a in arguments)])
    text = _renamed(made.library.get_llvm_str(), made.fndesc.mangled_name, symbol)
    return Code(symbol, text, arguments, kind)


def _renamed(assembly: str, name: str, symbol: str) -> str:
    """Numba's function under another name, with the functions of floats that it calls."""
    module = llvm.parse_assembly(assembly)
    called = [f.name for f in module.functions if f.name.startswith(PREFIX)]
    own = llvm.parse_assembly(_of_floats(called))
    own.triple, own.data_layout = module.triple, module.data_layout
    module.link_in(own)
    for part in (*module.functions, *module.global_variables):
        if not part.is_declaration and part.name != name:
            part.linkage = llvm.Linkage.internal
    module.get_function(name).name = symbol
    return str(module)


def _of_floats(symbols: list[str]) -> str:
    """Assembly that defines functions of float64, those of `llvm_ops`."""
    module = ir.Module("functions")
    for symbol in symbols:
        name = symbol.removeprefix(PREFIX)
        arity = SCALAR_FUNCTIONS["math_" + name]
        function = ir.Function(module, ir.FunctionType(DOUBLE, [DOUBLE] * arity), symbol)
        raw = ir.IRBuilder(function.append_basic_block("entry"))
        builder = Builder(raw)
        operator = {"fabs": "abs"}.get(name, name)
        found = builder.elementwise(operator, list(function.args), dt.float64)
        raw.ret(found if found.type == DOUBLE else raw.uitofp(found, DOUBLE))
    return str(module)


@functools.cache
def _functions_of_floats() -> dict[str, Any]:
    """The names of `python_kernels.SCALAR_FUNCTIONS` for Numba: functions that are defined later.

    Numba loads what it compiles; nothing calls it there, so that any address will do.
    """
    from numba import types

    nowhere = ctypes.cast(ctypes.pythonapi.Py_IsInitialized, ctypes.c_void_p).value
    found = {}
    for name, arity in SCALAR_FUNCTIONS.items():
        symbol = PREFIX + name.partition("_")[2]
        llvm.add_symbol(symbol, nowhere)
        signature = types.float64(*[types.float64] * arity)
        found[name] = types.ExternalFunction(symbol, signature)
    return found
