"""A training step that is like an earlier one: its gradient and its update are not recorded again.

    loss = cross_entropy(net(x), t)     # records the forward pass, as always
    optimizer.step(loss)                # finds the program of the whole step by what is pending

What a step records after the loss follows from the graph that is pending and from the optimiser's
rule.  So the first step of a kind records all of it, and notes which inputs of its program are
parameters, state or numbers of the rule, and where its results belong.  The next one whose pending
graph has the same key records only the rule for one parameter of each kind, for the numbers in it
(a learning rate, powers of beta), runs the program, and binds the results.

A step is recorded as a whole where that could make a difference: with hooks, custom gradients or
host callbacks, in a trace or a transaction, under a profile, where a value that has a history was
computed before, and whenever its program fails, so that the error is that of the recorded step.
METAOP_REPEAT=0 (or `config.repeat`) records every step.
"""

from __future__ import annotations

import itertools
import operator
from bisect import bisect
from collections.abc import Callable
from typing import Any, NamedTuple

from . import life
from .compiler import programs
from .compiler.executor import executor
from .compiler.keys import (
    dtype_of,
    each,
    inputs_of,
    layout_of,
    packed,
    requires_grad_of,
    shape_of,
    signature_of,
)
from .compiler.program import Bound, number_storage, run
from .compiler.signals import uninterrupted
from .config import config
from .errors import user_site
from .extent import map_extents
from .grad import has_hooks, hooks
from .graph import (
    Buffer,
    Custom,
    Escape,
    Node,
    ReindexReduce,
    Scalar,
    _sequence,
    computed,
    history,
)
from .recording import recording
from .storage import Storage
from .var import Var

_USERS_GRADIENT = frozenset((Custom, Escape))  # whose gradient is code of the user's
_NOT_LOST = frozenset((None, life.COMPUTED))
_stop = operator.attrgetter("stop")
_overwritten = operator.attrgetter("overwritten")
_storage = operator.attrgetter("storage")
_dropped = operator.attrgetter("dropped")
_error = operator.attrgetter("error")
_sequence_of = operator.attrgetter("sequence")

# Of a program: ("in", leaf) or ("out", output), and the number of its form; or ALIAS.
Result = tuple[str, int, int]
ALIAS = ("alias", 0, 0)  # a copy or another shape of a computed value


class _Step(NamedTuple):
    """The program of a step.

    leaves: its inputs, by their numbers among the leaves of the pending graph, the written Vars,
    the numbers of the rules and the constants, in this order; pending: results by their position
    in the pending graph; written: results by the number of the written Var; history: positions of
    what the gradient of the loss passes through; other_history: if there is one beside it.
    """

    program: Bound
    leaves: list[int]
    constants: list[Node]
    pending: list[tuple[int, Result]]
    written: list[Result]
    history: list[int]
    other_history: bool


def may_be_repeated(loss: Var) -> bool:
    """False for a step on this loss that is recorded in any case."""
    if not config.repeat or not isinstance(loss, Var):
        return False
    node = loss._node
    return (
        recording.trace is None
        and not life.in_transaction()
        and not config.check_nan
        and executor().recorder is None
        and node.storage is None
        and node.requires_grad
        and node.dtype.is_float
        and node.size == 1
    )


class _Graph:
    """What some roots without a value are computed from, and a key of it, quickly.

    nodes: those that are made, in the order of their creation, then the leaves, which have values;
    numbers: the Scalars that a program takes as inputs; inputs: all that it takes; key: equal for
    graphs that have the same gradients, None where nothing is known about graphs of this kind.
    """

    __slots__ = ("inputs", "key", "leaves", "made", "nodes", "numbers", "position", "roots")

    def __init__(self, roots: list[Node]):
        self.roots = roots
        made, seen = roots.copy(), set(roots)
        for node in made:  # which grows meanwhile
            for source in node.inputs:
                if source.storage is None and source not in seen:
                    seen.add(source)
                    made.append(source)
        made.sort(key=_sequence_of)
        inputs = list(map(inputs_of, made))
        sources = list(itertools.chain.from_iterable(inputs))
        distinct = dict.fromkeys(itertools.chain(made, sources))
        self.position = dict(zip(distinct, itertools.count()))
        self.made, self.nodes = made, list(distinct)
        self.leaves = leaves = self.nodes[len(made) :]
        self.numbers: list[Node] = [
            node for node in made if type(node) is Scalar and not node.literal
        ]
        self.inputs = leaves + self.numbers
        self.key = None
        if Scalar not in map(type, leaves) and not any(map(_storage, roots)):
            number = self.position.__getitem__
            self.key = (
                each(signature_of, made),
                tuple([node.ties for node in made if type(node) is ReindexReduce]),
                bytes(map(requires_grad_of, self.nodes)),
                bytes(map(_stop, made)),
                packed(map(len, inputs)),
                packed(map(number, sources)),
                each(shape_of, leaves),
                _are_dynamic(leaves),
                each(dtype_of, leaves),
                each(layout_of, leaves),
                each(dtype_of, self.numbers),
                packed(map(number, roots)),
            )


