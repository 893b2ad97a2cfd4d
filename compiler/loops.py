"""The loop IR: one kernel is one scheduled nest of loops, printed by two printers.

    kernel ::= Kernel(name, buffers, integers, body, scratch)
                                                 scratch: arrays of one thread, undefined at first
    stmt   ::= Grid(loops, extents, body)         the iterations that chunks of work share out
             | For(loop, start, stop, how, body)  how: serial | reverse | vector | unroll
             | Let(name, dims, value)             a name; one per element of the unrolled dims
             | Init(name, dims, op, dtype)        an accumulator at its identity
             | Update(name, dims, op, value, guard)   accumulator op= value if guard
                                                 (op fma: value is (a, b))
             | Store(buffer, offset, value, op)   buffer[offset] = value, or op= value
             | Fetch(buffer, offset)              asks for memory that is read soon
             | Last(counter, body)                once, after the grid, when all chunks are done
    value  ::= Load(buffer, offset, guard, fill)  buffer[offset] if guard else fill
             | Const(value) | Op(name, args) | IndexValue(e) | Condition(c) | Ref(name, dims)
             | Check(value, low, high, number, guard)   reports a value outside low <= v < high
             | Apply(function, args, number, guard)  a user's function, called only if guard; a
                                                 division by zero in it is reported
    e, c   ::= the index expressions of metaop.index over loops ("i", k), integers ("val", name)

The meaning is that of scalar loops; a reverse one begins with its last iteration.  `how` says what
the machine printer makes of a loop: a vector loop runs 16 iterations at a time; an accumulator
initialised outside a vector loop and updated inside it has one lane per iteration, which are
combined in a fixed tree when it is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

from metaop import dtype as dt
from metaop.dtype import DType
from metaop.errors import CompilerBug
from metaop.graph import ScalarFunction
from metaop.index import (
    TRUE,
    Expr,
    children,
    conditions_of,
    contains,
    evaluate,
    fit_32_bits,
    integers_of,
    loops_of,
    show,
    transform,
)

LANES = 16
LONGEST_STEP = 4  # of 16 elements that are read as whole vectors
MOST_COPIES = 4  # of a lane accumulator, to hide the latency of its update


class Value:
    """An expression over scalars; immutable, shared within one nest."""

    __slots__ = ("dtype",)
    dtype: DType

    @property
    def args(self) -> tuple[Value, ...]:
        """The values this one is computed from."""
        return ()

    @property
    def indices(self) -> tuple[Expr, ...]:
        """The index expressions and conditions in this value."""
        return ()

    def rebuild(self, args: tuple[Value, ...], index: Callable[[Expr], Expr]) -> Value:
        """This value with other arguments and its index expressions mapped."""
        return self


class Load(Value):
    """buffer[offset] if guard else fill."""

    __slots__ = ("buffer", "offset", "guard", "fill")

    def __init__(self, buffer: str, offset: Expr, guard: Expr, fill: Any, dtype: DType):
        self.buffer, self.offset, self.guard, self.fill = buffer, offset, guard, fill
        self.dtype = dtype

    @property
    def indices(self) -> tuple[Expr, ...]:
        return (self.offset, self.guard)

    def rebuild(self, args: tuple[Value, ...], index: Callable[[Expr], Expr]) -> Value:
        return Load(self.buffer, index(self.offset), index(self.guard), self.fill, self.dtype)


class Const(Value):
    """A literal."""

    __slots__ = ("value",)

    def __init__(self, value: Any, dtype: DType):
        self.value, self.dtype = value, dtype


class Op(Value):
    """One elementwise operator on scalars."""

    __slots__ = ("name", "_args")

    def __init__(self, name: str, args: tuple[Value, ...], dtype: DType):
        self.name, self._args, self.dtype = name, args, dtype

    @property
    def args(self) -> tuple[Value, ...]:
        return self._args

    def rebuild(self, args: tuple[Value, ...], index: Callable[[Expr], Expr]) -> Value:
        return Op(self.name, args, self.dtype)


class IndexValue(Value):
    """An index expression as an int64."""

    __slots__ = ("expr",)

    def __init__(self, expr: Expr):
        self.expr, self.dtype = expr, dt.int64

    @property
    def indices(self) -> tuple[Expr, ...]:
        return (self.expr,)

    def rebuild(self, args: tuple[Value, ...], index: Callable[[Expr], Expr]) -> Value:
        return IndexValue(index(self.expr))


class Condition(Value):
    """A condition on indices as a bool."""

    __slots__ = ("expr",)

    def __init__(self, expr: Expr):
        self.expr, self.dtype = expr, dt.bool_

    @property
    def indices(self) -> tuple[Expr, ...]:
        return (self.expr,)

    def rebuild(self, args: tuple[Value, ...], index: Callable[[Expr], Expr]) -> Value:
        return Condition(index(self.expr))


class Check(Value):
    """value; reported with the number of the check, and 0 instead, if guard and not in bounds."""

    __slots__ = ("value", "low", "high", "number", "guard")

    def __init__(self, value: Value, low: Expr, high: Expr, number: Expr, guard: Expr):
        self.value, self.low, self.high = value, low, high
        self.number, self.guard, self.dtype = number, guard, value.dtype

    @property
    def args(self) -> tuple[Value, ...]:
        return (self.value,)

    @property
    def indices(self) -> tuple[Expr, ...]:
        return (self.guard,)

    def rebuild(self, args: tuple[Value, ...], index: Callable[[Expr], Expr]) -> Value:
        low, high = index(self.low), index(self.high)
        return Check(args[0], low, high, self.number, index(self.guard))


class Apply(Value):
    """function(*args) where the guard holds, else 0: a function that a user wrote, which need not
    end for other arguments; reported with the number of the check if it divides by zero."""

    __slots__ = ("function", "_args", "number", "guard")

    def __init__(
        self,
        function: ScalarFunction,
        args: tuple[Value, ...],
        number: Expr,
        guard: Expr,
        dtype: DType,
    ):
        self.function, self._args, self.dtype = function, args, dtype
        self.number, self.guard = number, guard

    @property
    def args(self) -> tuple[Value, ...]:
        return self._args

    @property
    def indices(self) -> tuple[Expr, ...]:
        return (self.guard,)

    def rebuild(self, args: tuple[Value, ...], index: Callable[[Expr], Expr]) -> Value:
        return Apply(self.function, args, self.number, index(self.guard), self.dtype)


class Ref(Value):
    """The value of a Let or an accumulator; dims are the unrolled loops it is indexed by."""

    __slots__ = ("name", "dims")

    def __init__(self, name: str, dims: tuple[int, ...], dtype: DType):
        self.name, self.dims, self.dtype = name, dims, dtype


def rewrite(value: Value, index: Callable[[Expr], Expr], memo: dict[Value, Value]) -> Value:
    """value with every index expression mapped; shared parts stay shared."""
    known = memo.get(value)
    if known is None:
        args = tuple([rewrite(a, index, memo) for a in value.args])
        known = memo[value] = value.rebuild(args, index)
    return known


# ----------------------------------------------------------------------------------- statements


class Stmt:
    """A statement of the loop IR."""

    __slots__ = ()


class Grid(Stmt):
    """Loops whose iterations, in row-major order, are shared out in chunks."""

    __slots__ = ("loops", "extents", "body")

    def __init__(self, loops: tuple[int, ...], extents: tuple[Expr, ...], body: list[Stmt]):
        self.loops, self.extents, self.body = loops, extents, body


class For(Stmt):
    """for i(loop) in range(start, stop)."""

    __slots__ = ("loop", "start", "stop", "how", "body")

    def __init__(self, loop: int, start: Expr, stop: Expr, how: str, body: list[Stmt]):
        self.loop, self.start, self.stop, self.how, self.body = loop, start, stop, how, body


class Let(Stmt):
    """name[dims] = value."""

    __slots__ = ("name", "dims", "value")

    def __init__(self, name: str, dims: tuple[int, ...], value: Value):
        self.name, self.dims, self.value = name, dims, value


class Init(Stmt):
    """accumulator name[dims] = identity of op; one that is updated in lanes has so many copies, to
    which whole vectors are added in turn."""

    __slots__ = ("name", "dims", "op", "dtype", "copies")

    def __init__(self, name: str, dims: tuple[int, ...], op: str, dtype: DType,
                 copies: int = MOST_COPIES):  # fmt: skip
        self.name, self.dims, self.op, self.dtype = name, dims, op, dtype
        self.copies = copies


class Update(Stmt):
    """accumulator name[dims] op= value where the guard holds; op "fma" adds the product of two
    values, rounded once."""

    __slots__ = ("name", "dims", "op", "values", "guard")

    def __init__(self, name: str, dims: tuple[int, ...], op: str, values: tuple[Value, ...],
                 guard: Expr = TRUE):  # fmt: skip
        self.name, self.dims, self.op, self.values = name, dims, op, values
        self.guard = guard


class Store(Stmt):
    """buffer[offset] = value, or op= value for a scatter.

    past: if this integer is not 0, whole vectors go past the caches: nothing reads them soon.
    """

    __slots__ = ("buffer", "offset", "value", "op", "guard", "past")

    def __init__(self, buffer: str, offset: Expr, value: Value, op: str | None = None,
                 guard: Expr = TRUE):  # fmt: skip
        self.buffer, self.offset, self.value, self.op = buffer, offset, value, op
        self.guard = guard
        self.past: Expr = 0


class Fetch(Stmt):
    """Asks for memory at buffer[offset], which will be read soon; it need not lie in the buffer."""

    __slots__ = ("buffer", "offset")

    def __init__(self, buffer: str, offset: Expr):
        self.buffer, self.offset = buffer, offset


class Last(Stmt):
    """What runs once when every chunk of the kernel is done, in whichever thread was last.

    counter: an int64 buffer, 0 before the run, that counts chunks.
    """

    __slots__ = ("counter", "body")

    def __init__(self, counter: str, body: list[Stmt]):
        self.counter, self.body = counter, body


class Scratch:
    """An array in memory of the calling thread; stores to it are seen by later loads of the same
    call.  elements: an index expression over the kernel's integers."""

    __slots__ = ("name", "dtype", "elements")

    def __init__(self, name: str, dtype: DType, elements: Expr):
        self.name, self.dtype, self.elements = name, dtype, elements


