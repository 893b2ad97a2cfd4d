"""What a trace sees: every Var that is read or written, every number, every guard.

While a function is traced, the Vars that were there before are not touched.  `Var._node` and
`Var._grad` are slots; for the time of a trace a descriptor stands in front of them.  It answers
the first read of such a Var with a stand-in, a leaf of the traced graph of which the trace knows
the Var, and keeps what is written to it in the trace.  So no read goes unseen, an exception leaves
nothing to undo, and the first call is a replay like all others.

A trace ends as the source of one Python function, `enter`.  It checks the guards in the order in
which they arose, computes the numbers, and gathers the nodes of the Vars that the program reads.
"""

from __future__ import annotations

import enum
import functools
import operator
import re
import sys
import threading
import types
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from . import life
from .errors import JitError, describe, is_library, user_site
from .graph import LITERALS, Buffer, Node, _sequence
from .recording import recording
from .traced import Cells, TracedNumber, changes
from .var import Var

UNREAD = object()
TABLES = ("_parameters", "_buffers", "_modules")
CONTAINERS = (list, tuple, dict, set, frozenset, deque, bytearray)
SMALL_ARRAY = 4096  # bytes of an ndarray whose content is guarded wherever a function names it
SIMPLE = (bool, int, float, complex, str, bytes, type(None))
DEEPEST = 3  # of plain objects, and of functions called by functions, that are looked into
DEAD_DEPTH = 1 << 60  # makes `life.bound` look at a node that is computed from a dead one

_node_slot: Any = Var.__dict__["_node"]
_grad_slot: Any = Var.__dict__["_grad"]


def same(a: Any, b: Any) -> bool:
    """True for equal simple values of one type; 0.0 is not -0.0, NaN is NaN."""
    return a is b or (type(a) is type(b) and repr(a) == repr(b))


def freeze(value: Any) -> Any:
    """A snapshot of nested lists, tuples, sets and dicts, for `matches`."""
    if isinstance(value, list | tuple | deque):
        return (type(value), [freeze(v) for v in value])
    if isinstance(value, bytearray) or _is_small_array(value):
        return (bytes, bytes(value))
    if isinstance(value, dict):
        return (type(value), {key: freeze(v) for key, v in value.items()})
    if isinstance(value, set | frozenset) and all(isinstance(v, SIMPLE) for v in value):
        return (type(value), set(value))
    return (None, value)


