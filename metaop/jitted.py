"""mo.jit: a function is recorded once per signature and guards, and replayed without its Python.

    step = mo.jit(step)                  # or @mo.jit above the function
    for x, t in loader:
        loss = step(x, t)                # the second call builds no graph

A trace is found by the key of its arguments, then by its guards (see `metaop.tracing`).  A replay
gathers the inputs, runs one program, and only then binds what the function wrote: Vars, .grad,
attributes, numbers.
"""

from __future__ import annotations

import ctypes
import functools
import re
import sys
import types
from collections.abc import Callable
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np

from . import life
from .compiler import programs
from .compiler.keys import is_leaf
from .compiler.program import Bound, KernelError, number_bytes
from .compiler.replay import Replay
from .compiler.signals import uninterrupted
from .config import config
from .dtype import DType, as_dtype
from .errors import CompilerBug, JitError, describe
from .grad import hooks
from .graph import Buffer, Custom, Node, Scalar, clone, computed, pending
from .recording import recording
from .storage import Storage
from .traced import TracedNumber
from .tracing import SIMPLE, TABLES, UNREAD, Captured, Met, Trace, _node_slot, matches, tracing
from .var import Var, buffer_of

# Traces of a function that are kept, one of the signature that was recorded first goes first: so
# many, or as many as have so many nodes (0.6 kB each) together, but those few in any case.
TRACES, TRACED_NODES, FEWEST_TRACES = 64, 20_000, 32
MISMATCH = object()


# ------------------------------------------------------------------------------------ arguments


class ArrayInput:
    """An ndarray argument, read in place: it is its own node and storage."""

    __slots__ = ("array", "address", "nbytes")
    requires_grad = False
    layout = None

    def __init__(self, array: np.ndarray, dtype: DType):
        flags = array.flags
        if not (flags.c_contiguous and flags.aligned and array.dtype == dtype.storage):
            array = np.require(array, dtype.storage, ["C", "A"])
        self.array = array
        self.address: int = array.__array_interface__["data"][0]
        self.nbytes = array.nbytes

    @property
    def _node(self) -> ArrayInput:
        return self

    @property
    def storage(self) -> ArrayInput:
        """The memory: the array's own."""
        return self


class Arguments:
    """The arguments of a call: a key, and what may differ among calls of one key."""

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]):
        self.inputs: list[Any] = []  # Var, ArrayInput, float
        self.fixed: list[Any] = []  # what the key names by id: kept alive by the trace
        self._first: dict[int, int] = {}
        key: list[Any] = [
            recording.grad, config.cpu, config.fuse, config.winograd, hooks.leaves,
        ]  # fmt: skip
        for value in args:
            key.append(self._key(value))
        if kwargs:
            key.append(tuple((name, self._key(value)) for name, value in kwargs.items()))
        self.key = tuple(key)

    def _key(self, value: Any) -> Any:
        kind = type(value)
        if isinstance(value, Var):
            node = value._node
            position = self._first.setdefault(id(value), len(self.inputs))
            self.inputs.append(value)
            return (kind, node.shape, node.dtype, node.requires_grad, node.stop, position)
        if kind is float:
            self.inputs.append(value)
            return float
        if kind is np.ndarray:
            dtype = as_dtype(value.dtype)
            self.inputs.append(ArrayInput(value, dtype))
            return (kind, value.shape, dtype)
        if isinstance(value, np.ndarray | np.generic):
            dtype = as_dtype(value.dtype)
            self.inputs.append(ArrayInput(np.asarray(value), dtype))
            return (np.ndarray, np.shape(value), dtype)
        if isinstance(value, SIMPLE):
            return (kind, repr(value))
        if isinstance(value, list | tuple):
            return (kind, *map(self._key, value))
        if isinstance(value, dict):
            return (kind, *[(name, self._key(item)) for name, item in value.items()])
        if isinstance(value, set | frozenset) and all(isinstance(v, SIMPLE) for v in value):
            return (kind, *sorted(map(repr, value)))
        self.fixed.append(value)
        return (kind, id(value))


