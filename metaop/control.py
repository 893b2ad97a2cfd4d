"""Loops and branches as single operations: `scan`, `while_loop`, `cond`.

The body is recorded once, compiled as a program of its own, and run step by step by a host callback
(an escape), so 500 steps are not 500 copies of the body.  The gradient of a scan is a scan of the
body's gradient in the other direction, so it can be differentiated to any order.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from . import dtype as dt
from . import elementwise as el
from .build import cast, full, reshape
from .compiler import program as runtime
from .compiler import programs
from .compiler.recent import Recent
from .dtype import DType
from .errors import DTypeError, ShapeError, describe
from .extent import (
    Atom,
    Extent,
    fresh,
    plain,
    polynomial_of,
    renamed,
    symbols_in,
    symbols_of,
)
from .graph import (
    Buffer,
    Elementwise,
    Escape,
    Node,
    Piece,
    Reindex,
    Shape,
    pending,
    size_of,
    toposort,
)
from .life import _error_for, recording_gradients
from .placeholder import Placeholder, Recorded, as_var, copied, leaves_of, rebuilt
from .recording import recording
from .storage import Storage
from .transforms import _grad, _variable, _weighted
from .var import Var

Kind = tuple[Shape, DType]


def _kinds(vars: Sequence[Var]) -> list[Kind]:
    return [(v.shape, v.dtype) for v in vars]


# ----------------------------------------------------------------------- a body that runs by itself


class _Leaf:
    """An input of a body's program for one step."""

    __slots__ = ("storage",)

    def __init__(self, storage: Storage):
        self.storage = storage


class Body:
    """A recorded function with what it reads from outside.

    constants: the nodes read from outside; key: equal for bodies that compute the same of their
    inputs and constants, None if that is unknown; any_size: the sizes of inputs and constants tell
    those of all that it computes; runner: the function as a program of its own.
    """

    def __init__(self, recorded: Recorded):
        self.recorded = recorded
        self.constants = recorded.constants()
        self.outputs = recorded.outputs
        self.key = self._structure()
        places = [*recorded.inputs, *self.constants]
        axes = _axes_of_symbols(places)
        self.any_size = self.key is not None and all(s in axes for s in symbols_in(self.key))
        self.runner = Runner(places, self.outputs, axes if self.any_size else {})

    def _structure(self) -> Any:
        places = [*self.recorded.inputs, *self.constants]
        number: dict[Node, int] = {node: k for k, node in enumerate(places)}
        key: list[Any] = [(n.shape, n.dtype.name) for n in places]
        for node in toposort(self.outputs, lambda n: n in number):
            if node in number:
                continue
            if isinstance(node, Escape) and node.key is None:
                return None
            number[node] = len(number)
            inputs = tuple(number[i] for i in node.inputs)
            key.append((node.definition(), node.shape, node.dtype.name, inputs))
        return (tuple(key), tuple(number[n] for n in self.outputs))


def _axes_of_symbols(places: Sequence[Node]) -> dict[Atom, tuple[int, int]]:
    """For every symbol that is an extent by itself, where: the number of a place, and its axis."""
    found: dict[Atom, tuple[int, int]] = {}
    for k, place in enumerate(places):
        for axis, n in enumerate(place.shape):
            if isinstance(n, Extent):
                (symbol, *others) = symbols_of(n.polynomial)
                if not others and n.polynomial == (((symbol,), 1),):
                    found.setdefault(symbol, (k, axis))
    return found


class _Place(NamedTuple):
    """What an error message says of a node."""

    kind: str
    op: str
    site: Any


class SizedBody(NamedTuple):
    """A body's program for certain sizes.

    kinds: shapes and dtypes of the results; sources: of the program's leaves, the number of an
    input, or a plain number; results: where each is; sites: of the nodes, for error messages.
    """

    kinds: list[Kind]
    bound: Any
    sources: list[Any]
    results: list[tuple[str, int]]
    sites: list[Any]

    def evaluate(self, values: Sequence[Storage]) -> list[Storage]:
        """The results for storages of the inputs and constants."""
        leaves = [_Leaf(values[s]) if isinstance(s, int) else s for s in self.sources]
        try:
            storages = [] if self.bound is None else _run_nested(self.bound, leaves)
        except runtime.KernelError as fault:
            place: Any = self.sites[fault.check.position]
            raise _error_for(place, fault) from None
        found = []
        for kind, k in self.results:
            if kind == "out":
                found.append(storages[k])
            else:
                found.append(values[k] if kind == "value" else _storage_of(leaves[k]))
        return found