def _is_small_array(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.nbytes <= SMALL_ARRAY


def matches(value: Any, frozen: Any) -> bool:
    """True if a value is still as it was when it was frozen."""
    kind, content = frozen
    if kind is None:
        return value is content or (isinstance(content, SIMPLE) and same(value, content))
    if kind is bytes:
        return bytes(value) == content
    if type(value) is not kind or len(value) != len(content):
        return False
    if isinstance(content, set):
        return bool(value == content)
    if isinstance(content, dict):
        return all(key in value and matches(value[key], v) for key, v in content.items())
    return all(map(matches, value, content))


class Captured:
    """A Var from outside: its stand-in, and what the trace wrote to it.

    path: how a replay finds it, the name of the Var itself or an attribute, an argument, a .grad.
    """

    __slots__ = ("var", "name", "node", "current", "grad", "path", "label")

    def __init__(self, var: Var, name: str, node: Node):
        self.var, self.name, self.node, self.current = var, name, node, node
        self.grad: Any = UNREAD
        self.path = name
        self.label = ""


class Met:
    """An object whose attributes the function may read: as they were before the trace."""

    def __init__(self, object_: Any, label: str, apart: tuple[str, ...]):
        self.object, self.label, self.apart = object_, label, apart
        self.watched: bool = getattr(type(object_), "_watched", False)
        self.attributes: dict[str, Any] = object_.__dict__
        self.before = dict(self.attributes)
        self.tables = {t: dict(self.before[t]) for t in TABLES if t in self.before}
        self.frozen = {k: freeze(v) for k, v in self.before.items()
                       if k not in TABLES and isinstance(v, CONTAINERS)
                       and k not in apart}  # fmt: skip
        # what guards meet when the function has ended, it did not change
        self.after: dict[str, Any] = self.before
        self.tables_after: dict[str, dict[str, Any]] = self.tables

    def restore(self) -> None:
        """Notes what the function changed, and takes it back."""
        self.after, self.tables_after = dict(self.attributes), {}
        for name, table in self.tables.items():
            self.tables_after[name] = dict(self.before[name])
            _refill(self.before[name], table)
        _refill(self.attributes, self.before)


def _refill(target: dict[str, Any], content: dict[str, Any]) -> None:
    if len(target) != len(content) or any(
        target.get(k, target) is not v for k, v in content.items()
    ):
        target.clear()
        target.update(content)


class Trace:
    """One recording of a function, and the guards under which it may be replayed."""

    def __init__(self, name: str):
        self.name = name
        self.closed = False
        self.start = next(_sequence)
        self.adopted: dict[int, Var] = {}  # made for the trace, but outside it
        self.stand_ins: dict[int, Var] = {}  # of the Vars that are arguments
        self.captured: dict[int, Captured] = {}
        self.born: list[weakref.ref[Var]] = []
        self.met: dict[int, Met] = {}
        self.cells: dict[tuple[int, str], Any] = {}
        self.written: dict[tuple[int, str], tuple[Cells, str, Any]] = {}
        self.paths: dict[int, str] = {}  # of the arguments
        self.arrays: dict[int, tuple[Any, bytes]] = {}
        self.held: set[int] = set()  # Vars of which the identity is guarded
        self.guards: list[str] = []
        self.watched: list[str] = []
        self.lines: list[tuple[str, str]] = []  # ("require", condition) or (name, expression)
        self.labels: dict[str, str] = {}
        self.names: dict[str, Any] = {
            "same": same, "matches": matches, "LITERALS": LITERALS, "is_": operator.is_,
            "get": dict.__getitem__, "changes": changes, "seen": types.SimpleNamespace(count=-1),
        }  # fmt: skip
        self._entries: set[tuple[int, int]] = set()
        self._required: set[str] = set()
        self._name_of: dict[int, str] = {}
        self._name_of_number: dict[str, str] = {}  # by expression
        self._counts: dict[int, TracedNumber] = {}  # by value: optimisers' counts of steps
        self._functions: set[int] = set()
        self._classes: dict[type, None] = {}
        self._guarded: set[tuple[int, str]] = set()

    # -- the source of `enter` ------------------------------------------------------------------

    def name_for(self, value: Any) -> str:
        """A name for an object in the source."""
        name = self._name_of.get(id(value))
        if name is None:
            name = self._name_of[id(value)] = f"k{len(self.names)}"
            self.names[name] = value
        return name

    def constant(self, value: Any) -> str:
        """A literal of the source, or a name for it."""
        if type(value) in (bool, int) or (type(value) is float and value == value
                                          and abs(value) != float("inf")):  # fmt: skip
            return f"({value!r})"
        return self.name_for(value)

    def let(self, expression: str) -> str:
        """A name for the value of an expression."""
        if self.closed:
            raise JitError(
                f"{user_site()}: a number of the finished trace of {self.name} is used here; "
                "return it from the jitted function"
            )
        name = self._name_of_number.get(expression)
        if name is None:
            name = self._name_of_number[expression] = f"n{len(self.lines)}"
            self.lines.append((name, expression))
            self.labels[name] = expression
        return name

    def require(self, condition: str, label: str, watched: bool = False) -> None:
        """A guard: a replay goes on only where the condition holds.

        watched: whatever can break it counts in `changes`.
        """
        if condition in self._required:
            return
        self._required.add(condition)
        if watched:
            self.watched.append(condition)
        else:
            self.lines.append(("require", condition))
        self.guards.append(self._explain(label))

    def _explain(self, label: str) -> str:
        """A label with the numbers of the source spelled out."""
        for _ in range(20):
            longer = re.sub(r"(?<!\.)\bn\d+\b", self._spelled, label)
            if longer == label or len(longer) > 200:
                break
            label = longer
        return label

    def _spelled(self, name: re.Match[str]) -> str:
        """What a number of the source stands for; a name of the user's as it is."""
        known = self.labels.get(name.group())
        return name.group() if known is None else f"({known})"

    def source(self, checked: bool, result: str) -> str:
        """The text of `enter`, or of what computes only the numbers and nodes."""
        text = ["def enter(A):"]
        if checked:
            text += ["    if changes.count != seen.count:",
                     *(f"        if not ({condition}): return None" for condition in self.watched),
                     "        seen.count = changes.count"]  # fmt: skip
        for name, expression in self.lines:
            if name != "require":
                text.append(f"    {name} = {expression}")
            elif checked:
                text.append(f"    if not ({expression}): return None")
        return "\n".join([*text, f"    return {result}"])

    def function(self, source: str) -> Callable[..., Any]:
        """The function that a source defines."""
        used = set(re.findall(r"\b[A-Za-z_]\w*\b", source))
        names = {name: value for name, value in self.names.items() if name in used}
        exec(_compiled(source, self.name), names)
        function: Callable[..., Any] = names[source[4 : source.index("(")]]
        return function

    # -- Vars -----------------------------------------------------------------------------------

    def is_born(self, var: Var) -> bool:
        """True for a Var made by the traced function itself."""
        try:
            node = _node_slot.__get__(var)
        except AttributeError:
            return True  # being made now
        return node.sequence >= self.start and id(var) not in self.adopted

    def adopt(self, *vars: Var) -> None:
        """Notes Vars made during the trace, but outside it."""
        self.adopted.update((id(var), var) for var in vars)

    def capture(self, var: Var) -> Captured:
        """The record of a Var from outside."""
        var = self._argument_for(var)
        known = self.captured.get(id(var))
        if known is None:
            node = _node_slot.__get__(var)
            if node.storage is None:
                with outside():
                    life.value_of(node)
            stand_in = Buffer(node.storage, node.shape, node.dtype, node.layout)
            stand_in.requires_grad = node.requires_grad
            stand_in.owner = None if node.owner is None else weakref.ref(var)
            stand_in.stop = node.stop and node.requires_grad
            stand_in.site = node.site
            known = self.captured[id(var)] = Captured(var, self.name_for(var), stand_in)
        return known

    def _argument_for(self, var: Var) -> Var:
        """The stand-in of a Var that is an argument too, which becomes a guard; else the Var."""
        argument = self.stand_ins.get(id(var))
        if argument is None:
            return var
        path, name = self.paths[id(argument)], self.name_for(var)
        self.held.add(id(var))
        self.require(f"{path} is {name}", f"{self.labels[path]} is the same Var")
        return argument

    def read_grad(self, var: Var) -> Any:
        """The .grad of a Var from outside; whether there is one is a guard."""
        var = self._argument_for(var)
        captured = self.capture(var)
        if captured.grad is not UNREAD:
            return captured.grad
        key = (id(var), "_grad")
        if key not in self.cells:
            self.cells[key] = _grad_slot.__get__(var)
        return self.cells[key]

    # -- numbers --------------------------------------------------------------------------------

    def argument(self, position: int, value: float, label: str) -> TracedNumber:
        """A float argument."""
        number = TracedNumber(self, value, f"A[{position}]")
        self.labels[number.name] = label
        return number

    def read_cell(self, cells: Cells, key: str) -> Any:
        """The value of a cell: a TracedNumber, or anything else, guarded."""
        place = (id(cells), key)
        if place in self.written:
            return self.written[place][2]
        if place not in self.cells:
            expression = f"get({self.name_for(cells)}, {key!r})"
            self.cells[place] = self._number(dict.__getitem__(cells, key), expression, key,
                                             cells.counts)  # fmt: skip
        return self.cells[place]

    def _number(self, value: Any, expression: str, label: str, counts: bool) -> Any:
        if counts and type(value) is int and value in self._counts:
            number = self._counts[value]
            self.require(f"{expression} is {number.name} or same({expression}, {number.name})",
                         f"every {label} that was {value} is the same number")  # fmt: skip
            return number
        if type(value) is float or (counts and type(value) is int):
            number = TracedNumber(self, value, expression)
            kind = type(value).__name__
            self.require(f"type({number.name}) is {kind}", f"type({label}) is {kind}")
            self.labels[number.name] = label
            if type(value) is int:
                self._counts[value] = number
            return number
        if type(value) is tuple and any(type(item) is float for item in value):
            self.require(f"type({expression}) is tuple and len({expression}) == {len(value)}",
                         f"len({label}) == {len(value)}")  # fmt: skip
            return tuple(
                self._number(item, f"{expression}[{k}]", f"{label}[{k}]", counts)
                for k, item in enumerate(value)
            )
        self.guard_value(expression, value, label, watched=True)
        return value

    def write_cell(self, cells: Cells, key: str, value: Any) -> None:
        """The value of a cell from now on, in the trace; written when a replay has succeeded."""
        self.name_for(cells)
        self.written[(id(cells), key)] = (cells, key, value)

    # -- guards ---------------------------------------------------------------------------------

    def guard_value(
        self,
        expression: str,
        value: Any,
        label: str,
        depth: int = 0,
        frozen: Any = None,
        watched: bool = False,
    ) -> None:
        """A guard on something that the function can see under a name.

        frozen: how a container was before the function ran.
        """
        if _is_small_array(value):
            array = f"{expression} is {self.name_for(value)}"
            self.require(f"{array} and matches({expression}, {self.name_for(freeze(value))})",
                         f"{label} is the same {_kind(value)} and as it was")  # fmt: skip
            return
        if isinstance(value, CONTAINERS) and not (
            isinstance(value, tuple) and all(isinstance(v, SIMPLE) for v in value)
        ):
            self.require(f"matches({expression}, {self.name_for(frozen or freeze(value))})",
                         f"{label} is as it was")  # fmt: skip
            for item in value.values() if isinstance(value, dict) else value:
                self.guard_object(item, label, depth + 1)
            return
        name = self.name_for(value)
        if isinstance(value, SIMPLE + (tuple,)):
            self.require(f"{expression} is {name} or same({expression}, {name})",
                         f"{label} == {value!r}", watched)  # fmt: skip
            return
        self.guard_same(expression, value, label, watched)
        self.guard_object(value, label, depth)

    def guard_same(self, expression: str, value: Any, label: str, watched: bool = False) -> None:
        """A guard: an expression is this very object."""
        if isinstance(value, Var):
            self.held.add(id(value))
        self.require(f"{expression} is {self.name_for(value)}",
                     f"{label} is the same {_kind(value)}", watched)  # fmt: skip

    def guard_object(self, value: Any, label: str, depth: int = 0) -> None:
        """Guards on what an object holds: a Module, an optimiser, a function, a class, a plain
        object."""
        if isinstance(value, Var | types.ModuleType) or depth > DEEPEST:
            return
        if isinstance(value, type):
            self.guard_class(value, depth)
            return
        if isinstance(value, functools.partial):
            self.guard_object(value.func, label, depth)
            for item in (*value.args, *value.keywords.values()):
                self.guard_content(item, label, depth + 1)
            return
        if isinstance(value, types.MethodType):
            self.guard_object(value.__self__, label.rpartition(".")[0] or label, depth)
            value = value.__func__
        if isinstance(value, types.FunctionType):
            self.guard_function(value, depth)
        elif hasattr(value, "_meet"):
            value._meet(self, label)
        elif _is_plain(value):
            if self.meet(value, label):
                for name, item in list(vars(value).items()):
                    self.guard_object(item, f"{label}.{name}", depth + 1)
            for name in _slots_of(value):
                place = f"{self.name_for(value)}.{name}"
                self.guard_value(place, getattr(value, name), f"{label}.{name}", depth + 1)

    def guard_content(self, value: Any, label: str, depth: int) -> None:
        """Guards on what something holds that the function has without looking it up."""
        if not isinstance(value, (*SIMPLE, Var)):
            self.guard_value(self.name_for(value), value, label, depth)

    def guard_class(self, kind: type, depth: int) -> None:
        """Guards on the attributes of a class of the user's and of those it inherits from."""
        for base in kind.__mro__:
            if base in self._classes or issubclass(base, enum.Enum) or not _is_users(base):
                continue
            self._classes[base] = None
            for name, value in list(vars(base).items()):
                functions = _functions_in(value)
                for function in functions:
                    self.guard_function(function, depth + 1)
                if not functions and not name.startswith("__"):
                    self.guard_content(value, f"{base.__name__}.{name}", depth + 1)

    def guard_classes(self) -> None:
        """Guards: the attributes of the classes that were met are the same objects."""
        for base in self._classes:
            space, values = self.name_for(vars(base)), self.name_for(list(vars(base).values()))
            self.require(f"len({space}) == {len(vars(base))} "
                         f"and all(map(is_, {space}.values(), {values}))",
                         f"the class {base.__name__} is as it was")  # fmt: skip

    def guard_function(self, function: types.FunctionType, depth: int = 0) -> None:
        """Guards on the globals and closure cells that a function of the user's names."""
        if id(function) in self._functions or is_library(function.__code__.co_filename):
            return
        self._functions.add(id(function))
        place, code = self.name_for(function), self.name_for(function.__code__)
        self.require(f"{place}.__code__ is {code}", f"{function.__name__} has the same code")
        for name in ("__defaults__", "__kwdefaults__"):
            defaults = getattr(function, name)
            label = f"{function.__name__}.{name}"
            self.guard_value(f"{place}.{name}", defaults, label, depth + 1)
        names = _global_names(function.__code__)
        self._guard_names(function.__globals__, names, "", depth + 1)
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or ()):
            try:
                content = cell.cell_contents
            except ValueError:  # not set yet
                continue
            self.guard_value(f"{self.name_for(cell)}.cell_contents", content, name, depth + 1)
            self._guard_module(content, names, name, depth + 1)

    def _guard_names(
        self, space: dict[str, Any], names: list[str], prefix: str, depth: int
    ) -> None:
        table = self.name_for(space)
        for name in names:
            if name in space and (id(space), name) not in self._guarded:
                self._guarded.add((id(space), name))
                value = space[name]
                self.guard_value(f"{table}[{name!r}]", value, prefix + name, depth)
                self._guard_module(value, names, prefix + name, depth + 1)

    def _guard_module(self, value: Any, names: list[str], label: str, depth: int) -> None:
        """Guards on what a module has under these names: all of a user's, a library's functions."""
        file = getattr(value, "__file__", None)
        if not isinstance(value, types.ModuleType) or not file:
            return
        if not is_library(file):
            self._guard_names(vars(value), names, f"{label}.", depth)
            return
        space = vars(value)
        for name in names:
            found = space.get(name)
            if (id(space), name) in self._guarded or depth > DEEPEST:
                continue
            self._guarded.add((id(space), name))
            if isinstance(found, types.FunctionType):
                self.guard_same(f"{self.name_for(space)}[{name!r}]", found, f"{label}.{name}")
            self._guard_module(found, names, f"{label}.{name}", depth + 1)

    def guard_entry(self, table: dict[Any, Any], key: Any, value: Any) -> None:
        """A guard: a dict has this very object under a key."""
        if (id(table), id(key)) not in self._entries:
            self._entries.add((id(table), id(key)))
            names = self.name_for(table), self.name_for(key), self.name_for(value)
            self.require(f"{names[0]}.get({names[1]}) is {names[2]}",
                         f"the optimiser's state of {describe(key)} is the same", True)  # fmt: skip

    def guard_members(self, owner: Any, name: str, label: str) -> None:
        """Guards: an attribute or entry is the same list, of the same objects."""
        is_dict = isinstance(owner, dict)
        members = dict.__getitem__(owner, name) if is_dict else getattr(owner, name)
        place = f"{self.name_for(owner)}" + (f"[{name!r}]" if is_dict else f".{name}")
        if is_dict:
            place = f"get({self.name_for(owner)}, {name!r})"
            self.require(
                f"len({self.name_for(owner)}) == {len(owner)}", f"{label} has no new entry"
            )
            self.cells[(id(owner), name)] = members
        copies = self.name_for(list(members))
        self.require(
            f"len({place}) == {len(members)} and all(map(is_, {place}, {copies}))",
            f"{label}.{name} are the same {len(members)} objects",
        )

    def meet(self, object_: Any, label: str = "", apart: tuple[str, ...] = ()) -> bool:
        """Notes an object whose attributes are read or written; True if it was not known.

        apart: attributes for which the object itself makes the guards.
        """
        if id(object_) in self.met or not hasattr(object_, "__dict__"):
            return False
        self.met[id(object_)] = Met(object_, label or type(object_).__name__, apart)
        self.name_for(object_)
        self.guard_class(type(object_), 0)
        return True

    def note_array(self, array: Any) -> None:
        """Notes an ndarray that becomes a Var: its content now is part of the program."""
        self.arrays.setdefault(id(array), (array, array.tobytes()))

    def guard_arrays(self) -> None:
        """Guards on the content of the arrays that somebody else still holds and may change."""
        alone = 0  # references to an array that nobody else holds, as the interpreter counts them
        for array, content in [(np.empty(0), b""), *self.arrays.values()]:
            alone = alone or sys.getrefcount(array)
            # a view's memory is that of another array
            if sys.getrefcount(array) > alone or array.base is not None:
                name, copy = self.name_for(array), self.name_for(content)
                kind = f"{array.dtype}{list(array.shape)}"
                self.require(f"{name}.tobytes() == {copy}", f"ndarray {kind} holds what it held")
        self.arrays.clear()

    # -- the end --------------------------------------------------------------------------------

    def close(self) -> None:
        """Puts back the attributes that the function set; Vars that it made are dead from now."""
        self.closed = True
        self.guard_arrays()
        for met in self.met.values():
            met.restore()
        for reference in self.born:
            var = reference()
            if var is not None and _node_slot.__get__(var).storage is None:
                self._kill(_node_slot.__get__(var))

    def let_go(self) -> None:
        """Forgets what the function saw: numbers that it left somewhere keep the trace, and would
        keep the values of its first call."""
        for seen in (self.adopted, self.captured, self.met, self.cells, self.written, self.arrays,
                     self.names, self.stand_ins, self._classes):  # fmt: skip
            seen.clear()

    def _kill(self, node: Node) -> None:
        node.depth = DEAD_DEPTH
        node.error = JitError(
            f"{describe(node)} made at {node.site} belongs to the trace of {self.name} and has no "
            "value outside it; return it from the jitted function, or write it into a Var that is "
            "there before: state.assign(value)"
        )