class Proxies:
    """The arguments as the traced function sees them: Vars of its own, traced numbers."""

    def __init__(self, trace: Trace, arguments: Arguments):
        self.trace, self.arguments = trace, arguments
        self.position = 0
        self.vars: dict[int, Var] = {}  # position -> proxy

    def of(self, value: Any, label: str) -> Any:
        """The stand-in of an argument, in its nested structure."""
        if isinstance(value, Var | np.ndarray | np.generic):
            return self._proxy(label)
        if type(value) is float:
            self.position += 1
            return self.trace.argument(self.position - 1, value, label)
        if isinstance(value, SIMPLE):
            return value
        if isinstance(value, list | tuple):
            items = [self.of(item, f"{label}[{k}]") for k, item in enumerate(value)]
            return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
        if isinstance(value, dict):
            return type(value)((k, self.of(v, f"{label}[{k!r}]")) for k, v in value.items())
        self.trace.guard_value(self.trace.name_for(value), value, label)
        return value

    def _proxy(self, label: str) -> Var:
        given = self.arguments.inputs[self.position]
        first = self.arguments._first.get(id(given), self.position)
        self.position += 1
        if first in self.vars:
            return self.vars[first]
        kind = type(given) if isinstance(given, Var) else Var
        proxy: Var = kind.__new__(kind)
        if isinstance(given, Var):
            life.value_of(given._node)
            proxy._node, proxy._is_leaf, proxy._grad = given._node, given._is_leaf, given._grad
        else:
            proxy._node, proxy._is_leaf, proxy._grad = buffer_of(given.array), False, None
        self.vars[first] = proxy
        self.trace.adopt(proxy)
        if isinstance(given, Var):
            self.trace.stand_ins[id(given)] = proxy
        self.trace.paths[id(proxy)] = f"A[{first}]"
        self.trace.labels[f"A[{first}]"] = label
        return proxy


# ------------------------------------------------------------------------------------- results


class Version(Buffer):
    """The value of a Var that a replay has written: used again, with its memory, once no one else
    refers to either."""

    __slots__ = ()


def _var_of(node: Node) -> Var:
    var = Var.__new__(Var)
    var._node, var._is_leaf, var._grad = node, False, None
    return var


def _count(items: list[Any]) -> list[int]:
    return list(map(sys.getrefcount, items))


class _Slot:
    __slots__ = ("storage",)


def _calibrated() -> tuple[int, int]:
    """How many references the items of a list have that nobody else refers to; and those that a
    slot of another object refers to too."""
    alone, slot = [object()], _Slot()
    slot.storage = object()  # type: ignore[attr-defined]
    return _count(alone)[0], _count([slot.storage])[0]  # type: ignore[attr-defined]


ALONE, IN_A_SLOT = _calibrated()


# ---------------------------------------------------------------------------- what a trace becomes