class Runner:
    """A body's programs, for all sizes of its dynamic axes.  At the first run it forgets the
    recorded nodes: what is kept for later must not keep the values of the first call.

    kinds: shapes and dtypes of the results as recorded; axes: where each symbol is.
    """

    def __init__(self, places: list[Node], outputs: list[Node], axes: dict[Atom, tuple[int, int]]):
        self._places, self._outputs, self._axes = places, outputs, axes
        self._is_recorded = True
        self.kinds = [(n.shape, n.dtype) for n in outputs]
        self._sized = Recent(1000)

    def sized(self, arrays: Sequence[np.ndarray]) -> SizedBody:
        """The program for inputs and constants of these arrays' sizes."""
        shapes = tuple([a.shape for a in arrays])
        found = self._sized.get(shapes)
        if found is None:
            saved = recording.grad
            recording.grad = False
            try:
                found = self._compiled(arrays)
            finally:
                recording.grad = saved
            self._sized.put(shapes, found, 1)
        return found

    def _compiled(self, arrays: Sequence[np.ndarray]) -> SizedBody:
        if self._is_recorded:
            places: list[Node] = [Placeholder(n.shape, n.dtype, "") for n in self._places]
            self._outputs = copied(self._outputs, dict(zip(self._places, places)))
            self._places, self._is_recorded = places, False
        size = {s: fresh(arrays[k].shape[axis]) for s, (k, axis) in self._axes.items()}
        extents = functools.partial(renamed, value={s: polynomial_of(n) for s, n in size.items()})
        buffers: list[Node] = [
            Buffer(_borrowed(array), extents(n.shape), n.dtype)
            for n, array in zip(self._places, arrays)
        ]
        outputs = copied(self._outputs, dict(zip(self._places, buffers)), extents)
        position = {buffer: k for k, buffer in enumerate(buffers)}
        roots = list(dict.fromkeys(n for n in outputs if n not in position))
        nodes = pending(roots) if roots else []
        bound, leaves = programs.program_for(nodes, roots) if roots else (None, [])
        kinds = list(bound.results) if bound is not None else []
        return SizedBody(
            [(plain(n.shape), n.dtype) for n in outputs],
            bound,
            [position.get(leaf, leaf) for leaf in leaves],
            [("value", position[n]) if n in position else kinds[roots.index(n)] for n in outputs],
            [_Place(n.kind, getattr(n, "op", n.kind), n.site) for n in nodes],
        )


def _borrowed(array: np.ndarray) -> Storage:
    return Storage.borrowed(np.ascontiguousarray(array))


def _storage_of(leaf: Any) -> Storage:
    return leaf.storage if leaf.storage is not None else runtime.number_storage(leaf)


_arenas: list[Any] = []  # one for each depth of programs inside programs
_depth = 0


def _run_nested(bound: Any, leaves: list[Any]) -> list[Storage]:
    """Runs a program while another one is waiting for its callback: with an arena of its own.

    The caller is inside a callback, so it holds the lock of the runner.
    """
    global _depth
    if len(_arenas) == _depth:
        _arenas.append(type(runtime.arena)())
    saved, runtime.arena = runtime.arena, _arenas[_depth]
    _depth += 1
    try:
        return runtime.run(bound, leaves)
    finally:
        _depth -= 1
        runtime.arena = saved


# ----------------------------------------------------------------- several results of one callback