@functools.lru_cache(maxsize=64)
def _compiled(source: str, name: str) -> types.CodeType:
    """The code of a source, which traces of one function share whose shapes alone differ."""
    return compile(source, f"<trace of {name}>", "exec")


def _kind(value: Any) -> str:
    return describe(value) if isinstance(value, Var) else type(value).__name__


def _is_plain(value: Any) -> bool:
    """True for an instance of a class of the user's, or a namespace, whose attributes may
    change."""
    if isinstance(value, types.SimpleNamespace) or type(value).__name__ == "Namespace":
        return True
    return _is_users(type(value))


def _is_users(kind: type) -> bool:
    """True for a class of the user's."""
    module = sys.modules.get(kind.__module__)
    file = getattr(module, "__file__", None) if module is not None else None
    return kind.__module__ == "__main__" or (file is not None and not is_library(file))


def _functions_in(value: Any) -> list[types.FunctionType]:
    """The functions that an attribute of a class runs when it is read or called."""
    parts = [value.fget, value.fset, value.fdel] if isinstance(value, property) else [value]
    parts = [getattr(part, "__func__", part) for part in parts]  # of a static or class method
    return [part for part in parts if isinstance(part, types.FunctionType)]


def _slots_of(value: Any) -> list[str]:
    """The attributes of an object that have slots and are set."""
    names = [n for base in type(value).__mro__ for n in vars(base).get("__slots__", ())]
    return [n for n in names if not n.startswith("__") and hasattr(value, n)]


