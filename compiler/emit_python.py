"""The Python printer: a scheduled kernel as plain Python that runs under CPython.

Vector loops and unrolled loops print as the scalar loops that they mean.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from metaop import dtype as dt
from metaop.dtype import DType
from metaop.errors import CompilerBug
from metaop.index import TRUE, show

from .loops import (
    Apply,
    Check,
    Condition,
    Const,
    Fetch,
    For,
    Grid,
    IndexValue,
    Init,
    Kernel,
    Last,
    Let,
    Load,
    Op,
    Ref,
    Stmt,
    Store,
    Update,
    Value,
    functions_of,
    statements,
)

HEADER = "from metaop.compiler.python_kernels import *\n"

_INFIX = {
    "add": "+", "sub": "-", "mul": "*", "div": "/", "lt": "<", "le": "<=", "gt": ">", "ge": ">=",
    "eq": "==", "ne": "!=", "logical_and": "&", "logical_or": "|", "logical_xor": "^",
    "bitand": "&", "bitor": "|", "bitxor": "^", "shl": "<<", "shr": ">>",
}  # fmt: skip
_COMBINE = {
    "add": "{0} + {1}", "multiply": "{0} * {1}", "maximum": "maximum({0}, {1})",
    "minimum": "minimum({0}, {1})", "logical_and": "{0} & {1}", "logical_or": "{0} | {1}",
    "bitwise_and": "{0} & {1}", "bitwise_or": "{0} | {1}", "bitwise_xor": "{0} ^ {1}",
    "fma": "fma({1}, {2}, {0})",
}  # fmt: skip
_PREFIX = {
    "neg": "-{0}", "invert": "~{0}", "logical_not": "~{0}", "copy": "{0}", "again": "{0}",
    "barrier": "{0}",
}  # fmt: skip


def emit_python(kernel: Kernel, comment: str = "") -> str:
    """The source of a function `name(buffers, integers, chunk=0, chunks=1)`, behind that of the
    user's functions that it calls."""
    return _Printer(kernel).source(comment)


def type_name(dtype: DType) -> str:
    """The name of a dtype in a printed kernel; bfloat16 is stored as u16."""
    return "bool_" if dtype is dt.bool_ else "u16" if dtype is dt.bfloat16 else dtype.short