class _Writer:
    """Puts the source of `enter` and `commit` together from a trace that is closed."""

    def __init__(self, trace: Trace, arguments: Arguments):
        self.trace, self.arguments = trace, arguments
        self.roots: dict[Node, None] = {}
        self.fresh: dict[int, tuple[Var, Node]] = {}  # Vars that each replay makes anew
        self.extras: list[str] = []  # expressions that `enter` evaluates for `commit`
        self.lines: list[str] = []  # of commit(F, X)
        self.candidates: dict[int, list[str]] = {}
        self.containers: set[str] = set()
        self.changes_structure = False
        self._label_children()
        self._find_paths()
        guarded: set[int] = set()
        while more := [key for key in trace.met if key not in guarded]:
            for key in more:  # a guard may meet what the trace only passed by
                self._guard_met(trace.met[key])
            guarded.update(more)
        self._guard_grads()
        trace.guard_classes()

    # -- how a replay finds the Vars of the trace ---------------------------------------------

    def _label_children(self) -> None:
        for met in list(self.trace.met.values()):
            for name, child in met.tables.get("_modules", {}).items():
                below = self.trace.met.get(id(child))
                if below is not None and "." not in below.label:
                    below.label = f"{met.label}.{name}"

    def _find_paths(self) -> None:
        trace = self.trace
        for met in trace.met.values():
            attributes = trace.name_for(met.attributes)
            for key, value in met.before.items():
                if key not in TABLES and key not in met.apart:
                    if key not in met.frozen or matches(value, met.frozen[key]):
                        self._find_vars(f"{attributes}[{key!r}]", value)
            for name, table in met.tables.items():
                for key, value in table.items():
                    if isinstance(value, Var):
                        if met.tables_after[name].get(key) is value:
                            trace.held.add(id(value))
                        else:
                            place = f"{trace.name_for(met.before[name])}[{key!r}]"
                            self._find_vars(place, value)
        for key, value in trace.paths.items():
            self.candidates.setdefault(key, []).append(value)
        for captured in trace.captured.values():
            captured.path = self.path(captured.var)
        for (key, kind), value in trace.cells.items():
            if kind == "_grad" and value is not None:
                place = f"{trace.captured[key].path}._grad"
                self.candidates.setdefault(id(value), []).append(place)
        for captured in trace.captured.values():
            captured.path = self.path(captured.var)

    def _find_vars(self, place: str, value: Any) -> bool:
        """Notes the Vars in a value and where they are; True if there are some."""
        if isinstance(value, Var):
            self.candidates.setdefault(id(value), []).append(place)
            return True
        if isinstance(value, list | tuple):
            found = [self._find_vars(f"{place}[{k}]", item) for k, item in enumerate(value)]
            if any(found):
                self.containers.add(place)
            return any(found)
        return False

    def path(self, var: Var) -> str:
        """The expression by which a replay finds a Var from outside."""
        places = self.candidates.get(id(var), [])
        if len(places) == 1 and id(var) not in self.trace.held:
            return places[0]
        return self.trace.name_for(var)

    def _guard_met(self, met: Met) -> None:
        trace = self.trace
        attributes = trace.name_for(met.attributes)
        watched = met.watched
        trace.require(
            f"len({attributes}) == {len(met.before)}", f"{met.label} has no new attribute", watched
        )
        for key, value in met.before.items():
            if key == "_unsaved" or key in met.apart:
                continue
            place, label = f"{attributes}[{key!r}]", f"{met.label}.{key}"
            if key in met.tables:
                trace.guard_same(place, value, label, watched)
                self._guard_table(met, key)
            else:
                self._guard_attribute(place, value, label, met.frozen.get(key), watched)

    def _guard_table(self, met: Met, table: str) -> None:
        entries, place = met.tables[table], self.trace.name_for(met.before[table])
        self.trace.require(
            f"len({place}) == {len(entries)}", f"{met.label}.{table} has no new entry", met.watched
        )
        for key, value in entries.items():
            expression = f"{place}[{key!r}]"
            self._guard_attribute(expression, value, f"{met.label}.{key}", None, met.watched)

    def _guard_attribute(
        self, place: str, value: Any, label: str, frozen: Any = None, watched: bool = False
    ) -> None:
        """A Var is read where it stands, if it stands nowhere else; all else is guarded."""
        trace = self.trace
        if place in self.containers:
            kind, size = trace.name_for(type(value)), len(value)
            trace.require(
                f"type({place}) is {kind} and len({place}) == {size}", f"len({label}) == {size}"
            )
            for k, item in enumerate(value):
                self._guard_attribute(f"{place}[{k}]", item, f"{label}[{k}]")
        elif isinstance(value, Var) and self.path(value) == place:
            self._guard_var(place, value, label)
        else:
            trace.guard_value(place, value, label, frozen=frozen, watched=watched)

    def _guard_var(self, place: str, value: Var, label: str) -> None:
        kind = self.trace.name_for(type(value))
        self.trace.require(f"type({place}) is {kind}", f"{label} is a {type(value).__name__}")
        captured = self.trace.captured.get(id(value))
        if captured is not None:
            shape, dtype = tuple(map(int, value.shape)), self.trace.name_for(value.dtype)
            self.trace.require(
                f"{place}._node.shape == {shape} and {place}._node.dtype is {dtype}",
                f"{label} is {describe(value)}",
            )

    def _guard_grads(self) -> None:
        trace = self.trace
        for (key, kind), value in trace.cells.items():
            if kind != "_grad":
                continue
            place = f"{trace.captured[key].path}._grad"
            if value is None:
                trace.require(f"{place} is None", f"{self.label(trace.captured[key])}.grad is None")
            else:
                self._guard_attribute(place, value, f"{self.label(trace.captured[key])}.grad")

    def label(self, captured: Captured) -> str:
        """What the repr of the trace calls a Var."""
        for met in self.trace.met.values():
            for table in (met.before, *met.tables.values()):
                for name, value in table.items():
                    if value is captured.var:
                        return f"{met.label}.{name}"
        return self.trace.labels.get(captured.path, describe(captured.node))

    # -- what a replay writes and returns -------------------------------------------------------

    def expression(self, value: Any) -> str:
        """What `commit` writes for a value: a new Var, one from outside, a number, a constant."""
        if isinstance(value, TracedNumber):
            return self._extra(value.name)
        if isinstance(value, Var):
            if self.trace.is_born(value):
                return self._new(value, _node_slot.__get__(value))
            if self.is_array(self.path(value)):  # its Var is the trace's own
                return self._new(value, self.captured_argument(value).current)
            return self._extra(self.path(value))
        if isinstance(value, list | tuple | dict):
            return self._container(value)
        return self.trace.name_for(value)

    def _extra(self, expression: str) -> str:
        if expression not in self.extras:
            self.extras.append(expression)
        return f"X[{self.extras.index(expression)}]"

    def captured_argument(self, var: Var) -> Captured:
        """The record of an argument that is returned, and perhaps not read."""
        captured = self.trace.capture(var)
        captured.path = self.path(var)
        return captured

    def _new(self, var: Var, node: Node) -> str:
        if id(var) not in self.fresh:
            self.fresh[id(var)] = (var, node)
            self.roots[node] = None
        return f"F[{list(self.fresh).index(id(var))}]"

    def _container(self, value: Any) -> str:
        kind = self.trace.name_for(type(value))
        if isinstance(value, dict):
            items = (f"({self.trace.name_for(k)}, {self.expression(v)})" for k, v in value.items())
            return f"{kind}([{', '.join(items)}])"
        parts = ", ".join(map(self.expression, value))
        return f"{kind}({parts})" if hasattr(value, "_fields") else f"{kind}([{parts}])"

    def effects(self) -> None:
        """The lines that write numbers, attributes and .grad."""
        self.trace.names |= {"put": dict.__setitem__, "drop": dict.pop}
        for cells, key, value in self.trace.written.values():
            place = self.trace.name_for(cells)
            self.lines.append(f"put({place}, {key!r}, {self.expression(value)})")
        for met in self.trace.met.values():
            self._changes(met.attributes, met.before, met.after)
            for name, after in met.tables_after.items():
                self._changes(met.before[name], met.tables[name], after)
        for captured in self.trace.captured.values():
            if captured.grad is not UNREAD and not self.is_array(captured.path):
                target = self._extra(captured.path)
                value = "None" if captured.grad is None else self.expression(captured.grad)
                self.lines.append(f"{target}._grad = {value}")
        if self.changes_structure:
            self.lines.append("changes.count += 1")

    def _changes(
        self, target: dict[str, Any], before: dict[str, Any], after: dict[str, Any]
    ) -> None:
        place = self.trace.name_for(target)
        for key in before.keys() - after.keys():
            self.lines.append(f"drop({place}, {key!r}, None)")
            self.changes_structure = True
        for key, value in after.items():
            if key not in before or before[key] is not value:
                self.lines.append(f"put({place}, {key!r}, {self.expression(value)})")
                is_state = isinstance(value, Var) and type(value) is type(before.get(key))
                self.changes_structure |= not is_state

    def is_array(self, path: str) -> bool:
        """True for the stand-in of an ndarray argument."""
        position = re.fullmatch(r"A\[(\d+)\]", path)
        return position is not None and not isinstance(self.arguments.inputs[int(position[1])], Var)

    def writes(self) -> list[Captured]:
        """The Vars from outside that the function wrote."""
        found = [c for c in self.trace.captured.values() if c.current is not c.node]
        found = [c for c in found if not self.is_array(c.path)]  # nobody sees such a write
        for captured in found:
            self.roots[captured.current] = None
        return found