SCRATCH_ALIGNMENT = 64


class Parameter:
    """A buffer argument of a kernel."""

    __slots__ = ("name", "dtype", "written")

    def __init__(self, name: str, dtype: DType, written: bool):
        self.name, self.dtype, self.written = name, dtype, written


class Kernel:
    """One function: buffers, integer arguments (extents, offsets), a body, scratch arrays."""

    __slots__ = ("name", "buffers", "integers", "extents", "body", "narrow", "scratch",
                 "narrow_conditions")  # fmt: skip

    def __init__(
        self,
        name: str,
        buffers: list[Parameter],
        integers: list[str],
        extents: dict[int, int],
        body: list[Stmt],
        scratch: list[Scratch] | None = None,
    ):
        self.name, self.buffers, self.integers = name, buffers, integers
        self.extents, self.body = extents, body  # extents: the unrolled loops' sizes
        self.narrow = False  # every index fits 32 bits
        self.narrow_conditions = False  # every index that is compared does
        self.scratch = scratch or []

    def fit_32_bits(self, indices: Sequence[Expr], extents: Sequence[int]) -> None:
        """Notes which of its index expressions fit 32 bits, by the extents of its loops."""
        distinct = list(dict.fromkeys(indices))
        self.narrow = fit_32_bits(distinct, extents)
        conditions = conditions_of(distinct)
        self.narrow_conditions = bool(conditions) and (
            self.narrow or fit_32_bits(conditions, extents)
        )

    def scratch_bytes(self, integers: Sequence[int]) -> int:
        """Bytes of scratch memory of one call with these integers."""
        known = dict(zip(self.integers, integers))
        total = 0
        for array in self.scratch:
            elements = transform(array.elements, lambda e: _known_integer(e, known))
            size = evaluate(elements, ()) * array.dtype.itemsize
            total += -(-size // SCRATCH_ALIGNMENT) * SCRATCH_ALIGNMENT
        return total


def _known_integer(e: Expr, known: dict[str, int]) -> Expr | None:
    return known[e[1]] if isinstance(e, tuple) and e[0] == "val" else None


def statements(body: list[Stmt]) -> Iterator[Stmt]:
    """Every statement, outer ones first."""
    for stmt in body:
        yield stmt
        if isinstance(stmt, Grid | For | Last):
            yield from statements(stmt.body)


def values_of(stmt: Stmt) -> tuple[Value, ...]:
    """The values that a statement evaluates."""
    match stmt:
        case Let(value=value) | Store(value=value):
            return (value,)
        case Update(values=values):
            return values
    return ()


def walk(value: Value, seen: set[Value] | None = None) -> Iterator[Value]:
    """value and everything in it, each part once."""
    seen = set() if seen is None else seen
    if value not in seen:
        seen.add(value)
        for arg in value.args:
            yield from walk(arg, seen)
        yield value


def loads_of(body: list[Stmt]) -> list[Load]:
    """Everything that statements load, each load once."""
    seen: set[Value] = set()
    values = [value for stmt in statements(body) for value in values_of(stmt)]
    return [part for v in values for part in walk(v, seen) if isinstance(part, Load)]


def functions_of(kernel: Kernel) -> list[Apply]:
    """An application of each of the user's functions that a kernel calls, for each kind of
    arguments."""
    found: dict[Any, Apply] = {}
    for stmt in statements(kernel.body):
        for value in values_of(stmt):
            for part in walk(value):
                if isinstance(part, Apply):
                    key = (part.function, *(a.dtype for a in part.args))
                    found.setdefault(key, part)
    return list(found.values())


def indices_of(stmt: Stmt) -> list[Expr]:
    """The index expressions of a statement itself, not of those inside."""
    found = [e for value in values_of(stmt) for part in walk(value) for e in part.indices]
    match stmt:
        case Store():
            found += [stmt.offset, stmt.guard]
        case Update():
            found.append(stmt.guard)
        case Fetch():
            found.append(stmt.offset)
        case For():
            found += [stmt.start, stmt.stop]
        case Grid():
            found += stmt.extents
    return found


def accesses_of(stmt: Stmt) -> list[tuple[str, Expr]]:
    """The buffers that a statement itself reads or writes, and where."""
    loads = [part for v in values_of(stmt) for part in walk(v) if isinstance(part, Load)]
    found = [(load.buffer, load.offset) for load in loads]
    return [*found, (stmt.buffer, stmt.offset)] if isinstance(stmt, Store | Fetch) else found


def map_indices(body: list[Stmt], index: Callable[[Expr], Expr]) -> list[Stmt]:
    """The statements with every index expression mapped; shared values stay shared."""
    memo: dict[Value, Value] = {}

    def value(old: Value) -> Value:
        return rewrite(old, index, memo)

    def each(stmt: Stmt) -> Stmt:
        match stmt:
            case Grid():
                return Grid(stmt.loops, tuple(map(index, stmt.extents)), all_of(stmt.body))
            case For():
                start, stop = index(stmt.start), index(stmt.stop)
                return For(stmt.loop, start, stop, stmt.how, all_of(stmt.body))
            case Last():
                return Last(stmt.counter, all_of(stmt.body))
            case Let():
                return Let(stmt.name, stmt.dims, value(stmt.value))
            case Fetch():
                return Fetch(stmt.buffer, index(stmt.offset))
            case Update():
                values = tuple(map(value, stmt.values))
                return Update(stmt.name, stmt.dims, stmt.op, values, index(stmt.guard))
            case Store():
                new = Store(stmt.buffer, index(stmt.offset), value(stmt.value), stmt.op,
                            index(stmt.guard))  # fmt: skip
                new.past = stmt.past
                return new
        return stmt

    def all_of(body: list[Stmt]) -> list[Stmt]:
        return [each(stmt) for stmt in body]

    return all_of(body)


# --------------------------------------------------------------------------------------- verify


def verify(kernel: Kernel) -> None:
    """Raises CompilerBug unless the kernel means something, the same to both printers.

    Every loop, name and buffer is defined where it is used, and unrolled names have their dims; the
    grid is outermost; loops are not reused inside themselves, vector loops do not nest, and no
    bound varies by lane; loads, stores and updates have the type of what they access; nothing is
    stored into an input; no index divides by an extent.
    """
    _Verifier(kernel).run()


class _Verifier:
    def __init__(self, kernel: Kernel):
        self.kernel = kernel
        arrays = [Parameter(a.name, a.dtype, True) for a in kernel.scratch]
        self.buffers = {p.name: p for p in [*kernel.buffers, *arrays]}
        self.names: dict[str, Stmt | None] = dict.fromkeys(kernel.integers)

    def fail(self, what: str) -> NoReturn:
        raise CompilerBug(f"loop IR of {self.kernel.name}: {what}\n{show_kernel(self.kernel)}")

    def require(self, holds: bool, what: str) -> None:
        if not holds:
            self.fail(what)

    def run(self) -> None:
        self.body(self.kernel.body, frozenset(), None)

    def body(self, body: list[Stmt], loops: frozenset[int], vector: int | None) -> None:
        for stmt in body:
            self.statement(stmt, loops, vector)

    def statement(self, stmt: Stmt, loops: frozenset[int], vector: int | None) -> None:
        match stmt:
            case Grid():
                self.grid(stmt, loops)
            case For():
                self.loop(stmt, loops, vector)
            case Last():
                self.last(stmt, loops)
            case Let() | Init():
                self.dims(stmt.name, stmt.dims, loops)
                for value in values_of(stmt):
                    self.value(value, loops)
                self.names[stmt.name] = stmt
            case Update():
                self.update(stmt, loops)
            case Store():
                self.store(stmt, loops)
            case Fetch():
                self.require(stmt.buffer in self.buffers, f"fetch of unknown buffer {stmt.buffer}")
                self.index(stmt.offset, loops)

    def grid(self, stmt: Grid, loops: frozenset[int]) -> None:
        self.require(not loops, "a grid inside a loop")
        self.require(len(stmt.loops) == len(stmt.extents), "a grid of more loops than extents")
        for extent in stmt.extents:
            self.index(extent, loops)
        self.scope(stmt.body, loops | set(stmt.loops), None)

    def last(self, stmt: Last, loops: frozenset[int]) -> None:
        self.require(not loops, "last inside a loop")
        counter = self.buffers.get(stmt.counter)
        kind = counter.dtype if counter is not None and counter.written else None
        self.require(kind is dt.int64, f"{stmt.counter} is no counter")
        self.scope(stmt.body, loops, None)

    def loop(self, stmt: For, loops: frozenset[int], vector: int | None) -> None:
        name = f"{stmt.how} loop i{stmt.loop}"
        known = ("serial", "reverse", "vector", "unroll")
        self.require(stmt.how in known, f"unknown kind of loop: {name}")
        self.require(stmt.loop not in loops, f"{name} inside itself")
        for bound in (stmt.start, stmt.stop):
            self.index(bound, loops)
            self.require(vector not in loops_of(bound), f"the bounds of {name} vary by lane")
        inside = loops | {stmt.loop}
        if stmt.how == "unroll":  # names with its dim outlive it
            size = self.kernel.extents.get(stmt.loop)
            self.require(stmt.stop == size, f"{name} ends at {show(stmt.stop)}, not at {size}")
            self.body(stmt.body, inside, vector)
            return
        if stmt.how == "vector":
            self.require(vector is None, f"{name} inside a vector loop")
            vector = stmt.loop
        self.scope(stmt.body, inside, vector)

    def scope(self, body: list[Stmt], loops: frozenset[int], vector: int | None) -> None:
        """A body whose names end with it."""
        outside = dict(self.names)
        self.body(body, loops, vector)
        self.names = outside

    def update(self, stmt: Update, loops: frozenset[int]) -> None:
        made = self.names.get(stmt.name)
        if not isinstance(made, Init):
            self.fail(f"accumulator {stmt.name} is updated before it exists")
        self.require(made.dims == stmt.dims, f"{stmt.name} is updated over other dims than its own")
        self.dims(stmt.name, stmt.dims, loops)
        op, count = ("add", 2) if stmt.op == "fma" else (stmt.op, 1)
        self.require(made.op == op, f"{stmt.name} is an accumulator of {made.op}, not of {op}")
        self.require(len(stmt.values) == count, f"{stmt.op}= takes {count} values")
        self.index(stmt.guard, loops)
        for value in stmt.values:
            self.require(value.dtype is made.dtype, f"{stmt.name} is not of type {value.dtype}")
            self.value(value, loops)

    def store(self, stmt: Store, loops: frozenset[int]) -> None:
        buffer = self.buffers.get(stmt.buffer)
        if buffer is None:
            self.fail(f"store into unknown buffer {stmt.buffer}")
        self.require(buffer.written, f"store into the input {stmt.buffer}")
        kind = stmt.value.dtype
        self.require(kind is buffer.dtype, f"store of {kind} into {stmt.buffer}")
        self.index(stmt.offset, loops)
        self.index(stmt.guard, loops)
        self.index(stmt.past, loops)
        self.value(stmt.value, loops)

    def dims(self, name: str, dims: tuple[int, ...], loops: frozenset[int]) -> None:
        self.require(
            set(dims) <= loops & set(self.kernel.extents),
            f"the dims of {name} are not unrolled loops around it",
        )

    def value(self, value: Value, loops: frozenset[int]) -> None:
        for part in walk(value):
            for e in part.indices:
                self.index(e, loops)
            match part:
                case Load():
                    buffer = self.buffers.get(part.buffer)
                    if buffer is None:
                        self.fail(f"load from unknown buffer {part.buffer}")
                    kind = part.dtype
                    self.require(kind is buffer.dtype, f"load of {kind} from {part.buffer}")
                case Ref():
                    made = self.names.get(part.name)
                    if not isinstance(made, Let | Init):
                        self.fail(f"{part.name} is read before it exists")
                    self.require(made.dims == part.dims, f"{part.name} is read over other dims")
                    self.dims(part.name, part.dims, loops)
                case Check() | Apply():
                    self.index(part.number, loops)

    def index(self, e: Expr, loops: frozenset[int]) -> None:
        missing = loops_of(e) - loops
        if missing:
            self.fail(f"index {show(e)} uses i{min(missing)} outside its loop")
        for name in integers_of(e):
            self.require(name in self.names, f"index {show(e)} uses {name} before it exists")
            made = self.names[name]
            plain = made is None or (isinstance(made, Let) and not made.dims)
            self.require(plain, f"index {show(e)} uses {name}, which is not one integer")
        if _divides_by_variable(e):
            self.fail(f"index {show(e)} divides by something other than a constant")


def _divides_by_variable(e: Expr) -> bool:
    if isinstance(e, int) or not contains(e, ("floordiv", "mod", "div", "rem")):
        return False
    if e[0] in ("floordiv", "mod", "div", "rem") and not isinstance(e[2], int):
        return not contains(e[2], ("val",))
    return any(_divides_by_variable(p) for p in children(e))


# ----------------------------------------------------------------------------------------- show


def show_value(value: Value) -> str:
    """A value as text."""
    match value:
        case Load():
            text = f"{value.buffer}[{show(value.offset)}]"
            return (
                text
                if value.guard == TRUE
                else f"({text} if {show(value.guard)} else {value.fill})"
            )
        case Const():
            return f"{value.dtype.short}({value.value})"
        case IndexValue() | Condition():
            return f"({show(value.expr)})"
        case Check():
            return (
                f"check({show_value(value.value)}, {show(value.low)}, {show(value.high)}, "
                f"{show(value.number)}, {show(value.guard)})"
            )
        case Apply(function=function):
            args = ", ".join([*map(show_value, value.args), show(value.number), show(value.guard)])
            return f"{value.dtype.short}({function.name}({args}))"
        case Ref():
            return value.name + "".join(f"[i{d}]" for d in value.dims)
        case Op(name="cast"):
            return f"{value.dtype.short}({show_value(value.args[0])})"
        case Op(name="bitcast"):
            return f"bitcast.{value.dtype.short}({show_value(value.args[0])})"
        case Op():
            return f"{value.name}({', '.join(map(show_value, value.args))})"
    raise CompilerBug(f"no text for {value!r}")


def show_kernel(kernel: Kernel) -> str:
    """The text form of a kernel; also its key: equal texts are one kernel."""
    buffers = ", ".join(
        f"{p.name}: {'out ' if p.written else ''}{p.dtype.short}*" for p in kernel.buffers
    )
    integers = ", ".join(kernel.integers)
    width = " narrow" if kernel.narrow else ""
    width = width or " narrow conditions" * kernel.narrow_conditions
    head = f"kernel {kernel.name}({buffers}; {integers}){width}\n"
    for array in kernel.scratch:
        head += f"  scratch {array.name}: {array.dtype.short}[{show(array.elements)}]\n"
    return head + "".join(_show_lines(kernel.body, "  ", kernel))


def _show_lines(body: list[Stmt], indent: str, kernel: Kernel) -> Iterator[str]:
    for stmt in body:
        match stmt:
            case Grid():
                loops = ", ".join(f"i{k}" for k in stmt.loops)
                extents = ", ".join(show(e) for e in stmt.extents)
                yield f"{indent}grid {loops or '()'} in ({extents}):\n"
                yield from _show_lines(stmt.body, indent + "  ", kernel)
            case Last():
                yield f"{indent}last {stmt.counter}:\n"
                yield from _show_lines(stmt.body, indent + "  ", kernel)
            case For():
                bounds = f"range({show(stmt.start)}, {show(stmt.stop)})"
                yield f"{indent}{stmt.how} i{stmt.loop} in {bounds}:\n"
                yield from _show_lines(stmt.body, indent + "  ", kernel)
            case Let():
                name = stmt.name + "".join(f"[i{d}]" for d in stmt.dims)
                yield f"{indent}{name}: {stmt.value.dtype.short} = {show_value(stmt.value)}\n"
            case Init():
                name = stmt.name + "".join(f"[i{d}]" for d in stmt.dims)
                copies = "" if stmt.copies == MOST_COPIES else f", {stmt.copies} copies"
                yield f"{indent}{name}: {stmt.dtype.short} = identity({stmt.op}){copies}\n"
            case Update():
                name = stmt.name + "".join(f"[i{d}]" for d in stmt.dims)
                guard = "" if stmt.guard == TRUE else f" if {show(stmt.guard)}"
                values = ", ".join(map(show_value, stmt.values))
                yield f"{indent}{name} {stmt.op}= {values}{guard}\n"
            case Fetch():
                yield f"{indent}fetch {stmt.buffer}[{show(stmt.offset)}]\n"
            case Store():
                guard = "" if stmt.guard == TRUE else f" if {show(stmt.guard)}"
                sign = f" {stmt.op}=" if stmt.op else " ="
                place = f"{stmt.buffer}[{show(stmt.offset)}]"
                past = f" past the caches if {show(stmt.past)}" if stmt.past != 0 else ""
                yield f"{indent}{place}{sign} {show_value(stmt.value)}{guard}{past}\n"