class _Printer:
    def __init__(self, kernel: Kernel):
        self.kernel = kernel
        self.sizes = kernel.extents
        self.declared: set[str] = set()

    def source(self, comment: str) -> str:
        names = [p.name for p in self.kernel.buffers] + self.kernel.integers
        called = dict.fromkeys(part.function.source for part in functions_of(self.kernel))
        lines = [source + "\n\n" for source in called]
        lines += [f"def {self.kernel.name}({', '.join(names)}, chunk=0, chunks=1):"]
        types = ", ".join(f"{p.name}: {p.dtype.short}" for p in self.kernel.buffers)
        lines.append(f"    # {types}")
        lines += [f"    # {line}" for line in comment.splitlines()]
        lines += [
            f"    {a.name} = scratch({type_name(a.dtype)}, {show(a.elements)})"
            for a in self.kernel.scratch
        ]
        lines += self.body(self.kernel.body, "    ")
        return "\n".join(lines) + "\n"

    def body(self, body: list[Stmt], indent: str) -> list[str]:
        lines = [line for stmt in body for line in self.statement(stmt, indent)]
        return lines or [indent + "pass"]

    def statement(self, stmt: Stmt, indent: str) -> Iterator[str]:
        match stmt:
            case Grid():
                loops = ", ".join(f"i{k}" for k in stmt.loops) or "_"
                extents = "".join(f", {show(e)}" for e in stmt.extents)
                yield f"{indent}for {loops} in grid(chunk, chunks{extents}):  # parallel"
                yield from self.body(stmt.body, indent + "    ")
            case Last():
                yield f"{indent}if last({stmt.counter}, chunks):"
                yield from self.body(stmt.body, indent + "    ")
            case For():
                yield from self.loop(stmt, indent)
            case Let():
                yield f"{indent}{self.subscripted(stmt)} = {self.value(stmt.value)}"
            case Init():
                start = f'identity("{stmt.op}", {type_name(stmt.dtype)})'
                yield f"{indent}{self.subscripted(stmt)} = {start}"
            case Update():
                name = self.subscripted(stmt)
                values = [self.value(v) for v in stmt.values]
                if stmt.guard != TRUE:
                    yield f"{indent}if {show(stmt.guard)}:"
                    indent += "    "
                yield f"{indent}{name} = {_COMBINE[stmt.op].format(name, *values)}"
            case Fetch():
                yield f"{indent}# fetch {stmt.buffer}[{show(stmt.offset)}]"
            case Store():
                yield from self.store(stmt, indent)

    def loop(self, stmt: For, indent: str) -> Iterator[str]:
        if stmt.how == "unroll":
            yield from self.declare(stmt, indent)
        bounds = show(stmt.stop) if stmt.start == 0 else f"{show(stmt.start)}, {show(stmt.stop)}"
        note = f"  # {stmt.how}" if stmt.how in ("vector", "unroll") else ""
        values = f"range({bounds})" if stmt.how != "reverse" else f"reversed(range({bounds}))"
        yield f"{indent}for i{stmt.loop} in {values}:{note}"
        yield from self.body(stmt.body, indent + "    ")

    def declare(self, stmt: For, indent: str) -> Iterator[str]:
        """Lists for the names that are indexed by unrolled loops."""
        for inner in statements([stmt]):
            if isinstance(inner, Let | Init) and inner.dims and inner.dims[0] == stmt.loop:
                text = "None"
                for k in reversed(inner.dims):
                    text = f"[{text} for _ in range({self.sizes[k]})]"
                yield f"{indent}{inner.name} = {text}"

    def store(self, stmt: Store, indent: str) -> Iterator[str]:
        if stmt.guard != TRUE:
            yield f"{indent}if {show(stmt.guard)}:"
            indent += "    "
        place = f"{stmt.buffer}[{show(stmt.offset)}]"
        value = self.value(stmt.value)
        past = f"  # past the caches if {show(stmt.past)}" if stmt.past != 0 else ""
        new = _COMBINE[stmt.op].format(place, value) if stmt.op else value
        yield f"{indent}{place} = {new}{past}"

    @staticmethod
    def subscripted(named: Any) -> str:
        return named.name + "".join(f"[i{k}]" for k in named.dims)

    def value(self, value: Value) -> str:
        match value:
            case Load():
                text = f"{value.buffer}[{show(value.offset)}]"
                if value.guard == TRUE:
                    return text
                return (
                    f"({text} if {show(value.guard)} else {self.number(value.fill, value.dtype)})"
                )
            case Const():
                return self.number(value.value, value.dtype)
            case IndexValue():
                return f"i64({show(value.expr)})"
            case Condition():
                return f"bool_({show(value.expr)})"
            case Ref():
                return self.subscripted(value)
            case Check():
                parts = map(show, (value.low, value.high, value.number, value.guard))
                return f"check({self.value(value.value)}, {', '.join(parts)})"
            case Apply():
                return self.application(value)
            case Op():
                return self.operator(value)
        raise CompilerBug(f"cannot print {value!r}")

    @staticmethod
    def number(number: Any, dtype: DType) -> str:
        if dtype is dt.bfloat16:
            return f"to_bfloat16({float(number)!r})"
        return f"{type_name(dtype)}({number!r})"

    def application(self, value: Apply) -> str:
        plain = ("float" if a.dtype.is_float else "int" for a in value.args)
        args = ", ".join(f"{kind}({self.value(a)})" for kind, a in zip(plain, value.args))
        text = f"cast({value.function.name}({args}), {type_name(value.dtype)})"
        if value.guard == TRUE:
            return text
        return f"({text} if {show(value.guard)} else {self.number(0, value.dtype)})"

    def operator(self, value: Op) -> str:
        args = [self.value(a) for a in value.args]
        if value.name == "cast":
            source = value.args[0].dtype
            if source is dt.bfloat16:
                return f"from_bfloat16({args[0]})"
            if value.dtype is dt.bfloat16:
                return f"to_bfloat16({args[0]})"
            return f"cast({args[0]}, {type_name(value.dtype)})"
        if value.name == "bitcast":
            return f"bitcast({args[0]}, {type_name(value.dtype)})"
        if value.name == "where":
            return f"({args[1]} if {args[0]} else {args[2]})"
        if value.name in _INFIX:
            return f"({args[0]} {_INFIX[value.name]} {args[1]})"
        if value.name in _PREFIX:
            return f"({_PREFIX[value.name].format(args[0])})"
        return f"{value.name}({', '.join(args)})"


def load_python(kernel: Kernel) -> Any:
    """The printed kernel as a Python function."""
    namespace: dict[str, Any] = {}
    exec(compile(HEADER + emit_python(kernel), f"<{kernel.name}>", "exec"), namespace)
    return namespace[kernel.name]


def run_python(kernel: Kernel, buffers: list[np.ndarray], integers: list[int]) -> None:
    """Runs the printed kernel on flat arrays."""
    with np.errstate(all="ignore"):
        load_python(kernel)(*buffers, *integers)