class _Run(NamedTuple):
    """What one replay read and made."""

    nodes: list[Any]
    numbers: tuple[Any, ...]
    outputs: dict[int, Any]


class Recording:
    """A finished trace: the guards, the program, and what a replay binds."""

    def __init__(self, trace: Trace, arguments: Arguments, output: Any):
        writer = _Writer(trace, arguments)
        self.name, self.fixed, self.guards = trace.name, arguments.fixed, trace.guards
        writer.lines.append(f"return {writer.expression(output)}")
        result = writer.lines.pop()
        writer.effects()
        self.written = writer.writes()
        self.is_graph = self._has_history(writer)
        if self.is_graph:
            self._keep_graph(writer)
        else:
            self._make_program(trace, writer)
        self._plan_outputs(writer)
        self._compile(trace, writer, result)
        self._let_go(trace)

    def _let_go(self, trace: Trace) -> None:
        """Values of the first call are not kept alive by the graph."""
        for captured in trace.captured.values():
            captured.node.storage = None
        for node in self.nodes:
            if isinstance(node, Scalar) and isinstance(node.value, TracedNumber):
                node.value = node.value.example
        trace.let_go()

    def _has_history(self, writer: _Writer) -> bool:
        """True if a gradient may be asked for through something that outlives the call."""
        return any(node.requires_grad and not node.stop for node in writer.roots)

    def _make_program(self, trace: Trace, writer: _Writer) -> None:
        """Compiles what has to be computed; the rest are copies of inputs and constants."""
        roots = [n for n in writer.roots if life.alias(n) is None]
        self.nodes = pending(roots)
        stand_ins = {c.node for c in trace.captured.values()}
        for node in self.nodes:
            if node not in stand_ins:
                node.requires_grad = False
        self.roots = roots
        self.program: Bound | None = None
        leaves: list[Node] = []
        results: list[tuple[str, int]] = []
        if roots:
            self.program, leaves = programs.program_for(self.nodes, roots)
            results = self.program.results
        self.places: dict[Node, tuple[str, Any]] = {}
        for node, (kind, number) in zip(roots, results):
            self.places[node] = (kind, number) if kind == "out" else ("leaf", leaves[number])
        for node in writer.roots:
            if node not in self.places:
                self.places[node] = ("leaf", life.alias(node))
        self.leaves = leaves
        forms = [] if self.program is None else self.program.forms(leaves)
        self.layouts = {node: form.layout for node, form in zip(roots, forms)}
        for node, (_, place) in self.places.items():
            if node not in self.layouts and not isinstance(place, Scalar):
                self.layouts[node] = place.layout

    def _keep_graph(self, writer: _Writer) -> None:
        """Leaves everything to be recorded anew by each replay, with its history."""
        self.roots = list(writer.roots)
        self.nodes = pending(self.roots)
        for node in self.nodes:
            if type(node) is Custom:
                raise JitError(
                    f"{self.name} returns or keeps a value made by the mo.Function "
                    f"{node.call.name} at {node.site}, through which a gradient could be asked "
                    "for; call backward() or opt.step(loss) inside the jitted function, or record "
                    "under mo.no_grad()"
                )
        self.program = None
        self.leaves = [n for n in self.nodes if is_leaf(n)]
        self.places = dict.fromkeys(self.roots, ("graph", None))

    def _plan_outputs(self, writer: _Writer) -> None:
        """Which outputs go to memory that is used again: those that only one Var is bound to."""
        users: dict[int, int] = {}
        makers = [c.current for c in self.written] + [node for _, node in writer.fresh.values()]
        for node in makers:
            kind, number = self.places[node]
            if kind == "out":
                users[number] = users.get(number, 0) + 1
        self.kept: list[Captured] = []
        self.others: list[Node] = []
        self.targets: list[int] = []
        spare_of: dict[int, int] = {}
        for captured in self.written:
            kind, number = self.places[captured.current]
            is_own = kind == "out" and users[number] == 1 and captured.path == captured.name
            if is_own:
                spare_of[number] = len(self.kept)
            if is_own:
                self.kept.append(captured)
            else:
                self.others.append(captured.current)
                self.targets.append(int(writer._extra(captured.path)[2:-1]))
        outputs = self.program.outputs if self.program is not None else []
        self.own_outputs = list(spare_of)
        self.new_outputs = [k for k in range(len(outputs)) if k not in spare_of]
        self.fresh = [node for _, node in writer.fresh.values()]
        self.new_bytes = [outputs[k][1] for k in self.new_outputs]
        self.rest()

    def rest(self) -> None:
        """Forgets what changes from replay to replay: for every kept Var the node it is bound to
        and the one it will be bound to next, each with its memory."""
        count = len(self.kept)
        self.vars = [c.var for c in self.kept]
        self.sites = [c.node.overwritten or c.current.site for c in self.kept]
        self.alone, self.in_a_slot = [ALONE] * count, [IN_A_SLOT] * count
        self.spares: list[Any] = [None] * count
        self.spare_storages: list[Any] = [None] * count
        self.spare_addresses = np.zeros(count, np.int64)
        self.all_own = False  # whether every spare was made here
        self.foreign = True  # whether what is bound now was not
        self.bound: list[Any] = [None] * count
        self.bound_storages: list[Any] = []
        self.bound_addresses = self.spare_addresses
        self.static: list[Any] | None = None

    def _compile(self, trace: Trace, writer: _Writer, result: str) -> None:
        by_node = {c.node: c for c in trace.captured.values()}
        kept = {c.node: k for k, c in enumerate(self.kept)}
        read = [n for n in self.leaves if not isinstance(n, Scalar)]
        others = [n for n in by_node if n not in read and n not in kept]
        given = {n for n, c in by_node.items() if c.path.startswith("A[")}
        groups = [
            [n for n in [*read, *others] if n not in kept and n not in given],
            list(kept),
            [n for n in [*read, *others] if n in given],
        ]
        self.static_count = sum(n in read for n in groups[0])
        self.given_count = sum(n in read for n in groups[2])
        self.kept_read = np.array([kept[n] for n in read if n in kept], np.int64)
        if self.program is not None:
            self._order_addresses(self.program, groups, read, kept)
        self.shared: list[bool] | None = None  # which arguments are values from outside
        self.expected = [[n.requires_grad for n in group] for group in groups]
        self.expected_layouts = [
            [n.layout for n in groups[0][: self.static_count]],
            [n.layout for n in groups[1]],
            [n.layout for n in groups[2][: self.given_count]],
        ]
        made = [self.layouts.get(c.current) for c in self.kept] if self.program else []
        self.keeps_layouts = made == self.expected_layouts[1]
        self.position = {n: k for k, n in enumerate(n for group in groups for n in group)}
        for captured in trace.captured.values():
            self.guards.append(f"{writer.label(captured)}.requires_grad is "
                               f"{captured.node.requires_grad}")  # fmt: skip
        numbers = self._numbers(trace)
        tuples = f"({', '.join(numbers)}{',' if numbers else ''})"
        extras = f"({', '.join(writer.extras)}{',' if writer.extras else ''})"
        lists = [
            [f"{by_node[n].path}._node" if n in by_node else trace.name_for(n) for n in group]
            for group in groups
        ]
        answer = ", ".join(f"[{', '.join(names)}]" for names in lists) + f", {tuples}, {extras}"
        self.enter = trace.function(trace.source(True, answer))
        # of the first replay, which needs no guards
        self.enter_unchecked: Any = trace.function(trace.source(False, answer))
        self.commit = trace.function("\n    ".join(["def commit(F, X):", *writer.lines, result]))

    def _order_addresses(
        self, program: Bound, groups: list[list[Node]], read: list[Node], kept: dict[Node, int]
    ) -> None:
        """In which order `addresses` has what a replay reads and writes: what stays where it is;
        old and new values of kept Vars, which change places; what is elsewhere at every call."""
        slot_of = {n: program.inputs[k][0] for n, k in zip(read, program.arrays)}
        parts = [
            [slot_of[n] for n in groups[0][: self.static_count]],
            [slot_of[n] for n in read if n in kept],
            [program.outputs[k][0] for k in self.own_outputs],
            [slot_of[n] for n in groups[2][: self.given_count]]
            + [program.outputs[k][0] for k in self.new_outputs],
        ]
        slots = [slot for part in parts for slot in part]
        self.replayed = Replay(program, slots, self.nodes)
        self.addresses = np.zeros(len(slots), np.int64)
        ends = list(accumulate(map(len, parts)))
        views = [self.addresses[end - len(part) : end] for part, end in zip(parts, ends)]
        self.at_static, self.at_read, self.at_own, self.at_new = views

    def _numbers(self, trace: Trace) -> list[str]:
        scalars = [n for n in self.leaves if isinstance(n, Scalar)]
        traced = dict.fromkeys(n.value.name for n in scalars if isinstance(n.value, TracedNumber))
        if traced:
            listed = f"({', '.join(traced)},)"
            trace.require(f"LITERALS.isdisjoint({listed})", f"none of {listed} is 0, ±1, ±2, 0.5")
        self.number_of = {n: k for k, n in enumerate(scalars)}
        return [
            n.value.name if isinstance(n.value, TracedNumber) else trace.name_for(n.value)
            for n in scalars  # a count of examples is no part of the text
        ]

    # -- a replay -------------------------------------------------------------------------------

    def replay(self, inputs: list[Any], checked: bool = True) -> Any:
        """What the function returns for these arguments; MISMATCH if a guard does not hold."""
        if checked:
            try:
                entered = self.enter(inputs)
            except Exception:  # a name, key or attribute that is gone, a division by zero
                return MISMATCH
        else:
            entered, self.enter_unchecked = self.enter_unchecked(inputs), None
        if entered is None:
            return MISMATCH
        static, kept, given, numbers, extras = entered
        if not self._fits(static, kept, given):
            return MISMATCH
        if self.is_graph:
            return self._record_again([*static, *kept, *given], numbers, extras)
        self._make_spares()
        storages = [Storage(nbytes) for nbytes in self.new_bytes]
        if self.program is not None:
            read = [node.storage for node in given[: self.given_count]]
            self.at_read[:] = self.bound_addresses[self.kept_read]
            self.at_own[:] = self.spare_addresses
            self.at_new[:] = [storage.address for storage in [*read, *storages]]
            self._run(numbers)
        fresh, others = [], []
        if self.fresh or self.others:
            run = _Run([*static, *kept, *given], numbers, dict(zip(self.new_outputs, storages)))
            fresh = [_var_of(self._value(node, run, Buffer)) for node in self.fresh]
            others = [self._value(node, run, Version) for node in self.others]
        with uninterrupted():
            self._bind()
            for target, version in zip(self.targets, others):
                self._bind_other(extras[target], version)
            return self.commit(fresh, extras)

    def _fits(self, static: list[Any], kept: list[Any], given: list[Any]) -> bool:
        """Whether requires_grad is as it was; sees that everything read is computed.

        What was looked at before, and is the same node now, is not looked at again.
        """
        if [n.requires_grad for n in given] != self.expected[2]:
            return False
        outside = [*static, *kept]
        shared = [node in outside for node in given]
        if self.shared is None:
            self.shared = shared
        elif shared != self.shared:  # an argument is a Var that the function also has from outside
            return False
        read = given[: self.given_count]
        for node in read:
            if node.storage is None:
                life.value_of(node)
        if [n.layout for n in read] != self.expected_layouts[2] and not self.is_graph:
            return False
        if kept != self.bound or self.is_graph or not self.keeps_layouts:  # by identity
            if [n.requires_grad for n in kept] != self.expected[1]:
                return False
            self.bound_storages = [life.value_of(n) for n in kept]
            if [n.layout for n in kept] != self.expected_layouts[1] and not self.is_graph:
                return False
            self.bound_addresses = np.array([s.address for s in self.bound_storages], np.int64)
            self.bound, self.foreign = kept, True
        if static != self.static or self.is_graph:
            if [n.requires_grad for n in static] != self.expected[0]:
                return False
            read = static[: self.static_count]
            storages = [life.value_of(n) for n in read]
            if self.program is not None:
                self.at_static[:] = [s.address for s in storages]
            if [n.layout for n in read] != self.expected_layouts[0] and not self.is_graph:
                return False
            self.static = static
        return True

    def _record_again(self, nodes: list[Any], numbers: tuple[Any, ...], extras: Any) -> Any:
        """The graph of the trace over the Vars and numbers of this call, pending like any other."""
        new: dict[Node, Node] = {}
        for node in self.nodes:
            if node in self.position:
                given = nodes[self.position[node]]
                new[node] = buffer_of(given.array) if isinstance(given, ArrayInput) else given
            elif isinstance(node, Scalar):
                new[node] = clone(node, ())
                if node in self.number_of:
                    new[node].value = numbers[self.number_of[node]]  # type: ignore[attr-defined]
            elif node.storage is not None:
                new[node] = node
            else:
                new[node] = clone(node, tuple([new[source] for source in node.inputs]))
        fresh = [Var._of(new[node]) for node in self.fresh]
        bound = []
        for node, target in zip(self.others, self.targets):
            version, var = new[node], extras[target]
            life.mark_leaf(version, var)
            bound.append((var, version))
        results = []
        life.rebind(bound, lambda: results.append(self.commit(fresh, extras)))
        return results[0]

    def _run(self, numbers: tuple[Any, ...]) -> None:
        try:
            self.replayed.run(self.addresses, numbers)
        except KernelError as fault:
            raise life._error_for(self.nodes[fault.check.position], fault) from None
        except MemoryError as fault:
            assert self.program is not None
            raise life._out_of_memory(fault, self.program, self.roots) from None

    def _make_spares(self) -> None:
        """Sees that every kept Var has a node and memory for its new value to which nothing else
        refers: those of the value before the last, or new ones."""
        if (
            _count(self.spares) == self.alone
            and _count(self.spare_storages) == self.in_a_slot
            and self.all_own
        ):
            return
        nodes, storages = _count(self.spares), _count(self.spare_storages)
        for k, captured in enumerate(self.kept):
            is_free = nodes[k] == ALONE and storages[k] == IN_A_SLOT
            if not is_free or type(self.spares[k]) is not Version:
                node = captured.current
                storage = Storage(node.nbytes)
                layout = self.layouts.get(node)
                version = computed(Version, storage, node.shape, node.dtype, node.site, layout)
                life.mark_leaf(version, captured.var)
                self.spares[k], self.spare_storages[k] = version, storage
                self.spare_addresses[k] = storage.address
        self.all_own = True

    def _bind(self) -> None:
        if life._transactions.log is not None:
            self._log(zip(self.vars, self.bound, self.spares))
        for var, version, old, site in zip(self.vars, self.spares, self.bound, self.sites):
            old.overwritten = site
            version.overwritten = None
            var._node = version
        self.bound, self.spares = self.spares, self.bound
        self.bound_storages, self.spare_storages = self.spare_storages, self.bound_storages
        self.bound_addresses, self.spare_addresses = self.spare_addresses, self.bound_addresses
        self.all_own, self.foreign = not self.foreign, False

    def _bind_other(self, var: Var, version: Any) -> None:
        old = var._node
        life.mark_leaf(version, var)
        if life._transactions.log is not None:
            self._log([(var, old, version)])
        old.overwritten = version.site
        var._node = version

    def _log(self, changes: Any) -> None:
        log, group = life._transactions.log, object()
        assert log is not None
        for var, old, new in changes:
            log.append(life.Write(var, old, new, group, life._transactions.since))

    def _value(self, node: Node, run: _Run, kind: type[Buffer]) -> Buffer:
        """A node that holds what a run computed for a node of the trace."""
        source, place = self.places[node]
        if source == "out":
            storage = run.outputs[place]
        elif isinstance(place, Scalar):
            storage = Storage(place.dtype.itemsize)
            content = number_bytes(run.numbers[self.number_of[place]], place.dtype)
            ctypes.memmove(storage.address, content, len(content))
        elif place in self.position:
            storage = run.nodes[self.position[place]].storage
            if isinstance(storage, ArrayInput):
                storage = Storage.of_array(storage.array)
        else:
            storage = place.storage
        layout = self.layouts.get(node)
        version = computed(kind, storage, node.shape, node.dtype, node.site, layout)
        version.dropped = node.dropped
        return version

    def __repr__(self) -> str:
        return f"trace of {self.name}, replayed while\n  " + "\n  ".join(self.guards)


