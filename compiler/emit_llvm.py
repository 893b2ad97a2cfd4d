"""The machine printer: a scheduled kernel as LLVM IR, with explicit 16-lane vectors.

A value is a scalar outside vector loops and wherever it does not vary with one; else a vector of
16 lanes, with a mask in the last, incomplete step.  No fast-math flags: what a lane computes is
what a scalar would.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from llvmlite import ir

from metaop import dtype as dt
from metaop.dtype import DType
from metaop.errors import CompilerBug
from metaop.graph import identity_of
from metaop.index import (
    TRUE,
    Expr,
    children,
    integers_of,
    interval,
    is_condition,
    loops_of,
    terms_of,
)

from . import llvm_ops, machine, user_code
from .llvm_ops import BOOL, I8, I16, I32, I64, LANES, Builder, constant, is_vector, memory_type
from .loops import (
    LONGEST_STEP,
    SCRATCH_ALIGNMENT,
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
    accesses_of,
    indices_of,
    statements,
)
from .outside_in import is_one_vector, outside_in


class Affine(NamedTuple):
    """The integer base + step * lane."""

    base: Any
    step: int


class Place(NamedTuple):
    """The addresses pointer + step * lane, in elements; all the same if the step is 0."""

    pointer: Any
    step: int


class Accumulator(NamedTuple):
    """Memory of one accumulator; `copies` vectors if it has lanes of a later vector loop."""

    places: list[Any]
    op: str
    dtype: DType
    lanes: bool


class _Unbounded:
    """Extents for sign analysis: loops are non-negative, their ends are not known."""

    def __getitem__(self, k: int) -> int:
        return 1 << 40


def emit_llvm(kernel: Kernel, builder: Any, args: list[Any]) -> None:
    """Writes the body of `kernel(table, args, chunk, chunks, scratch)` where the builder is."""
    _Emitter(kernel, builder, *args).run()


class _Emitter:
    def __init__(
        self,
        kernel: Kernel,
        builder: Any,
        table: Any,
        args: Any,
        chunk: Any,
        chunks: Any,
        scratch: Any,
    ):
        self.kernel = kernel
        self.statements = outside_in(kernel.body)
        self.b = Builder(builder)
        self.raw = builder
        self.table, self.args = table, args
        self.chunk, self.chunks, self.scratch = chunk, chunks, scratch
        self.loops: dict[int, Any] = {}
        self.integers: dict[str, Any] = {}
        self.lets: dict[tuple, Any] = {}
        self.accumulators: dict[tuple, Accumulator] = {}
        self.vector: int | None = None
        self.mask: Any = None  # active lanes of the last step of a vector loop
        self.copy = 0  # which copy of the lane accumulators this step updates
        self.lane_names = _lane_accumulators(self.statements)
        inits = [stmt for stmt in statements(self.statements) if isinstance(stmt, Init)]
        self.copies_of = {stmt.name: stmt.copies for stmt in inits}
        # what does not vary in the loops around: integers and conditions, pointers
        self.hoisted: dict[Expr, Any] = {}
        self.places: dict[tuple[str, Expr], Place] = {}

    def run(self) -> None:
        self.dtypes = {p.name: p.dtype for p in self.kernel.buffers}
        self.pointers = {}
        for position, parameter in enumerate(self.kernel.buffers):
            slot = self.raw.load(self.raw.gep(self.args, [constant(I64, position)]))
            address = self.raw.load(self.raw.gep(self.table, [slot]))
            self.pointers[parameter.name] = self.raw.inttoptr(
                address, memory_type(parameter.dtype).as_pointer()
            )
        first = len(self.kernel.buffers)
        for position, name in enumerate(self.kernel.integers):
            place = self.raw.gep(self.args, [constant(I64, first + position)])
            self.integers[name] = self.raw.load(place)
        self.scratch_arrays()
        for stmt in statements(self.statements):
            if isinstance(stmt, For) and is_one_vector(stmt):
                self.loops[stmt.loop] = Affine(constant(I64, 0), 1)
        self.body(self.statements)
        if any(isinstance(s, Store) and s.past != 0 for s in statements(self.statements)):
            self.raw.fence("seq_cst")  # such stores are not in order with what follows

    def scratch_arrays(self) -> None:
        """Where each array of the thread's own memory begins."""
        b = self.raw
        offset: Any = constant(I64, 0)
        for array in self.kernel.scratch:
            self.dtypes[array.name] = array.dtype
            kind = memory_type(array.dtype).as_pointer()
            self.pointers[array.name] = b.bitcast(b.gep(self.scratch, [offset]), kind)
            nbytes = b.mul(self.scalar_index(array.elements), constant(I64, array.dtype.itemsize))
            padded = b.add(nbytes, constant(I64, SCRATCH_ALIGNMENT - 1))
            offset = b.add(offset, b.and_(padded, constant(I64, -SCRATCH_ALIGNMENT)))

    # -- statements ---------------------------------------------------------------------------

    def body(self, body: list[Stmt]) -> None:
        for stmt in body:
            match stmt:
                case Grid():
                    self.grid(stmt)
                case Last():
                    self.last(stmt)
                case For(how="unroll"):
                    self.unroll(stmt)
                case For(how="vector"):
                    self.vector_loop(stmt)
                case For():
                    self.serial_loop(stmt)
                case Let():
                    self.let(stmt)
                case Init():
                    self.init(stmt)
                case Update():
                    self.update(stmt)
                case Store():
                    self.store(stmt)
                case Fetch():
                    self.fetch(stmt)

    def serial_loop(self, stmt: For) -> None:
        b = self.raw
        start, stop = self.scalar_index(stmt.start), self.scalar_index(stmt.stop)
        last = b.sub(stop, constant(I64, 1)) if stmt.how == "reverse" else None

        def one(i: Any) -> None:
            index = i if last is None else b.sub(last, b.sub(i, start))
            self.iteration(stmt.loop, index, stmt.body)

        with self.hoisting(stmt):
            self.counted(start, stop, 1, one)

    def iteration(self, loop: int, index: Any, body: list[Stmt]) -> None:
        self.loops[loop] = index
        self.body(body)

    def unroll(self, stmt: For) -> None:
        assert isinstance(stmt.stop, int)
        if self.lies_across(stmt):
            self.store_turned(stmt)
            return
        for i in range(stmt.stop):
            self.iteration(stmt.loop, i, stmt.body)

    def counted(self, start: Any, stop: Any, step: int, body: Callable[[Any], None]) -> None:
        """for i in range(start, stop, step)."""
        b = self.raw
        entry = b.block
        head, inside, end = (b.append_basic_block(n) for n in ("head", "body", "end"))
        b.branch(head)
        b.position_at_end(head)
        i = b.phi(I64)
        i.add_incoming(start, entry)
        b.cbranch(b.icmp_signed("<", i, stop), inside, end)
        b.position_at_end(inside)
        body(i)
        i.add_incoming(b.add(i, constant(I64, step), flags=["nsw"]), b.block)
        b.branch(head)
        b.position_at_end(end)

    def when(self, condition: Any, body: Callable[[], None]) -> None:
        b = self.raw
        inside, end = b.append_basic_block("then"), b.append_basic_block("endif")
        b.cbranch(condition, inside, end)
        b.position_at_end(inside)
        body()
        b.branch(end)
        b.position_at_end(end)

    def grid(self, stmt: Grid) -> None:
        """This chunk's share of the iterations, in row-major order."""
        b = self.raw
        extents = [self.scalar_index(e) for e in stmt.extents]
        total: Any = constant(I64, 1)
        for extent in extents:
            total = b.mul(total, extent)
        low = b.udiv(b.mul(total, self.chunk), self.chunks)
        high = b.udiv(b.mul(total, b.add(self.chunk, constant(I64, 1))), self.chunks)

        def one(flat: Any) -> None:
            rest = flat
            for position in range(len(stmt.loops) - 1, 0, -1):
                self.loops[stmt.loops[position]] = b.urem(rest, extents[position])
                rest = b.udiv(rest, extents[position])
            if stmt.loops:
                self.loops[stmt.loops[0]] = rest
            self.body(stmt.body)

        self.counted(low, high, 1, one)

    def last(self, stmt: Last) -> None:
        """The chunk that finds all others counted runs the body, and zeroes the count."""
        b = self.raw
        counter = self.pointers[stmt.counter]
        before = b.atomic_rmw("add", counter, constant(I64, 1), "acq_rel")
        after = b.add(before, constant(I64, 1))

        def body() -> None:
            b.store(constant(I64, 0), counter)
            self.body(stmt.body)

        self.when(b.icmp_signed("==", after, self.chunks), body)

    def vector_loop(self, stmt: For) -> None:
        """Full steps of 16 lanes (several at once for lane accumulators), then a masked one."""
        start, stop = self.scalar_index(stmt.start), self.scalar_index(stmt.stop)
        with self.hoisting(stmt):
            self.vector = stmt.loop
            if self.is_constant(stmt):
                self.step(stmt, start, None)
            else:
                self.vector_steps(stmt, start, stop)
            self.vector = None

    def vector_steps(self, stmt: For, start: Any, stop: Any) -> None:
        b = self.raw
        known = stmt.stop if stmt.start == 0 and isinstance(stmt.stop, int) else None
        copies = self.copies_in(stmt)
        wide = LANES * copies
        at = start
        if known is None or known >= wide:
            length = b.sub(stop, start)
            whole = b.sub(length, b.srem(length, constant(I64, wide)))
            at = b.add(start, whole)

            def full(i: Any) -> None:
                for copy in range(copies):
                    self.copy = copy
                    self.step(stmt, b.add(i, constant(I64, copy * LANES)), None)
                self.copy = 0

            self.counted(start, at, wide, full)
        if not _is_multiple(stmt, wide):
            self.counted(at, stop, LANES, lambda i: self.step(stmt, i, self.tail_mask(i, stop)))

    def is_constant(self, stmt: For) -> bool:
        """True for a vector loop of one step, whose lanes are the same always."""
        return is_one_vector(stmt) and self.copies_in(stmt) == 1

    @contextmanager
    def hoisting(self, stmt: For) -> Iterator[None]:
        """Evaluates before a loop the parts of its index expressions that it repeats."""
        before = self.hoisted, self.places
        self.hoisted, self.places = dict(self.hoisted), dict(self.places)
        varying = set() if self.is_constant(stmt) else {stmt.loop}
        named: set[str] = set()
        for inner in statements(stmt.body):
            if isinstance(inner, For) and not self.is_constant(inner):
                varying.add(inner.loop)
            elif isinstance(inner, Let):
                named.add(inner.name)

        def repeats(e: Expr) -> bool:
            return not loops_of(e) & varying and not integers_of(e) & named

        for inner in statements(stmt.body):
            for buffer, offset in accesses_of(inner):
                self.hoist_place(buffer, offset, repeats)
            for e in indices_of(inner):
                self.hoist_parts(e, repeats)
        yield
        self.hoisted, self.places = before

    def hoist_place(self, buffer: str, e: Expr, repeats: Callable[[Expr], bool]) -> None:
        if (buffer, e) in self.places or isinstance(e, int):
            return
        if repeats(e):
            place = self.place(buffer, e)
            if place is not None:
                self.places[buffer, e] = place
        elif e[0] in ("add", "sub"):
            self.hoist_place(buffer, e[1], repeats)

    def hoist_parts(self, e: Expr, repeats: Callable[[Expr], bool]) -> None:
        if not children(e) or e in self.hoisted:
            return
        if repeats(e):
            self.hoisted[e] = self.condition(e) if is_condition(e) else self.index(e)
            return
        for part in children(e):
            self.hoist_parts(part, repeats)

    def tail_mask(self, i: Any, stop: Any) -> Any:
        left = self.raw.trunc(
            self.raw.select(
                self.raw.icmp_signed("<", self.raw.sub(stop, i), constant(I64, LANES)),
                self.raw.sub(stop, i),
                constant(I64, LANES),
            ),
            I32,
        )
        return self.raw.icmp_signed("<", self.lane_numbers(I32, 1), self.b.splat(left))

    def lane_numbers(self, integer: Any, step: int) -> Any:
        """0, step, 2*step, …; not known to LLVM where that would harm (`machine.hides_lanes`)."""
        numbers = llvm_ops.iota(integer, step)
        if not machine.hides_lanes():
            return numbers
        b = self.raw
        with b.goto_entry_block():  # no kernel has 2**62 chunks: this is 0
            nothing = b.lshr(self.chunks, constant(I64, 62))
            hidden = nothing if integer == I64 else b.trunc(nothing, integer)
            hidden_numbers = b.add(self.b.splat(hidden), numbers)
        return hidden_numbers

    def step(self, stmt: For, i: Any, mask: Any) -> None:
        self.mask = mask
        self.loops[stmt.loop] = Affine(i, 1)
        self.body(stmt.body)
        self.mask = None

    def copies_in(self, stmt: For) -> int:
        """How many vectors a step adds: one to each copy of the lane accumulators."""
        updated = {
            inner.name
            for inner in statements(stmt.body)
            if isinstance(inner, Update) and inner.name in self.lane_names
        }
        copies = {self.copies_of[name] for name in updated}
        if len(copies) > 1:
            raise CompilerBug(f"accumulators of {copies} copies share a loop")
        return copies.pop() if copies else 1

    # -- names and accumulators ---------------------------------------------------------------

    def key(self, name: str, dims: tuple[int, ...]) -> tuple:
        return (name, *(self.loops[k] for k in dims))

    def let(self, stmt: Let) -> None:
        value = self.value(stmt.value)
        self.lets[self.key(stmt.name, stmt.dims)] = value

    def init(self, stmt: Init) -> None:
        lanes = stmt.name in self.lane_names
        register = llvm_ops.register_type(stmt.dtype)
        if lanes or self.vector is not None:
            register = ir.VectorType(register, LANES)
        number = identity_of(stmt.op, stmt.dtype)
        identity = self.b.const(stmt.dtype, number, isinstance(register, ir.VectorType))
        places = []
        for _ in range(stmt.copies if lanes else 1):
            with self.raw.goto_entry_block():
                place = self.raw.alloca(register)
            self.raw.store(identity, place)
            places.append(place)
        accumulator = Accumulator(places, stmt.op, stmt.dtype, lanes)
        self.accumulators[self.key(stmt.name, stmt.dims)] = accumulator

    def update(self, stmt: Update) -> None:
        accumulator = self.accumulators[self.key(stmt.name, stmt.dims)]
        place = accumulator.places[self.copy if accumulator.lanes else 0]
        old = self.raw.load(place)
        values = [self.value(v) for v in stmt.values]
        if is_vector(old):
            values = [self.b.as_vector(v) for v in values]
        if stmt.op == "fma":
            # rounded once where the processor does so in one instruction, else twice
            new = self.b.intrinsic("llvm.fmuladd", values[0], values[1], old)
        else:
            step = self.b.accumulate if accumulator.lanes else self.b.combine
            new = step(stmt.op, old, values[0], accumulator.dtype)
        guard = None if stmt.guard == TRUE else self.condition(stmt.guard)
        if accumulator.lanes:
            guard = self.active(guard)
        if guard is not None:
            new = self.raw.select(guard, new, old)
        self.raw.store(new, place)

    def read_accumulator(self, accumulator: Accumulator) -> Any:
        """Its value; lanes and copies are combined in a fixed tree."""
        parts = [self.raw.load(place) for place in accumulator.places]
        if not accumulator.lanes:
            return parts[0]
        while len(parts) > 1:
            parts = [self.b.combine(accumulator.op, a, c, accumulator.dtype)
                     for a, c in zip(parts[::2], parts[1::2])]  # fmt: skip
        return self.b.across_lanes(accumulator.op, parts[0], accumulator.dtype)

    # -- memory -------------------------------------------------------------------------------

    def place(self, buffer: str, e: Expr) -> Place | None:
        """Where an access at index e is; None if its lanes do not lie at equal distances.

        What outer loops have computed of a sum is a pointer already.
        """
        known = self.places.get((buffer, e))
        if known is not None:
            return known
        if isinstance(e, tuple) and e[0] in ("add", "sub"):
            start, index = self.place(buffer, e[1]), self.index(e[2])
            if start is None or is_vector(index):
                return None
            further = index if isinstance(index, Affine) else Affine(index, 0)
            if e[0] == "sub":
                further = Affine(self.raw.neg(further.base), -further.step)
        else:
            index = self.index(e)
            if is_vector(index):
                return None
            start = Place(self.pointers[buffer], 0)
            further = index if isinstance(index, Affine) else Affine(index, 0)
        pointer = self.raw.gep(start.pointer, [further.base])
        return Place(pointer, start.step + further.step)

    def load(self, value: Load) -> Any:
        place = self.place(value.buffer, value.offset)
        guard = None if value.guard == TRUE else self.condition(value.guard)
        if place is None or place.step:
            return self.load_lanes(value, place, guard)
        if guard is None:
            return self.read(value, place.pointer)
        any_lane = self.b.any_lane(guard) if is_vector(guard) else guard
        loaded = self.read(
            value, self.raw.select(any_lane, place.pointer, self.pointers[value.buffer])
        )
        if is_vector(guard):
            loaded = self.b.as_vector(loaded)
        fill = self.b.const(value.dtype, value.fill, is_vector(loaded))
        return self.raw.select(guard, loaded, fill)

    def read(self, value: Load, pointer: Any) -> Any:
        raw = self.raw.load(pointer, align=value.dtype.itemsize)
        return self.b.to_register(raw, value.dtype)

    def load_lanes(self, value: Load, place: Place | None, guard: Any) -> Any:
        mask = self.active(guard)
        element = memory_type(value.dtype)
        align = value.dtype.itemsize
        fill = self.b.memory_const(value.dtype, value.fill if guard is not None else 0)
        if place is not None and place.step == 1:
            vector = self.raw.bitcast(place.pointer, ir.VectorType(element, LANES).as_pointer())
            if mask is None:
                loaded = self.raw.load(vector, align=align)
            else:
                loaded = self.b.masked_load(vector, align, mask, fill)
        elif place is not None and self.is_short_step(place):
            loaded = self.load_apart(value, place, mask)
            if guard is not None and value.fill != 0:
                loaded = self.raw.select(mask, loaded, fill)
        else:
            addresses = self.addresses(value.buffer, value.offset, place)
            loaded = self.b.gather(addresses, element, align, mask, fill)
        return self.b.to_register(loaded, value.dtype)

    @staticmethod
    def is_short_step(place: Place) -> bool:
        """True where 16 elements lie so close that whole vectors around them cost less than 16
        addresses."""
        return 2 <= place.step <= LONGEST_STEP

    def wide_mask(self, mask: Any, step: int, dtype: DType) -> Any:
        """The lanes of a mask, `step` apart; no lane between them.

        They are moved as integers as wide as the elements: few processors have masks of bits.
        """
        lanes = [k // step if k % step == 0 else LANES for k in range(LANES * step)]
        if mask is None:
            bits = [int(lane != LANES) for lane in lanes]
            return llvm_ops.lane_constants(BOOL, bits)
        kind = ir.VectorType(ir.IntType(8 * dtype.itemsize), LANES)
        wide = self.raw.shuffle_vector(
            self.raw.sext(mask, kind), constant(kind, 0), _lane_numbers(lanes)
        )
        return self.raw.icmp_signed("<", wide, constant(wide.type, 0))

    def load_apart(self, value: Load, start: Place, mask: Any) -> Any:
        """16 elements that lie 2 to 4 apart, cut out of as many whole vectors."""
        step = start.step
        wide = ir.VectorType(memory_type(value.dtype), LANES * step)
        place = self.raw.bitcast(start.pointer, wide.as_pointer())
        nothing = constant(wide, 0)
        size = value.dtype.itemsize
        loaded = self.b.masked_load(place, size, self.wide_mask(mask, step, value.dtype), nothing)
        lanes = [k * step for k in range(LANES)]
        return self.raw.shuffle_vector(loaded, nothing, _lane_numbers(lanes))

    def store_apart(self, stmt: Store, start: Place, value: Any, mask: Any) -> None:
        """Writes 16 elements that lie 2 to 4 apart, and nothing between them."""
        step = start.step
        wide = ir.VectorType(value.type.element, LANES * step)
        place = self.raw.bitcast(start.pointer, wide.as_pointer())
        lanes = [k // step for k in range(LANES * step)]
        spread = self.raw.shuffle_vector(value, constant(value.type, 0), _lane_numbers(lanes))
        dtype = self.dtypes[stmt.buffer]
        mask = self.wide_mask(mask, step, dtype)
        self.b.masked_store(spread, place, dtype.itemsize, mask)

    def addresses(self, buffer: str, offset: Expr, place: Place | None) -> Any:
        """The 16 addresses of an access with a stride or through an index."""
        b, size = self.raw, self.dtypes[buffer].itemsize
        if place is not None:
            start = self.b.splat(b.ptrtoint(place.pointer, I64))
            return b.add(start, self.lane_numbers(I64, place.step * size))
        start = self.b.splat(b.ptrtoint(self.pointers[buffer], I64))
        lanes = self.lanes(self.index(offset), wide=True)
        return b.add(start, b.mul(lanes, self.b.splat(constant(I64, size))))

    def fetch(self, stmt: Fetch) -> None:
        place = self.place(stmt.buffer, stmt.offset)
        if place is not None:
            pointer = self.raw.bitcast(place.pointer, I8.as_pointer())
            read, near, data = (constant(I32, n) for n in (0, 3, 1))
            self.b.call("llvm.prefetch.p0", ir.VoidType(), pointer, read, near, data)

    def active(self, guard: Any) -> Any:
        """The lanes that exist and whose guard holds; None for all."""
        if guard is None:
            return self.mask
        guard = self.b.as_vector(guard)
        return guard if self.mask is None else self.raw.and_(guard, self.mask)

    def store(self, stmt: Store) -> None:
        where = self.place(stmt.buffer, stmt.offset)
        guard = None if stmt.guard == TRUE else self.condition(stmt.guard)
        value = self.value(stmt.value)
        dtype = self.dtypes[stmt.buffer]
        if where is None or where.step:
            self.store_lanes(stmt, where, guard, self.b.as_vector(value), dtype)
            return
        place = where.pointer

        def write() -> None:
            new = value
            if stmt.op:
                old = self.b.to_register(self.raw.load(place, align=dtype.itemsize), dtype)
                new = self.combined(stmt.op, old, new, dtype)
            self.raw.store(self.b.to_memory(new, dtype), place, align=dtype.itemsize)

        if guard is None:
            write()
        else:
            self.when(guard, write)

    def combined(self, op: str, old: Any, new: Any, dtype: DType) -> Any:
        """old op new; 16-bit floats through float32."""
        if dtype.compute is dtype:
            return self.b.combine(op, old, new, dtype)
        wide = dtype.compute
        first, second = (self.b.cast(v, dtype, wide) for v in (old, new))
        return self.b.cast(self.b.combine(op, first, second, wide), wide, dtype)

    def store_lanes(
        self, stmt: Store, where: Place | None, guard: Any, value: Any, dtype: DType
    ) -> None:
        mask = self.active(guard)
        align = dtype.itemsize
        if where is not None and self.is_short_step(where):
            self.store_apart(stmt, where, self.b.to_memory(value, dtype), mask)
            return
        if where is None or where.step != 1:
            addresses = self.addresses(stmt.buffer, stmt.offset, where)
            self.b.scatter(self.b.to_memory(value, dtype), addresses, align, mask)
            return
        vector = ir.VectorType(memory_type(dtype), LANES)
        place = self.raw.bitcast(where.pointer, vector.as_pointer())
        if stmt.op:
            zero = self.b.memory_const(dtype, 0)
            old = (
                self.raw.load(place, align=align)
                if mask is None
                else self.b.masked_load(place, align, mask, zero)
            )
            value = self.combined(stmt.op, self.b.to_register(old, dtype), value, dtype)
        value = self.b.to_memory(value, dtype)
        if mask is None and stmt.past != 0:
            self.store_past(stmt, value, place, LANES * dtype.itemsize)
        elif mask is None:
            self.raw.store(value, place, align=align)
        else:
            self.b.masked_store(value, place, align, mask)

    def lies_across(self, stmt: For) -> bool:
        """True for 16 stores of a vector each whose first elements are neighbours in memory, as the
        second ones are, and so on: a square that is turned in registers."""
        if self.vector is None or stmt.stop != LANES or len(stmt.body) != 1:
            return False
        store = stmt.body[0]
        if not isinstance(store, Store) or store.op or store.guard != TRUE:
            return False
        steps = terms_of(store.offset, _Unbounded())  # type: ignore[arg-type]
        varying = [a for a in steps if a is not None and stmt.loop in loops_of(a)]
        if varying != [("i", stmt.loop)] or steps["i", stmt.loop] != 1:
            return False
        across = {a: n for a, n in steps.items() if a is not None and self.vector in loops_of(a)}
        if not across or across == {("i", self.vector): 1}:
            return False
        return not any(is_vector(self.named(name)) for name in integers_of(store.offset))

    def store_turned(self, stmt: For) -> None:
        """What `lies_across`: 16 vectors with one element of each of the vectors given."""
        (store,) = stmt.body
        assert isinstance(store, Store)
        dtype = self.dtypes[store.buffer]
        rows = []
        for i in range(LANES):
            self.loops[stmt.loop] = i
            rows.append(self.b.to_memory(self.b.as_vector(self.value(store.value)), dtype))
        self.loops[stmt.loop] = 0
        b, kind = self.raw, rows[0].type.as_pointer()
        starts = [b.bitcast(pointer, kind) for pointer in self.lane_pointers(store)]
        for lane, (row, start) in enumerate(zip(self.b.transposed(rows), starts)):
            if self.mask is None and store.past != 0:
                self.store_past(store, row, start, LANES * dtype.itemsize)
            elif self.mask is None:
                b.store(row, start, align=dtype.itemsize)
            else:
                active = b.extract_element(self.mask, constant(I32, lane))
                self.b.masked_store(row, start, dtype.itemsize, self.b.as_vector(active))

    def lane_pointers(self, store: Store) -> list[Any]:
        """Where each lane of a vector loop writes."""
        vector = self.vector
        assert vector is not None
        before = self.loops[vector], self.hoisted, self.places
        self.hoisted = {e: v for e, v in self.hoisted.items() if vector not in loops_of(e)}
        self.places = {at: v for at, v in self.places.items() if vector not in loops_of(at[1])}
        pointers = []
        for lane in range(LANES):
            self.loops[vector] = self.raw.add(before[0].base, constant(I64, lane), flags=["nsw"])
            place = self.place(store.buffer, store.offset)
            assert place is not None
            pointers.append(place.pointer)
        self.loops[vector], self.hoisted, self.places = before
        return pointers

    def store_past(self, stmt: Store, value: Any, place: Any, nbytes: int) -> None:
        """Stores a whole vector past the caches, if it is wanted and the address allows it."""
        b = self.raw
        address = b.and_(b.ptrtoint(place, I64), constant(I64, nbytes - 1))
        wanted = b.icmp_signed("!=", self.scalar_index(stmt.past), constant(I64, 0))
        fits = b.icmp_signed("==", address, constant(I64, 0))
        with b.if_else(b.and_(wanted, fits)) as (past, usual):
            with past:
                one = b.store(value, place, align=nbytes)
                one.set_metadata("nontemporal", b.module.add_metadata([constant(I32, 1)]))
            with usual:
                b.store(value, place, align=nbytes // LANES)

    # -- values -------------------------------------------------------------------------------

    def value(self, value: Value) -> Any:
        match value:
            case Load():
                return self.load(value)
            case Const():
                return self.b.const(value.dtype, value.value, False)
            case Ref():
                key = self.key(value.name, value.dims)
                if key in self.accumulators:
                    return self.read_accumulator(self.accumulators[key])
                return self.lets[key]
            case IndexValue():
                index = self.index(value.expr)
                if isinstance(index, Affine) or is_vector(index):
                    return self.lanes(index, wide=True)
                return index
            case Condition():
                return self.condition(value.expr)
            case Check():
                return self.check(value)
            case Apply():
                return self.application(value)
            case Op():
                return self.operator(value)
        raise CompilerBug(f"cannot compile {value!r}")

    def operator(self, value: Op) -> Any:
        args = [self.value(a) for a in value.args]
        if any(is_vector(a) for a in args):
            condition = args[0] if value.name == "where" else None
            args = [self.b.as_vector(a) for a in args]
            if condition is not None and not is_vector(condition):
                args[0] = condition
        if value.name == "cast":
            return self.b.cast(args[0], value.args[0].dtype, value.dtype)
        if value.name == "bitcast":
            return self.b.bitcast(args[0], value.dtype)
        return self.b.elementwise(value.name, args, value.args[-1].dtype)

    def check(self, value: Check) -> Any:
        """Reports the first offending value in the status word, and goes on with a harmless one."""
        b = self.raw
        inner = self.value(value.value)
        vector = is_vector(inner)
        dtype = value.value.dtype
        signed = dtype.kind == "i"

        def compare(sign: str, bound: Expr) -> Any:
            if isinstance(bound, int):
                limit = self.b.const(dtype, bound, vector)
            else:
                limit = self.b.cast(self.scalar_index(bound), dt.int64, dtype)
                limit = self.b.as_vector(limit) if vector else limit
            return (
                b.icmp_signed(sign, inner, limit) if signed else b.icmp_unsigned(sign, inner, limit)
            )

        if value.low == value.high:
            bad = compare("==", value.low)
        else:
            bad = compare(">=", value.high)
            if signed:
                bad = b.or_(bad, compare("<", value.low))
        if value.guard != TRUE:
            guard = self.condition(value.guard)
            if is_vector(guard) and not vector:
                guard = self.b.any_lane(guard)
            bad = b.and_(bad, self.b.as_vector(guard) if vector else guard)
        if vector and self.mask is not None:
            bad = b.and_(bad, self.mask)
        harmless = self.b.const(dtype, 1 if value.low == value.high else 0, vector)
        seen = self.b.any_lane(bad) if vector else bad
        number = self.scalar_index(value.number)
        self.when(seen, lambda: self.report(number, inner, bad, dtype))
        return b.select(bad, harmless, inner)

    def report(self, number: Any, value: Any, bad: Any, dtype: DType) -> None:
        b = self.raw
        status = b.inttoptr(b.load(self.table), I64.as_pointer())
        if is_vector(value):
            value = self.b.first_lane(value, bad)
        wide = self.b.cast(value, dtype, dt.int64)
        code = b.add(number, constant(I64, 1))
        exchange = b.cmpxchg(status, constant(I64, 0), code, "monotonic", "monotonic")
        first = b.extract_value(exchange, 1)
        self.when(first, lambda: b.store(wide, b.gep(status, [constant(I64, 1)])) and None)

    def application(self, value: Apply) -> Any:
        """A user's function, called for one lane after the other: other lanes need not end."""
        args = [self.b.cast(self.value(a), a.dtype, user_code.wide(a.dtype)) for a in value.args]
        guard = None if value.guard == TRUE else self.condition(value.guard)
        number = self.scalar_index(value.number)
        if not any(is_vector(v) for v in (*args, guard)):
            return self.called(value, args, guard, number)
        register = llvm_ops.register_type(value.dtype)
        lanes = [self.in_memory(self.b.as_vector(a)) for a in args]
        result = self.in_memory(constant(ir.VectorType(register, LANES), 0))
        active = self.active(guard)
        bits = None if active is None else self.raw.bitcast(active, I16)

        def one(lane: Any) -> None:
            here = [self.raw.load(self.raw.gep(place, [lane])) for place in lanes]
            mine = None
            if bits is not None:
                shifted = self.raw.lshr(bits, self.raw.trunc(lane, I16))
                mine = self.raw.trunc(shifted, BOOL)
            answer = self.called(value, here, mine, number)
            self.raw.store(self.b.to_memory(answer, value.dtype), self.raw.gep(result, [lane]))

        self.counted(constant(I64, 0), constant(I64, LANES), 1, one)
        whole = ir.VectorType(memory_type(value.dtype), LANES).as_pointer()
        loaded = self.raw.load(self.raw.bitcast(result, whole), align=value.dtype.itemsize)
        return self.b.to_register(loaded, value.dtype)

    def in_memory(self, vector: Any) -> Any:
        """The address of the first of 16 lanes."""
        b = self.raw
        if vector.type.element == BOOL:
            vector = b.zext(vector, ir.VectorType(I8, LANES))
        with b.goto_entry_block():
            place = b.alloca(vector.type)
        b.store(vector, place)
        return b.bitcast(place, vector.type.element.as_pointer())

    def called(self, value: Apply, args: list[Any], guard: Any, number: Any) -> Any:
        """The result of one call, in the dtype of the value; 0 where the guard does not hold."""
        b, code = self.raw, user_code.code_of(value)
        zero = self.b.const(value.dtype, 0, False)
        with b.goto_entry_block():
            place, fault = b.alloca(memory_type(code.result)), b.alloca(I8.as_pointer())
            answer = b.alloca(zero.type)
        b.store(zero, answer)

        def call() -> None:
            function = code.declared(b.module)
            failed = b.call(function, [place, fault, *args])
            found = self.b.to_register(b.load(place), code.result)
            b.store(self.b.cast(found, code.result, value.dtype), answer)
            bad = b.icmp_signed("!=", failed, constant(I32, 0))
            self.when(bad, lambda: self.report(number, constant(I64, 0), bad, dt.int64))

        if guard is None:
            call()
        else:
            self.when(guard, call)
        return b.load(answer)

    # -- indices ------------------------------------------------------------------------------

    def scalar_index(self, e: Expr) -> Any:
        index = self.index(e)
        if isinstance(index, Affine) or is_vector(index):
            raise CompilerBug(f"{e} varies by lane where it must not")
        return index

    def index(self, e: Expr) -> Any:
        """An index expression: an i64, an Affine, or a vector of i64."""
        if isinstance(e, int):
            return constant(I64, e)
        known = self.hoisted.get(e)
        if known is not None:
            return known
        kind = e[0]
        if kind == "i":
            index = self.loops[e[1]]
            return constant(I64, index) if isinstance(index, int) else index
        if kind == "val":
            return self.named(e[1])
        if kind == "where":
            return self.choose(e)
        return self.arithmetic(kind, self.index(e[1]), self.index(e[2]), e)

    def named(self, name: str) -> Any:
        known = self.integers.get(name)
        return self.lets[(name,)] if known is None else known

    def choose(self, e: Expr) -> Any:
        condition = self.condition(e[1])
        yes, no = self.index(e[2]), self.index(e[3])
        if is_vector(condition) or any(isinstance(v, Affine) or is_vector(v) for v in (yes, no)):
            yes, no = self.lanes(yes, wide=True), self.lanes(no, wide=True)
        return self.raw.select(condition, yes, no)

    def arithmetic(self, kind: str, a: Any, c: Any, e: Expr) -> Any:
        b = self.raw
        if kind in ("add", "sub") and not is_vector(a) and not is_vector(c):
            combine = b.add if kind == "add" else b.sub
            if isinstance(a, Affine) or isinstance(c, Affine):
                x = a if isinstance(a, Affine) else Affine(a, 0)
                y = c if isinstance(c, Affine) else Affine(c, 0)
                step = x.step + y.step if kind == "add" else x.step - y.step
                return Affine(combine(x.base, y.base, flags=["nsw"]), step)
            return combine(a, c, flags=["nsw"])
        if kind == "mul" and isinstance(a, Affine) and isinstance(e[2], int):
            return Affine(b.mul(a.base, c, flags=["nsw"]), a.step * e[2])
        if any(isinstance(v, Affine) or is_vector(v) for v in (a, c)):
            # 32-bit lanes where the schedule has shown that nothing overflows them
            wide = not self.kernel.narrow
            result = self.integer(kind, self.lanes(a, wide), self.lanes(c, wide), e)
            return result if wide else b.sext(result, ir.VectorType(I64, LANES))
        return self.integer(kind, a, c, e)

    def integer(self, kind: str, a: Any, c: Any, e: Expr) -> Any:
        b = self.raw
        if kind in ("add", "sub", "mul"):
            return getattr(b, kind)(a, c, flags=["nsw"])
        if kind in ("min", "max"):
            return b.select(b.icmp_signed("<" if kind == "min" else ">", a, c), a, c)
        if interval(e[1], _Unbounded())[0] >= 0:  # type: ignore[arg-type]
            return b.udiv(a, c) if kind in ("floordiv", "div") else b.urem(a, c)
        if kind in ("div", "rem"):
            return b.sdiv(a, c) if kind == "div" else b.srem(a, c)
        remainder = b.srem(a, c)
        negative = b.icmp_signed("<", remainder, constant(remainder.type, 0))
        if kind == "mod":
            return b.select(negative, b.add(remainder, c), remainder)
        quotient = b.sdiv(a, c)
        return b.add(quotient, b.sext(negative, quotient.type))

    def lanes(self, index: Any, wide: bool) -> Any:
        """An index as a vector of i64 or i32."""
        integer = I64 if wide else I32
        if isinstance(index, Affine):
            base = index.base if wide else self.raw.trunc(index.base, I32)
            return self.raw.add(self.b.splat(base), self.lane_numbers(integer, index.step))
        if is_vector(index):
            return index if wide else self.raw.trunc(index, ir.VectorType(I32, LANES))
        return self.b.splat(index if wide else self.raw.trunc(index, I32))

    def condition(self, c: Expr) -> Any:
        """A condition: an i1 or a vector of them."""
        known = self.hoisted.get(c)
        if known is not None:
            return known
        b = self.raw
        kind = c[0]
        if kind == "true":
            return constant(BOOL, 1)
        if kind == "not":
            inner = self.condition(c[1])
            ones = self.b.splat(constant(BOOL, 1)) if is_vector(inner) else constant(BOOL, 1)
            return b.xor(inner, ones)
        if kind in ("and", "or"):
            left, right = self.condition(c[1]), self.condition(c[2])
            if is_vector(left) or is_vector(right):
                left, right = self.b.as_vector(left), self.b.as_vector(right)
            return b.and_(left, right) if kind == "and" else b.or_(left, right)
        sign = {"lt": "<", "le": "<=", "eq": "==", "ne": "!="}[kind]
        left, right = self.index(c[1]), self.index(c[2])
        if any(isinstance(v, Affine) or is_vector(v) for v in (left, right)):
            wide = not self.kernel.narrow_conditions
            left, right = self.lanes(left, wide), self.lanes(right, wide)
        return b.icmp_signed(sign, left, right)


def _is_multiple(stmt: For, wide: int) -> bool:
    """True if a loop surely has a multiple of `wide` iterations."""
    if stmt.start != 0:
        return False
    if isinstance(stmt.stop, int):
        return stmt.stop % wide == 0
    factor = stmt.stop[2] if stmt.stop[0] == "mul" else None
    return isinstance(factor, int) and factor % wide == 0


def _lane_numbers(lanes: list[int]) -> Any:
    return llvm_ops.lane_constants(I32, lanes)


def _lane_accumulators(body: list[Stmt]) -> set[str]:
    """Accumulators initialised outside a vector loop and updated inside it."""
    outside: set[str] = set()
    found: set[str] = set()

    def visit(body: list[Stmt], in_vector: bool) -> None:
        for stmt in body:
            if isinstance(stmt, Init) and not in_vector:
                outside.add(stmt.name)
            elif isinstance(stmt, Update) and in_vector and stmt.name in outside:
                found.add(stmt.name)
            elif isinstance(stmt, Grid | For | Last):
                visit(stmt.body, in_vector or (isinstance(stmt, For) and stmt.how == "vector"))

    visit(body, False)
    return found