def _global_names(code: types.CodeType) -> list[str]:
    """Names that some code, or code inside it, may look up in the globals."""
    seen: dict[str, None] = {}
    stack = [code]
    while stack:
        part = stack.pop()
        seen.update(dict.fromkeys(part.co_names))
        stack.extend(c for c in part.co_consts if isinstance(c, types.CodeType))
    return list(seen)


# ------------------------------------------------------------------------------------ the slots


class _NodeSlot:
    """`Var._node` while a trace is on: Vars from outside read and written in the trace."""

    def __get__(self, var: Var | None, owner: Any = None) -> Any:
        if var is None:
            return self
        trace = recording.trace
        if trace is None or trace.is_born(var):
            return _node_slot.__get__(var)
        return trace.capture(var).current

    def __set__(self, var: Var, node: Node) -> None:
        trace = recording.trace
        if trace is None or trace.is_born(var):
            _node_slot.__set__(var, node)
        else:
            trace.capture(var).current = node


class _GradSlot:
    """`Var._grad` while a trace is on."""

    def __get__(self, var: Var | None, owner: Any = None) -> Any:
        if var is None:
            return self
        trace = recording.trace
        if trace is None or trace.is_born(var):
            return _grad_slot.__get__(var)
        return trace.read_grad(var)

    def __set__(self, var: Var, value: Any) -> None:
        trace = recording.trace
        if trace is None or trace.is_born(var):
            _grad_slot.__set__(var, value)
        else:
            trace.capture(var).grad = value


_lock = threading.Lock()
_tracing = 0


@contextmanager
def tracing(trace: Trace) -> Iterator[None]:
    """Records what the body does into a trace; other threads go on as before."""
    global _tracing
    slots = {"_node": (_NodeSlot(), _node_slot), "_grad": (_GradSlot(), _grad_slot)}
    saved = recording.grad, recording.scope
    with _lock:
        _tracing += 1
        for name, (watched, _) in slots.items():
            setattr(Var, name, watched)
    recording.trace = trace
    try:
        with life.no_transaction():
            yield
    finally:
        recording.trace = None
        recording.grad, recording.scope = saved
        with _lock:
            _tracing -= 1
            if not _tracing:
                for name, (_, plain) in slots.items():
                    setattr(Var, name, plain)


@contextmanager
def outside() -> Iterator[Trace | None]:
    """For what a trace needs but must not record: no trace inside the block; yields the trace."""
    trace = recording.trace
    recording.trace = None
    try:
        yield trace
    finally:
        recording.trace = trace