# ------------------------------------------------------------------------------------------ jit


class Jitted:
    """A function under `mo.jit`; `traces` are its recordings, each with its guards."""

    def __init__(self, function: Callable[..., Any]):
        self.function = function
        self._traces: dict[Any, list[Recording]] = {}
        self._latest: Recording | None = None  # the only one that holds memory
        self.count = 0  # of recordings ever made
        functools.update_wrapper(self, function, updated=())

    @property
    def traces(self) -> list[Recording]:
        """The recordings, by signature, the one used last first."""
        return [trace for bucket in self._traces.values() for trace in bucket]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the function returns; as it, it may write Vars, optimisers, Modules."""
        if recording.trace is not None:
            return self.function(*args, **kwargs)
        if config.check_nan:
            return self._unrecorded(args, kwargs)
        arguments = Arguments(args, kwargs)
        with life.lock:
            bucket = self._traces.get(arguments.key, ())
            for k, trace in enumerate(bucket):
                self._rest_but(trace)
                result = trace.replay(arguments.inputs)
                if result is not MISMATCH:
                    if k:
                        bucket.insert(0, bucket.pop(k))  # type: ignore[union-attr]
                    return result
            trace = self._record(arguments, args, kwargs)
            self._rest_but(trace)
            result = trace.replay(arguments.inputs, checked=False)
            if result is MISMATCH:
                raise CompilerBug(f"the trace of {trace.name} does not fit the call that made it")
            self._remember(arguments.key, trace)
            return result

    def _rest_but(self, trace: Recording) -> None:
        """Notes that this trace is replayed now: the one before it lets go of its memory."""
        if trace is not self._latest:
            if self._latest is not None:
                self._latest.rest()
            self._latest = trace

    def _unrecorded(self, args: Any, kwargs: Any) -> Any:
        """The plain function, and what it recorded computed, for `mo.debug_nans`."""
        result = self.function(*_with_vars(args), **_with_vars(kwargs))
        life.sync()
        return result

    def _record(self, arguments: Arguments, args: Any, kwargs: Any) -> Recording:
        name = getattr(self.function, "__name__", type(self.function).__name__)
        trace = Trace(name)
        proxies = Proxies(trace, arguments)
        names = _parameter_names(self.function, len(args))
        given = [proxies.of(value, name) for value, name in zip(args, names)]
        named = {key: proxies.of(value, key) for key, value in kwargs.items()}
        trace.guard_object(self.function, name)
        try:
            with tracing(trace):
                output = self.function(*given, **named)
        finally:
            trace.close()
        self.count += 1
        return Recording(trace, arguments, output)

    def _remember(self, key: Any, trace: Recording) -> None:
        self._traces.setdefault(key, []).insert(0, trace)
        while self._keeps_too_many():
            oldest = next(iter(self._traces))
            self._traces[oldest].pop()
            if not self._traces[oldest]:
                del self._traces[oldest]

    def _keeps_too_many(self) -> bool:
        count = sum(map(len, self._traces.values()))
        nodes = sum(len(trace.nodes) for trace in self.traces)
        return count > TRACES or (nodes > TRACED_NODES and count > FEWEST_TRACES)

    def _meet(self, trace: Trace, label: str) -> None:
        trace.guard_object(self.function, label)

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else types.MethodType(self, instance)

    def __repr__(self) -> str:
        name = getattr(self.function, "__qualname__", repr(self.function))
        return "\n".join([f"jit({name}), {len(self.traces)} traces", *map(repr, self.traces)])


def _with_vars(value: Any) -> Any:
    """Arguments with Vars for the arrays in them, as a traced function gets them."""
    if isinstance(value, np.ndarray | np.generic):
        return _var_of(buffer_of(np.asarray(value)))
    if isinstance(value, list | tuple):
        items = [_with_vars(item) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    if isinstance(value, dict):
        return type(value)((key, _with_vars(item)) for key, item in value.items())
    return value


def _parameter_names(function: Callable[..., Any], count: int) -> list[str]:
    code = getattr(getattr(function, "__func__", function), "__code__", None)
    names = list(code.co_varnames[: code.co_argcount]) if code is not None else []
    if isinstance(function, types.MethodType):
        names = names[1:]
    return (names + [f"argument {k}" for k in range(count)])[:count]


def jit(function: Callable[..., Any]) -> Jitted:
    """The function, recorded once per signature and replayed as one program.

    It may be any function of Vars, ndarrays, numbers, Modules and optimisers: a whole training
    step, `mo.jit(net)`, a method.  Its traces are keyed by shapes, dtypes and structure of the
    arguments, by int, str, bool and None arguments and by whether gradients are recorded; each has
    guards on what else the function saw (`repr` lists them).  What has changed is recorded again,
    never replayed stale.  Float arguments, learning rates and the like are inputs: a new value
    costs nothing.  Guards see Modules, optimisers, and the globals, closure cells, defaults,
    containers, classes and objects of the user's that the function and what it calls name, which
    functions of libraries those names are, and the content of ndarrays that become Vars or have up
    to 4 KB.  What Python gets from elsewhere (the clock, a file, NumPy's random numbers) it gets at
    recording only.

    Raises JitError where the function asks for a value (`if x > 0`, `x.item()`, `print(x)`).

        @mo.jit
        def step(x, t):
            loss = cross_entropy(net(x), t)
            optimizer.step(loss)
            return loss
    """
    if not callable(function):
        raise TypeError(
            f"jit: a function, method or Module is wanted, not {type(function).__name__}"
        )
    return Jitted(function)