class Packing:
    """Results of several shapes and dtypes in one float array; they may have other sizes when they
    are packed than when they were recorded.

    Equal float dtypes lie side by side; else every element takes a float64, an integer its bits.
    """

    def __init__(self, kinds: Sequence[Kind]):
        self.kinds = list(kinds)
        dtypes = {dtype for _, dtype in kinds}
        plain = len(dtypes) == 1 and dtypes <= {dt.float32, dt.float64}
        self.dtype = dtypes.pop() if plain else dt.float64
        self.starts = [0]
        for shape, _ in kinds:
            self.starts.append(self.starts[-1] + size_of(shape))

    def pack(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        """The arrays, as they lie in memory, in one."""
        result = np.empty(sum(array.size for array in arrays), self.dtype.storage)
        end = 0
        for array, (_, dtype) in zip(arrays, self.kinds):
            start, end = end, end + array.size
            part = result[start:end]
            if dtype is dt.bfloat16:
                array = (array.astype(np.uint32) << 16).view(np.float32)
            if dtype.is_float:
                part[...] = array.reshape(-1)
            else:
                part.view(np.int64)[...] = array.reshape(-1).astype(np.int64)
        return result

    def unpack(self, packed: Node) -> list[Var]:
        """The results as Vars."""
        return [self._part(packed, k) for k in range(len(self.kinds))]

    def _part(self, packed: Node, k: int) -> Var:
        shape, dtype = self.kinds[k]
        at = ("add", ("i", 0), self.starts[k])
        part: Node = Reindex((size_of(shape),), (Piece(0, (at,)),), packed)
        if not dtype.is_float and self.dtype is dt.float64:
            part = Elementwise("bitcast", part, dtype=dt.int64)
        return Var._of(cast(reshape(part, shape), dtype))


def _array(storage: Storage, kind: Kind) -> np.ndarray:
    shape, dtype = kind
    return storage.view(dtype.storage, shape)


def _row(array: np.ndarray, k: int) -> Storage:
    return Storage.borrowed(array[k, ...])


# -------------------------------------------------------------------------------------------- scan


class _Scan:
    """A scan to be run: the body's program and counts.

    The body's outputs are the carry, then what is stacked; if saved, that ends with the carry as it
    came in.
    """

    def __init__(self, body: Body, carries: int, xs: int, length: int, reverse: bool, saved: bool):
        self.runner, self.carries, self.xs = body.runner, carries, xs
        self.length, self.reverse, self.saved = length, reverse, saved
        outputs = body.runner.kinds
        self.stacked = [((length, *shape), dtype) for shape, dtype in outputs[carries:]]
        self.packing = Packing([*outputs[:carries], *self.stacked])
        counts = (carries, xs, length, reverse, saved)
        self.key = None if body.key is None else ("scan", counts, body.key)
        self.any_size = body.any_size and (xs > 0 or type(length) is int)

    def run(self, *arrays: np.ndarray) -> np.ndarray:
        """The callback: the steps one after the other."""
        end = self.carries + self.xs
        first, xs, constants = arrays[: self.carries], arrays[self.carries : end], arrays[end:]
        length = len(xs[0]) if xs else int(self.length)
        if not length:
            empty = [np.empty(plain(shape), dtype.storage) for shape, dtype in self.stacked]
            return self.packing.pack([*first, *empty])
        body = self.runner.sized([*first, *(x[0, ...] for x in xs), *constants])
        carry, fixed = list(map(_borrowed, first)), list(map(_borrowed, constants))
        stacks = [np.empty((length, *s), d.storage) for s, d in body.kinds[self.carries :]]
        for k in reversed(range(length)) if self.reverse else range(length):
            found = body.evaluate([*carry, *(_row(x, k) for x in xs), *fixed])
            carry = found[: self.carries]
            for stack, storage, kind in zip(
                stacks, found[self.carries :], body.kinds[self.carries :]
            ):
                stack[k] = _array(storage, kind)
        last = [_array(s, kind) for s, kind in zip(carry, body.kinds)]
        return self.packing.pack([*last, *stacks])


def scan(
    function: Callable[[Any, Any], tuple[Any, Any]],
    init: Any,
    xs: Any = None,
    length: int | None = None,
    reverse: bool = False,
) -> tuple[Any, Any]:
    """(carry, ys) of `carry, ys[k] = function(carry, xs[k])` for k = 0, 1, …; backwards if reverse.

        def step(h, x):
            h = mo.tanh(x @ w + h @ u)
            return h, h
        last, every = mo.scan(step, h0, inputs)

    function is called once; it is compiled as a program of its own, which runs length times.  init,
    xs and the results may be nested tuples, lists and dicts; xs None needs a length; ys may be
    None.  The carry keeps its shapes and dtypes.  What the function reads from outside is
    differentiated, too.  Gradient: a scan in the other direction, of any order.

    Raises ShapeError or DTypeError if the carry changes, JitError if the function asks for a value
    or writes to a Var.
    """
    carry = [as_var(leaf) for leaf in leaves_of(init)]
    rows = [as_var(leaf) for leaf in leaves_of(xs)]
    lengths = {x.shape[0] for x in rows if x.ndim} | ({length} if length is not None else set())
    if len(lengths) != 1 or any(not x.ndim for x in rows):
        raise ShapeError(f"scan: xs must have one length along their first axis, got {lengths}")
    (steps,) = lengths
    kinds = _kinds(carry) + [(x.shape[1:], x.dtype) for x in rows]
    recorded = Recorded("scan", function, (init, xs), kinds)
    if not isinstance(recorded.structure, tuple) or len(recorded.structure) != 2:
        raise TypeError("scan: the function must return two things: (carry, y)")
    new_carry, y = recorded.structure
    _check_carry("scan", carry, recorded.outputs[: len(leaves_of(new_carry))])
    last, stacks = _recorded_scan(recorded, carry, rows, steps, reverse)
    return rebuilt(init, last), rebuilt(y, stacks)


def _check_carry(where: str, carry: Sequence[Var], new: Sequence[Node]) -> None:
    if len(carry) != len(new):
        raise ShapeError(f"{where}: the carry has {len(carry)} parts, the new one {len(new)}")
    for before, after in zip(carry, new):
        if before.shape != after.shape or before.dtype is not after.dtype:
            error = DTypeError if before.shape == after.shape else ShapeError
            raise error(
                f"{where}: the carry must keep its shapes and dtypes, {describe(before)} became "
                f"{describe(after)}"
            )


def _recorded_scan(
    recorded: Recorded, carry: list[Var], xs: list[Var], length: int, reverse: bool
) -> tuple[list[Var], list[Var]]:
    """The final carry, and what is stacked without the carries that are kept for the gradient."""
    outer = [*carry, *xs, *(Var._of(n) for n in recorded.constants())]
    wanted = recording.grad and any(v.requires_grad for v in outer)
    shown = len(recorded.outputs) - len(carry)
    if wanted:
        recorded.outputs = [*recorded.outputs, *recorded.inputs[: len(carry)]]
    results = _scan_node(recorded, carry, xs, length, reverse, wanted)
    return results[: len(carry)], results[len(carry) : len(carry) + shown]


def _scan_node(
    recorded: Recorded, carry: list[Var], xs: list[Var], length: int, reverse: bool, saved: bool
) -> list[Var]:
    body = Body(recorded)
    plan = _Scan(body, len(carry), len(xs), length, reverse, saved)
    node = Escape(
        "scan", plan.run, (plan.packing.starts[-1],), plan.packing.dtype,
        *(v._node for v in (*carry, *xs)), *body.constants,
        gradient=functools.partial(_scan_gradient, plan, body), key=plan.key,
        any_size=plan.any_size,
    )  # fmt: skip
    return plan.packing.unpack(node)


def _scan_gradient(plan: _Scan, body: Body, node: Escape, g: Node) -> tuple[Node | None, ...]:
    """A scan of the body's gradient, in the other direction."""
    end = plan.carries + plan.xs
    inputs = [Var._of(i) for i in node.inputs]
    carry, xs, constants = inputs[: plan.carries], inputs[plan.carries : end], inputs[end:]
    g_all = plan.packing.unpack(g)
    results = plan.packing.unpack(node)
    if not plan.saved:
        again = Recorded.__new__(Recorded)
        again.inputs, again.structure = body.recorded.inputs, None
        again.outputs = [*body.outputs, *again.inputs[: plan.carries]]
        results = _scan_node(again, carry, xs, plan.length, plan.reverse, True)
    before = results[len(results) - plan.carries :]
    float_carry = [k for k, v in enumerate(carry) if v.dtype.is_float]
    float_xs = [k for k, v in enumerate(xs) if v.dtype.is_float]
    float_constants = [k for k, v in enumerate(constants) if v.dtype.is_float]
    float_stacks = [k for k, (_, d) in enumerate(plan.stacked) if d.is_float]
    g_carry = [g_all[k] for k in float_carry]
    g_stacks = [g_all[plan.carries + k] for k in float_stacks]
    zeros = [_zeros(constants[k]) for k in float_constants]

    def backward(state: Any, row: Any) -> tuple[Any, Any]:
        g_now, totals = state
        carry_now, x_now, g_row = row
        outputs, variables = _step(body, [*carry_now, *x_now], constants)
        wanted = [(outputs[k], w) for k, w in zip(float_carry, g_now)]
        wanted += [(outputs[plan.carries + k], w) for k, w in zip(float_stacks, g_row)]
        targets = [variables[k] for k in float_carry]
        targets += [variables[plan.carries + k] for k in float_xs]
        targets += [variables[plan.carries + plan.xs + k] for k in float_constants]
        found = _pullback(wanted, targets)
        first, second = len(float_carry), len(float_carry) + len(float_xs)
        added = [el.add(t, f) for t, f in zip(totals, found[second:])]
        return (found[:first], added), found[first:second]

    rows = (before, xs, g_stacks)
    (g_init, totals), g_xs = scan(backward, (g_carry, zeros), rows, plan.length, not plan.reverse)
    result: list[Node | None] = [None] * len(inputs)
    for places, start, found in (
        (float_carry, 0, g_init),
        (float_xs, plan.carries, g_xs),
        (float_constants, end, totals),
    ):
        for k, v in zip(places, found):
            result[start + k] = v._node
    return tuple(result)


def _zeros(v: Var) -> Var:
    return Var._of(full(0, v.shape, v.dtype))


def _step(body: Body, inputs: list[Var], constants: list[Var]) -> tuple[list[Var], list[Var]]:
    """The body over fresh variables: its outputs, and the variables to differentiate by."""
    variables = [_variable(v) if v.dtype.is_float else v for v in (*inputs, *constants)]
    places = [*body.recorded.inputs, *body.constants]
    with recording_gradients():
        nodes = body.recorded.instantiate({p: v._node for p, v in zip(places, variables)})
    return [Var._of(n) for n in nodes], variables


def _pullback(wanted: list[tuple[Var, Var]], targets: list[Var]) -> list[Var]:
    """The gradients of the sum of outputs times weights."""
    if not targets:
        return []
    if not wanted:
        return [_zeros(t) for t in targets]
    outputs, weights = zip(*wanted)
    with recording_gradients():
        total = _weighted(list(outputs), list(weights))
    return _grad(total, targets)


# -------------------------------------------------------------------------------------- while_loop


class _While:
    """A loop to be run: a condition and a body over one carry."""

    def __init__(self, condition: Body, body: Body, back: Body | None = None):
        self.condition, self.body = condition.runner, body.runner
        self.back = None if back is None else back.runner
        self.packing = Packing((body if back is None else back).runner.kinds)
        first = len(body.runner.kinds)
        second = first + len(condition.constants)
        self.ends = first, second, second + len(body.constants)
        bodies = [condition, body] if back is None else [condition, body, back]
        self.any_size = all(each.any_size for each in bodies)

    def split(self, arrays: Sequence[np.ndarray]) -> tuple[Sequence[np.ndarray], ...]:
        """The carry, the constants of the condition, those of the body, and the rest."""
        first, second, third = self.ends
        return arrays[:first], arrays[first:second], arrays[second:third], arrays[third:]

    def states(self, arrays: Sequence[np.ndarray]) -> Any:
        """The carry before every step, and at last the final one."""
        carry, of_condition, of_body, _ = self.split(arrays)
        condition = self.condition.sized([*carry, *of_condition])
        body = self.body.sized([*carry, *of_body])
        state = list(map(_borrowed, carry))
        fixed, of_test = list(map(_borrowed, of_body)), list(map(_borrowed, of_condition))
        while True:
            yield state
            (holds,) = condition.evaluate([*state, *of_test])
            if not _array(holds, ((), dt.bool_)):
                return
            state = body.evaluate([*state, *fixed])

    def run(self, *arrays: np.ndarray) -> np.ndarray:
        """The callback: the final carry."""
        last: list[Storage] = []
        for last in self.states(arrays):  # noqa: B007
            pass
        return self.packed(last, arrays)

    def run_back(self, *arrays: np.ndarray) -> np.ndarray:
        """The callback of the gradient: every state again, then the steps backwards."""
        assert self.back is not None
        states = list(self.states(arrays))[:-1]
        carry, _, of_body, rest = self.split(arrays)
        count = len(self.back.kinds)
        back = self.back.sized([*rest[:count], *carry, *of_body, *rest[count:]])
        flow = list(map(_borrowed, rest[:count]))
        fixed, others = list(map(_borrowed, of_body)), list(map(_borrowed, rest[count:]))
        for state in reversed(states):
            flow = back.evaluate([*flow, *state, *fixed, *others])
        return self.packed(flow, rest)

    def packed(self, storages: Sequence[Storage], like: Sequence[np.ndarray]) -> np.ndarray:
        """The results, which have the shapes of arrays."""
        kinds = self.packing.kinds
        return self.packing.pack(
            [_array(s, (a.shape, dtype)) for s, a, (_, dtype) in zip(storages, like, kinds)]
        )


def while_loop(condition: Callable[[Any], Any], function: Callable[[Any], Any], init: Any) -> Any:
    """`while condition(carry): carry = function(carry)`, as one operation.

    Both functions are called once; the carry keeps its shapes and dtypes.  Gradient: by running
    the loop again and its steps backwards; of n steps a second order costs n² steps.  Raises as
    `scan`.
    """
    carry = [as_var(leaf) for leaf in leaves_of(init)]
    test = Body(Recorded("while_loop", condition, (init,), _kinds(carry)))
    if len(test.outputs) != 1 or test.outputs[0].shape or test.outputs[0].dtype is not dt.bool_:
        raise DTypeError("while_loop: the condition must return one 0-d bool")
    body = Body(Recorded("while_loop", function, (init,), _kinds(carry)))
    _check_carry("while_loop", carry, body.outputs)
    plan = _While(test, body)
    packing = plan.packing
    node = Escape(
        "while_loop", plan.run, (packing.starts[-1],), packing.dtype,
        *(v._node for v in carry), *test.constants, *body.constants,
        gradient=functools.partial(_while_gradient, test, body),
        key=_while_key("while", test, body), any_size=plan.any_size,
    )  # fmt: skip
    return rebuilt(init, packing.unpack(node))


def _while_key(name: str, *bodies: Body) -> Any:
    keys = tuple(body.key for body in bodies)
    return None if None in keys else (name, keys)


class _WhileParts(NamedTuple):
    """The inputs of a while_loop, or of its gradient, by what they are.

    rest: of a gradient, the gradients of the last carry's floats, then zeros like the floats among
    the body's constants, to which the steps add.
    """

    carry: list[Var]
    of_condition: list[Var]
    constants: list[Var]
    rest: list[Var]

    @classmethod
    def of(cls, condition: Body, body: Body, values: Sequence[Var]) -> _WhileParts:
        """The parts of a list of inputs."""
        first = len(body.runner.kinds)
        second = first + len(condition.constants)
        third = second + len(body.constants)
        parts = values[:first], values[first:second], values[second:third], values[third:]
        return cls(*(list(part) for part in parts))

    @property
    def float_carry(self) -> list[int]:
        """Which parts of the carry are differentiated."""
        return [k for k, v in enumerate(self.carry) if v.dtype.is_float]

    @property
    def float_constants(self) -> list[int]:
        """Which constants of the body are differentiated."""
        return [k for k, v in enumerate(self.constants) if v.dtype.is_float]


def _while_gradient(condition: Body, body: Body, node: Escape, g: Node) -> tuple[Node | None, ...]:
    """One callback that runs the body's gradient backwards over the states of the loop."""
    parts = _WhileParts.of(condition, body, [Var._of(i) for i in node.inputs])
    g_all = Packing(body.runner.kinds).unpack(g)
    flow = [g_all[k] for k in parts.float_carry]
    flow += [_zeros(parts.constants[k]) for k in parts.float_constants]

    def backward(*values: Any) -> Any:
        first, second = len(flow), len(flow) + len(parts.carry)
        return _step_back(body, parts, values[:first], values[first:second], values[second:])

    given = (*flow, *parts.carry, *parts.constants)
    back = Body(Recorded("while_loop", backward, given, _kinds(given)))
    whole = _While(condition, body, back)
    packing = whole.packing
    result = Escape(
        "gradient of while_loop", whole.run_back, (packing.starts[-1],), packing.dtype,
        *node.inputs, *(v._node for v in flow), *back.constants,
        gradient=functools.partial(_while_second_gradient, condition, body, len(flow)),
        key=_while_key("while gradient", condition, body, back), any_size=whole.any_size,
    )  # fmt: skip
    found = [v._node for v in packing.unpack(result)]
    gradients: list[Node | None] = [None] * len(node.inputs)
    first_constant = len(parts.carry) + len(parts.of_condition)
    places = [*parts.float_carry, *(first_constant + k for k in parts.float_constants)]
    for k, gradient in zip(places, found):
        gradients[k] = gradient
    return tuple(gradients)


def _step_back(
    body: Body,
    parts: _WhileParts,
    flow: Sequence[Var],
    carry: Sequence[Var],
    constants: Sequence[Var],
) -> list[Var]:
    """The flow before a step, whose carry came in as given, from the flow after it."""
    outputs, variables = _step(body, list(carry), list(constants))
    count = len(parts.float_carry)
    targets = [variables[k] for k in parts.float_carry]
    targets += [variables[len(carry) + k] for k in parts.float_constants]
    found = _pullback([(outputs[k], w) for k, w in zip(parts.float_carry, flow)], targets)
    return [*found[:count], *(el.add(t, f) for t, f in zip(flow[count:], found[count:]))]


def _while_second_gradient(
    condition: Body, body: Body, flows: int, node: Escape, g: Node
) -> tuple[Node | None, ...]:
    """The gradient of `run_back`: that of the same result written with loops inside a loop."""
    inputs = [Var._of(i) for i in node.inputs]
    variables = [_variable(v) if v.dtype.is_float else v for v in inputs]
    parts = _WhileParts.of(condition, body, variables)
    kept = parts._replace(rest=parts.rest[:flows])
    results = _back_by_loops(condition, body, kept)
    weights = Packing(_kinds(results)).unpack(g)
    floats = [k for k, v in enumerate(variables) if v.dtype.is_float]
    found = _pullback(list(zip(results, weights)), [variables[k] for k in floats])
    gradients: list[Node | None] = [None] * len(inputs)
    for k, v in zip(floats, found):
        gradients[k] = v._node
    return tuple(gradients)


def _back_by_loops(condition: Body, body: Body, parts: _WhileParts) -> list[Var]:
    """What `run_back` computes, as a loop that computes every state from the start again."""

    def applied(made: Body, constants: list[Var], carry: Sequence[Var]) -> list[Var]:
        places = [*made.recorded.inputs, *made.constants]
        values = [v._node for v in (*carry, *constants)]
        return [Var._of(n) for n in made.recorded.instantiate(dict(zip(places, values)))]

    def advanced(state: Any) -> Any:
        carry, steps = state
        return applied(body, parts.constants, carry), el.add(steps, 1)

    start = (parts.carry, as_var(0))
    _, count = while_loop(
        lambda state: applied(condition, parts.of_condition, state[0])[0], advanced, start
    )

    def back(state: Any) -> Any:
        steps, flow = state
        left = el.subtract(steps, 1)
        carry, _ = while_loop(lambda inner: el.less(inner[1], left), advanced, start)
        return left, _step_back(body, parts, flow, carry, parts.constants)

    _, flow = while_loop(lambda state: el.greater(state[0], 0), back, (count, parts.rest))
    return list(flow)


# -------------------------------------------------------------------------------------------- cond


class _Cond:
    """A branch to be run."""

    def __init__(self, yes: Body, no: Body):
        self.yes, self.no, self.kinds = yes.runner, no.runner, yes.runner.kinds
        self.packing = Packing(self.kinds)
        self.operands = len(yes.recorded.inputs)
        self.border = len(yes.constants)
        self.any_size = yes.any_size and no.any_size

    def run(self, predicate: np.ndarray, *arrays: np.ndarray) -> np.ndarray:
        """The callback: one of the two."""
        operands, rest = arrays[: self.operands], arrays[self.operands :]
        own = rest[: self.border] if predicate else rest[self.border :]
        branch = (self.yes if predicate else self.no).sized([*operands, *own])
        found = branch.evaluate(list(map(_borrowed, (*operands, *own))))
        return self.packing.pack([_array(s, k) for s, k in zip(found, branch.kinds)])


def cond(
    predicate: Any,
    true_function: Callable[..., Any],
    false_function: Callable[..., Any],
    *operands: Any,
) -> Any:
    """true_function(*operands) if the predicate (one bool) holds, else false_function(*operands):
    only one of them is computed.

    Both are called once, and return the same structure of shapes and dtypes.  Gradient: a cond of
    the gradients, of any order.  Raises as `scan`.
    """
    choice = as_var(predicate)
    if size_of(choice.shape) != 1:
        raise ShapeError(f"cond: the predicate must have one element, it is {describe(choice)}")
    given = [as_var(leaf) for leaf in leaves_of(operands)]
    yes = Body(Recorded("cond", true_function, operands, _kinds(given)))
    no = Body(Recorded("cond", false_function, operands, _kinds(given)))
    if [(n.shape, n.dtype) for n in yes.outputs] != [(n.shape, n.dtype) for n in no.outputs]:
        kinds = (", ".join(describe(n) for n in b.outputs) for b in (yes, no))
        both = " and ".join(kinds)
        raise ShapeError(f"cond: both functions must return alike, they return {both}")
    plan = _Cond(yes, no)
    node = Escape(
        "cond", plan.run, (plan.packing.starts[-1],), plan.packing.dtype,
        cast(reshape(choice._node, ()), dt.bool_), *(v._node for v in given),
        *yes.constants, *no.constants,
        gradient=functools.partial(_cond_gradient, plan, yes, no), key=_while_key("cond", yes, no),
        any_size=plan.any_size,
    )  # fmt: skip
    return rebuilt(yes.recorded.structure, plan.packing.unpack(node))


def _cond_gradient(
    plan: _Cond, yes_body: Body, no_body: Body, node: Escape, g: Node
) -> tuple[Node | None, ...]:
    inputs = [Var._of(i) for i in node.inputs]
    values = inputs[1:]
    border = plan.operands + plan.border
    floats = [k for k, v in enumerate(values) if v.dtype.is_float]
    outputs_float = [k for k, (_, d) in enumerate(plan.kinds) if d.is_float]
    g_all = plan.packing.unpack(g)

    def gradient_of(body: Body, first: int, last: int) -> Callable[..., Any]:
        own = [*range(plan.operands), *range(first, last)]

        def gradient(given: Any, weights: Any) -> Any:
            operands, constants = given[: plan.operands], given[first:last]
            outputs, variables = _step(body, list(operands), list(constants))
            wanted = [(outputs[k], w) for k, w in zip(outputs_float, weights)]
            targets = {k: variables[position] for position, k in enumerate(own) if k in floats}
            found = dict(zip(targets, _pullback(wanted, list(targets.values()))))
            return [found.get(k, _zeros(given[k])) for k in floats]

        return gradient

    weights = [g_all[k] for k in outputs_float]
    yes = gradient_of(yes_body, plan.operands, border)
    no = gradient_of(no_body, border, len(values))
    found = cond(inputs[0], yes, no, values, weights)
    gradients: list[Node | None] = [None] * len(inputs)
    for k, v in zip(floats, found):
        gradients[1 + k] = v._node
    return tuple(gradients)