class Attempt:
    """A step of an optimiser on a loss, to be repeated if it is known, else to be recorded.

    parameters: what the gradient is taken by; written: the Vars that change, the parameters among
    them; kinds: of the parameters, with the names of their state; rules: the kind of each.
    """

    def __init__(self, loss: Var):
        self.loss = loss._node
        self.parameters: list[Var] = []
        self.written: list[Var] = []
        self.kinds: dict[Any, tuple[int, list[str]]] = {}
        self.rules: list[int] = []
        self.samples: list[Any] = []  # of each kind, the key of what the rule records
        self.numbers: list[list[Node]] = []  # of each kind, in the order of their creation
        self.moments: list[int] = []
        self.key: Any = None

    def add_kind(
        self,
        kind: Any,
        parameter: Var,
        state: dict[str, Any],
        rule: Callable[[Var], tuple[Var, dict[str, Var]]],
    ) -> None:
        """Parameters for which the rule records the same, but for their values and shapes.

        parameter, state: one of them; rule: the new values as a function of its gradient, which
        depends on the shape by broadcasting alone.
        """
        node = parameter._node
        storage = node.storage
        if storage is None:
            self.samples.append(None)
            self.kinds[kind] = len(self.kinds), []
            return
        gradient = computed(Buffer, storage, node.shape, node.dtype, node.site)
        looks = recording.looks
        value, new_state = rule(Var._of(gradient))
        graph = _Graph([value._node, *[new._node for new in new_state.values()]])
        given = [gradient, node, *[dict.__getitem__(state, name)._node for name in new_state]]
        is_known = recording.looks == looks and set(given).issuperset(graph.leaves)
        roles = [graph.position.get(source, -1) for source in given]  # of the leaves
        self.samples.append((graph.key, *roles) if is_known and graph.key is not None else None)
        self.numbers.append(graph.numbers)
        self.kinds[kind] = len(self.kinds), list(new_state)

    def add(self, kind: Any, parameter: Var, state: dict[str, Any]) -> None:
        """A parameter of a kind that the step moves, and its state."""
        number, names = self.kinds[kind]
        self.rules.append(number)
        self.parameters.append(parameter)
        self.written.append(parameter)
        for name in names:
            self.written.append(dict.__getitem__(state, name))

    def begin_rule(self) -> None:
        """Notes that what is recorded from now on is the rule for the next parameter."""
        self.moments.append(next(_sequence))

    def repeat(self, counted: Callable[[], object]) -> bool:
        """Makes the step if it is known; counted: called in the moment in which it is bound."""
        with life.lock:
            self.key = self._key()
            step: _Step | None = None if self.key is None else programs.steps.get(self.key)
            if step is None:
                if self.key is not None:
                    self._note_history()
                return False
            numbers = itertools.chain.from_iterable(self.numbers)
            inputs = [*self.graph.inputs, *self.before, *numbers, *step.constants]
            leaves = [inputs[k] for k in step.leaves]
            try:
                storages = run(step.program, leaves)
            except Exception:  # recorded as a whole, it fails with the error that names the line
                return False
            with uninterrupted():
                self._bind(step, leaves, storages)
                counted()
        return True

    def _key(self) -> Any:
        """What tells the step from those that record something else; None for one that is always
        recorded."""
        self.before = before = [var._node for var in self.written]
        are_apart = len(set(before)) == len(before)
        if not are_apart or None in self.samples or not all(map(_storage, before)):
            return None
        self.graph = graph = _Graph(life.everything_pending())
        position = graph.position
        if self.loss not in position or not all(p._node in position for p in self.parameters):
            return None
        if graph.key is None or any(map(_error, graph.made)):
            return None
        if any(map(_has_history, graph.leaves)):
            return None
        if not _USERS_GRADIENT.isdisjoint(map(type, graph.made)):
            return None
        if hooks.registered and any(map(has_hooks, graph.nodes)):
            return None
        return (
            graph.key,
            position[self.loss],
            tuple([position.get(node, -1) for node in before]),
            each(shape_of, before),
            _are_dynamic(before),
            each(dtype_of, before),
            each(layout_of, before),
            tuple(self.rules),
            tuple(self.samples),
            bytes(map(bool, map(_overwritten, graph.nodes))),
            _are_lost(graph.nodes),
            config.cpu,
            config.fuse,
            config.winograd,
        )

    def _bind(self, step: _Step, leaves: list[Node], storages: list[Storage]) -> None:
        """The results of the program, as the commit of a recorded step binds them."""
        site, graph = user_site(), self.graph
        nodes = graph.nodes
        forms, knows_extents = step.program.forms(leaves), step.program.knows_extents

        def value(result: Result) -> Storage | None:
            place, number, _ = result
            if place == "out":
                return storages[number]
            leaf = leaves[number]
            return number_storage(leaf) if isinstance(leaf, Scalar) else leaf.storage

        found = []
        for position, result in step.pending:
            node = nodes[position]
            if node.storage is None:
                if result is ALIAS:
                    base = life.alias(node)
                    assert base is not None
                    life.bind(node, base.storage, base.layout)
                else:
                    form = forms[result[2]]
                    life.bind(node, value(result), form.layout)
                    if knows_extents:
                        node.shape = form.shape
                found.append(node)
        # if no other history is left, nobody can ask for one of what has no value
        life.drop_history([nodes[k] for k in step.history] if step.other_history else found, site)
        life.forget_history([*graph.leaves, *graph.made] if step.other_history else found)
        for var, old, result in zip(self.written, self.before, step.written):
            storage = value(result)
            assert storage is not None
            form = forms[result[2]]
            shape = form.shape if knows_extents else old.shape
            node = computed(Buffer, storage, shape, old.dtype, site, form.layout)
            if var._is_leaf:
                node.stop = node.requires_grad = True
                node.owner = old.owner
            old.overwritten = site
            var._node = node
        life.all_computed()

    def _note_history(self) -> None:
        """Looks through which nodes the gradient of the loss passes, before they forget it."""
        nodes, position = self.graph.nodes, self.graph.position
        self.history = [position[node] for node in history(self.loss, ())]
        others = set(range(len(nodes))).difference(self.history)
        self.unreached = recording.unreached
        self.other_history = any(_has_history(nodes[k]) for k in others)

    def compute(self) -> None:
        """Computes all that is pending, the recorded step too, and remembers how."""
        ran: list[life.Ran] = []
        self.moments.append(next(_sequence))
        life.sync(ran)
        has_warned = self.key is not None and recording.unreached != self.unreached
        if self.key is not None and len(ran) == 1 and not has_warned:
            step = self._noted(*ran[0])
            if step is not None:
                with life.lock:
                    programs.steps.put(map_extents(self.key, int), step, len(ran[0].nodes))

    def _noted(
        self,
        program: Bound,
        nodes: list[Node],
        roots: list[Node],
        leaves: list[Node],
        aliases: list[Node],
    ) -> _Step | None:
        """How to make the step again; None where something is not what it should be."""
        inputs = self._inputs_of_program(leaves)
        places: list[tuple[Node, Result]] = [(node, ALIAS) for node in aliases]
        made = [(node, *result) for node, result in zip(roots, program.results)]
        made += [(nodes[position], "out", number) for position, number in program.kept]
        places += [(node, (kind, number, k)) for k, (node, kind, number) in enumerate(made)]
        results = self._results_of_program(places)
        if inputs is None or results is None:
            return None
        return _Step(program, *inputs, *results, self.history, self.other_history)

    def _inputs_of_program(self, leaves: list[Node]) -> tuple[list[int], list[Node]] | None:
        """What a step's leaves are, see `_Step`, and its constants."""
        known = {node: len(self.graph.inputs) + k for k, node in enumerate(self.before)}
        known |= {node: k for k, node in enumerate(self.graph.inputs)}
        constants: list[Node] = []
        given: list[list[Node]] = [[] for _ in self.rules]
        for leaf in leaves:
            if leaf in known:
                continue
            if type(leaf) is not Scalar:
                return None
            rule = bisect(self.moments, leaf.sequence) - 1
            if rule < 0:
                constants.append(leaf)
            elif rule < len(given):
                given[rule].append(leaf)
            else:
                return None
        count = len(self.graph.inputs) + len(self.before)
        first = list(itertools.accumulate(map(len, self.numbers), initial=count))
        for rule, numbers in zip(self.rules, given):
            numbers.sort(key=_sequence_of)
            sample = [number.value for number in self.numbers[rule]]  # type: ignore[attr-defined]
            if [number.value for number in numbers] != sample:  # type: ignore[attr-defined]
                return None
            known |= {leaf: first[rule] + k for k, leaf in enumerate(numbers)}
        known |= {leaf: first[-1] + k for k, leaf in enumerate(constants)}
        return [known[leaf] for leaf in leaves], constants

    def _results_of_program(
        self, places: list[tuple[Node, Result]]
    ) -> tuple[list[tuple[int, Result]], list[Result]] | None:
        """Where the results of pending nodes and of written Vars are, see `_Step`."""
        position = self.graph.position
        written = {var._node: k for k, var in enumerate(self.written)}
        results: dict[int, Result] = {}
        found: list[tuple[int, Result]] = []
        for node, result in places:
            if node in position:
                found.append((position[node], result))
            elif node in written:
                results[written[node]] = result
            else:
                return None
        missing = {position[node] for node in self.graph.roots}.difference([k for k, _ in found])
        if missing or len(results) != len(self.written):
            return None
        return found, [results[k] for k in range(len(results))]


def _are_dynamic(nodes: list[Node]) -> bytes:
    """Which of their extents are dynamic."""
    return bytes([type(n) is not int for node in nodes for n in node.shape])


def _are_lost(nodes: list[Node]) -> bytes:
    """Of which of them the history was dropped; nothing if of none."""
    if {*map(_dropped, nodes)} <= _NOT_LOST:
        return b""
    return bytes([node.dropped not in _NOT_LOST for node in nodes])


def _has_history(leaf: Node) -> bool:
    """True for a value that was computed while a gradient may still be asked for through it."""
    return leaf.requires_grad and not leaf.stop
