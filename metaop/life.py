"""The life of a value: what is pending, when it is computed, how a write takes effect.

A Var is bound to a node; a write binds it to another one.  Nothing that was recorded earlier
changes by that, because nodes are immutable.  Computing runs one program for everything asked
for; its results are bound only after it succeeded (the commit), so an error or an interrupt
leaves every Var as it was.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .compiler import pipeline
from .compiler.program import KernelError, Program, run
from .compiler.signals import uninterrupted
from .config import config
from .errors import Site, user_site
from .graph import Elementwise, Node, Reindex, pending, recording
from .storage import Storage

if TYPE_CHECKING:
    from .var import Var


class Write:
    """A Var bound to a new node by a write; `old` until the program of the new one succeeded."""

    __slots__ = ("var", "old", "new")

    def __init__(self, var: Var, old: Node, new: Node):
        self.var = weakref.ref(var)
        self.old, self.new = old, new

    def undo(self) -> None:
        """Binds the Var to its old node, if it is still bound to the new one."""
        var = self.var()
        if var is not None and var._node is self.new:
            var._node = self.old
            self.old.overwritten = None


_writes: list[Write] = []
_live: dict[int, weakref.ref[Var]] = {}
_swept = 1000
_lock = threading.RLock()


class _Transactions(threading.local):
    log: list[Write] | None = None


_transactions = _Transactions()


def register(var: Var) -> None:
    """Notes a Var whose value is pending."""
    global _swept
    _live[id(var)] = weakref.ref(var)
    if len(_live) > _swept:
        for key, reference in list(_live.items()):
            held = reference()
            if held is None or held._node.storage is not None:
                _live.pop(key, None)
        _swept = 2 * len(_live) + 1000


def live_pending() -> list[Var]:
    """Live Vars without a value, in the order of their creation."""
    found = []
    for key, reference in list(_live.items()):
        var = reference()
        if var is None or var._node.storage is not None:
            _live.pop(key, None)
        elif var._node.error is None:
            found.append(var)
    return sorted(found, key=lambda var: var._node.sequence)


# --------------------------------------------------------------------------------------- writes


def write(var: Var, node: Node) -> None:
    """Binds a Var to the node of a new value."""
    write_all([(var, node)])


def write_all(pairs: list[tuple[Var, Node]]) -> None:
    """Binds many Vars at once: an interrupt sees all of the writes or none."""
    site = user_site()
    bound = [(var, _own(node, var)) for var, node in pairs]
    with uninterrupted():
        for var, node in bound:
            record = Write(var, var._node, node)
            var._node.overwritten = site
            var._node = node
            if node.storage is None:
                _writes.append(record)
                register(var)
            if _transactions.log is not None:
                _transactions.log.append(record)


def _own(node: Node, var: Var) -> Node:
    """A node for this Var alone, a leaf of the gradient if the Var is one."""
    if not recording.grad or not node.requires_grad or var._is_leaf:
        with not_recording_gradients():
            node = Elementwise("copy", node)
        mark_leaf(node, var)
    return node


def mark_leaf(node: Node, var: Var) -> None:
    """Makes a node the end of the history if its Var wants a gradient."""
    if var._is_leaf:
        node.stop = node.requires_grad = True
        node.owner = weakref.ref(var)


@contextmanager
def not_recording_gradients() -> Iterator[None]:
    """Nodes recorded inside are constants to every gradient."""
    saved = recording.grad
    recording.grad = False
    try:
        yield
    finally:
        recording.grad = saved


@contextmanager
def transaction() -> Iterator[None]:
    """Undoes the writes recorded inside when an exception leaves the block; nested: no effect.

        with mo.transaction():
            y = net(x)          # running statistics are as before if this raises
    """
    if _transactions.log is not None:
        yield
        return
    _transactions.log = []
    try:
        yield
    except BaseException:
        with uninterrupted():
            undo(_transactions.log)
        raise
    finally:
        _transactions.log = None


def recorded_writes() -> list[Node]:
    """The new values of the writes recorded in the current transaction."""
    return [record.new for record in _transactions.log or ()]


def undo(writes: list[Write]) -> None:
    """Takes writes back, the last one first."""
    for record in reversed(writes):
        record.undo()
    dropped = set(map(id, writes))
    _writes[:] = [w for w in _writes if id(w) not in dropped]


# ------------------------------------------------------------------------------------ computing


def value_of(node: Node) -> Storage:
    """The bytes of a node, computed now if they are not there; raises its own error if it failed."""
    while node.storage is None:
        if node.error is not None:
            raise node.error
        compute([node])  # another pending value may fail: then this one is tried without it
    return node.storage


def sync() -> None:
    """Computes every live pending Var and every recorded write; raises the first error met."""
    error = compute([], everything=True)
    if error is not None:
        while compute([], everything=True) is not None:
            pass
        raise error


def compute(asked: list[Node], everything: bool = False) -> BaseException | None:
    """Runs one program for the asked nodes and the recorded writes (and all live pending Vars).

    Returns the error of a failed check, after which what depends on it is marked as failed.
    """
    with _lock:
        writes = list(_writes)
        wanted = list(asked)
        wanted += [w.new for w in writes if _is_current(w)]
        if everything:
            wanted += [var._node for var in live_pending()]
        nodes = _runnable(wanted)
        if nodes:
            return _run(nodes, writes)
        _writes.clear()
        return None


def _is_current(record: Write) -> bool:
    var = record.var()
    return var is not None and var._node is record.new


def _runnable(wanted: Iterable[Node]) -> list[Node]:
    """The distinct pending ones of the wanted nodes that do not depend on a failed one."""
    distinct = list(dict.fromkeys(n for n in wanted if n.storage is None))
    graph = pending(distinct)
    if any(node.error is not None for node in graph):
        for node in graph:
            for source in node.inputs:
                if node.storage is None and node.error is None and source.error is not None:
                    node.error = source.error
    return [n for n in distinct if n.error is None]


def _run(wanted: list[Node], writes: list[Write]) -> BaseException | None:
    nodes = pending(wanted)
    aliases = [n for n in wanted if _alias(n) is not None]
    roots = [n for n in wanted if n not in set(aliases)]
    storages: list[Storage] = []
    program: Program | None = None
    leaves: list[Node] = []
    if roots:
        nodes = pending(roots)
        program, leaves = pipeline.program_for(nodes, roots)
        try:
            storages = run(program, leaves)
        except KernelError as fault:
            return _fail(fault, nodes, writes)
    with uninterrupted():
        if program is not None:
            _commit(program, nodes, roots, leaves, storages)
        for node in aliases:
            base = _alias(node)
            assert base is not None
            _bind(node, base.storage)
        _forget_history(nodes)
        _forget_history(aliases)
        _writes[:] = [w for w in _writes if w.new.storage is None]
    return None


def _alias(node: Node) -> Node | None:
    """The computed node of which this one is a mere copy or reshape."""
    from .compiler.fuse import reshape_base

    base = node
    while True:
        if base.storage is not None:
            return base
        if isinstance(base, Elementwise) and base.op == "copy":
            base = base.inputs[0]
        elif isinstance(base, Reindex) and base.inputs and reshape_base(base) is not base:
            base = base.inputs[0]
        else:
            return None


def _bind(node: Node, storage: Storage | None) -> None:
    node.storage = storage
    node.depth = 0


def _commit(
    program: Program,
    nodes: list[Node],
    roots: list[Node],
    leaves: list[Node],
    storages: list[Storage],
) -> None:
    """Binds the results: the only step of a program that a user can see."""
    for node, (kind, number) in zip(roots, program.results):
        if kind == "out":
            _bind(node, storages[number])
        elif leaves[number].storage is not None:
            _bind(node, leaves[number].storage)
    for position, number in program.kept:
        if nodes[position].storage is None:
            _bind(nodes[position], storages[number])


def _forget_history(nodes: list[Node]) -> None:
    """A computed value through which no gradient can be asked for needs no inputs any more."""
    for node in nodes:
        if node.storage is not None and (node.stop or not node.requires_grad):
            node.inputs = ()


def _fail(fault: KernelError, nodes: list[Node], writes: list[Write]) -> BaseException:
    """Marks what depends on the failing node, takes the writes back, lets the rest be."""
    culprit = nodes[fault.check.position]
    error = _error_for(culprit, fault)
    failed = {culprit}
    culprit.error = error
    for node in nodes:
        if any(source in failed for source in node.inputs):
            failed.add(node)
            node.error = error
    with uninterrupted():
        undo(writes)
    return error


def _error_for(node: Node, fault: KernelError) -> BaseException:
    low, high = fault.check.low, fault.check.high
    if low == high:
        return ZeroDivisionError(
            f"integer division by zero in {getattr(node, 'op', node.kind)}, recorded at {node.site}"
        )
    return IndexError(
        f"index {fault.value} is out of bounds for an axis of size {high} "
        f"(allowed: {low} to {high - 1}), in the operation recorded at {node.site}"
    )


# ------------------------------------------------------------------------------ bounded pending


def bound_depth(node: Node) -> None:
    """Computes the oldest part of a chain that has grown past the bound."""
    if node.depth > config.pending_depth:
        deepest = max(node.inputs, key=lambda source: source.depth)
        if deepest.storage is None and deepest.error is None:
            compute([deepest])
            node.depth = 1 + max((source.depth for source in node.inputs), default=0)


def bound_update(old: Node) -> None:
    """Computes the old value of an accumulator before it is updated, if that is real work."""
    if old.storage is None and old.depth >= config.pending_update_depth and old.error is None:
        compute([old])


def drop_history(nodes: list[Node], site: Site) -> None:
    """Forgets how values were made, so that no gradient can be asked for through them."""
    for node in nodes:
        if node.requires_grad and node.inputs and not node.stop:
            node.requires_grad = False
            node.dropped = site
            if node.storage is not None:
                node.inputs = ()


def live_nodes() -> int:
    """The number of nodes in memory."""
    import gc

    return sum(issubclass(type(item), Node) for item in gc.get_objects())
