"""The life of a value: what is pending, when it is computed, how a write takes effect.

A Var is bound to a node; a write binds it to another one.  Nothing that was recorded earlier
changes by that, because nodes are immutable.  Computing runs one program for everything asked
for; its results are bound only after it succeeded (the commit), so an error or an interrupt
leaves every Var as it was.
"""

from __future__ import annotations

import gc
import itertools
import operator
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from .compiler import programs
from .compiler.kernels import compiling
from .compiler.program import Bound, KernelError, number_storage, run
from .compiler.signals import uninterrupted
from .config import config
from .errors import JitError, Site, describe, user_site
from .graph import (
    Apply,
    Buffer,
    Custom,
    Elementwise,
    Escape,
    Layout,
    Node,
    Reindex,
    Scalar,
    _sequence,
    history_inputs,
    pending,
)
from .recording import recording
from .storage import Storage, pool

if TYPE_CHECKING:
    from .nans import Find
    from .var import Var

PART_NODES = 2048  # of a program that computes a part of what is pending
LONG_HISTORY = 1000


# Where the history went of a value that was computed while nothing in it required a gradient.
COMPUTED = Site(user_site.__code__, 0)
VALUE = ("value",)  # the signature of a node that has become a mere value


class Write:
    """A Var bound to a new node by a write; `old` until the program of the new one succeeded.

    group: what all writes of one call share, which are undone together or not at all;
    since: the creation number at which the module call began of which the write is a part;
    undone: to be called when the write is taken back.
    """

    __slots__ = ("var", "old", "new", "group", "since", "undone")

    def __init__(self, var: Var, old: Node, new: Node, group: object, since: int | None):
        self.var = weakref.ref(var)
        self.old, self.new, self.group, self.since = old, new, group, since
        self.undone: Callable[[], object] | None = None

    def undo(self) -> None:
        """Binds the Var to its old node, if it is still bound to the new one."""
        if self.undone is not None:
            self.undone()
        var = self.var()
        if var is not None and var._node is self.new:
            var._node = self.old
            self.old.overwritten = None
            if self.old.storage is None:
                register(var)


_writes: list[Write] = []
_live: list[weakref.ref[Var]] = []  # to Vars that were pending when they were noted
_gradients: list[weakref.ref[Var]] = []
_reference = weakref.ref
_error = operator.attrgetter("error")
_swept = 1000
lock = threading.RLock()
_held_for_fork: list[Any] = []


def _before_fork() -> None:
    """Waits until no other thread compiles, computes or takes memory: a child would have their
    locks, and nobody to release them."""
    for each in (lock, compiling, pool.lock):
        each.acquire()
        _held_for_fork.append(each)


def _after_fork() -> None:
    while _held_for_fork:
        _held_for_fork.pop().release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork
    )


class _Transactions(threading.local):
    log: list[Write] | None = None
    since: int | None = None
    rehearsing: bool = False


_transactions = _Transactions()


def register(var: Var) -> None:
    """Notes a Var whose value is pending."""
    global _swept
    trace = recording.trace
    if trace is not None:
        trace.born.append(_reference(var))
        return
    _live.append(_reference(var))
    if len(_live) > _swept:
        _swept = 2 * len(_live)  # not again before this is done
        _swept = 2 * len(_noted_pending()) + 1000


def _noted_pending() -> list[Var]:
    """Live Vars without a value, each once; the others are forgotten."""
    with lock:
        count = len(_live)  # other threads may add more meanwhile
        noted = [reference() for reference in _live[:count]]
        found = {id(var): var for var in noted if var is not None and var._node.storage is None}
        _live[:count] = map(_reference, found.values())
    return list(found.values())


def live_pending() -> list[Var]:
    """Live Vars without a value, in the order of their creation."""
    found = [var for var in _noted_pending() if var._node.error is None]
    return sorted(found, key=lambda var: var._node.sequence)


# --------------------------------------------------------------------------------------- writes


def write(var: Var, node: Node) -> None:
    """Binds a Var to the node of a new value."""
    write_all([(var, node)])


def write_all(
    pairs: list[tuple[Var, Node]],
    applied: Callable[[], object] | None = None,
    undone: Callable[[], object] | None = None,
) -> None:
    """Binds many Vars at once: an interrupt sees all of the writes or none.

    applied: called together with the binding; undone: called if the writes are taken back.
    """
    rebind([(var, _own(node, var)) for var, node in pairs], applied, undone)


def rebind(
    bound: list[tuple[Var, Node]],
    applied: Callable[[], object] | None = None,
    undone: Callable[[], object] | None = None,
) -> None:
    """`write_all` of nodes that belong to their Var alone."""
    if len(_writes) > config.pending_depth:
        _forget_dead_writes()
    site = user_site()
    log, group = _transactions.log, object()
    since = None if log is None else _transactions.since
    records = [Write(var, var._node, node, group, since) for var, node in bound]
    if undone is not None and records:  # a value that is there cannot fail
        pending_first = sorted(records, key=lambda record: record.new.storage is not None)
        pending_first[0].undone = undone
    with uninterrupted():
        for var, node in bound:
            var._node.overwritten = site
            var._node = node
            if node.storage is None:
                register(var)
        if recording.trace is None:
            _writes.extend(record for record in records if record.new.storage is None)
        if log is not None:
            log.extend(records)
        if applied is not None:
            applied()


def _forget_dead_writes() -> None:
    """Keeps the list of writes short in a loop that writes and never looks."""
    _writes[:] = [w for w in _writes if w.var() is not None]
    if len(_writes) > config.pending_depth:
        compute([])


def _own(node: Node, var: Var) -> Node:
    """A node for this Var alone, a leaf of the gradient if the Var is one."""
    if not recording.grad or not node.requires_grad or var._is_leaf:
        shape = var._node.shape  # a parameter's extents stay constants
        if node.storage is not None:
            node = Buffer(node.storage, shape, node.dtype, node.layout)
        else:
            node = constant_copy(node)
            node.shape = shape
        mark_leaf(node, var)
    return node


def constant_copy(node: Node) -> Node:
    """A node of the same value through which no gradient passes."""
    if not recording.grad:
        return Elementwise("copy", node)
    recording.grad = False
    try:
        return Elementwise("copy", node)
    finally:
        recording.grad = True


def mark_leaf(node: Node, var: Var) -> None:
    """Makes a node the end of the history if its Var wants a gradient."""
    if var._is_leaf:
        node.stop = node.requires_grad = True
        node.owner = weakref.ref(var)


@contextmanager
def recording_gradients(wanted: bool = True) -> Iterator[None]:
    """Nodes recorded inside have gradients, also where backward() records its own as constants.

    For short stretches: Ctrl-C waits until the end, or it could leave the mode changed for good.
    """
    saved = recording.grad
    with uninterrupted():
        recording.grad = wanted
        try:
            yield
        finally:
            recording.grad = saved


def not_recording_gradients() -> AbstractContextManager[None]:
    """Nodes recorded inside are constants to every gradient; for short stretches."""
    return recording_gradients(False)


@contextmanager
def no_transaction() -> Iterator[None]:
    """Writes inside the block are not undone by an exception that leaves an outer transaction."""
    saved = _transactions.log, _transactions.since
    _transactions.log = None
    try:
        yield
    finally:
        _transactions.log, _transactions.since = saved


def in_transaction() -> bool:
    """True inside a `transaction`."""
    return _transactions.log is not None


@contextmanager
def transaction() -> Iterator[None]:
    """Undoes the writes recorded inside when an exception leaves the block; nested: no effect.

    with mo.transaction():
        y = net(x)          # running statistics are as before if this raises
    """
    if _transactions.log is not None:
        yield
        return
    log: list[Write] = []
    try:
        _transactions.since = next(_sequence)
        _transactions.log = log
        yield
    except BaseException:
        undo(log)
        raise
    finally:
        _transactions.log = None


class Rehearsal:
    """What `rehearsal` yields: whether the writes are kept after all."""

    keep = False


@contextmanager
def rehearsal() -> Iterator[Rehearsal]:
    """Records what the block does and takes its writes back at the end; no `sync` computes, and no
    update of an accumulator."""
    this = Rehearsal()
    try:
        with transaction():
            _transactions.rehearsing = True
            yield this
            if not this.keep:
                raise _Rehearsed
    except _Rehearsed:
        pass
    finally:
        _transactions.rehearsing = False


class _Rehearsed(Exception):
    """Leaves a transaction so that its writes are undone."""


def recorded_writes() -> list[Node]:
    """The new values of the writes recorded in the current transaction."""
    return [record.new for record in _transactions.log or ()]


def undo(writes: list[Write]) -> None:
    """Takes writes back, the last one first."""
    if not writes:
        return
    dropped = set(writes)
    with uninterrupted():
        for record in reversed(writes):
            record.undo()
        _writes[:] = [w for w in _writes if w not in dropped]


# ------------------------------------------------------------------------------------ computing


def value_of(node: Node) -> Storage:
    """The bytes of a node, computed now if need be; raises the node's own error if it failed.

    Raises JitError in a trace, where there are no values.
    """
    if recording.trace is not None:
        _refuse_to_look(node)
    recording.looks += 1
    while node.storage is None:
        if node.error is not None:
            raise again(node.error)
        compute([node])  # another pending value may fail: then this one is tried without it
    return node.storage


def _refuse_to_look(node: Node) -> NoReturn:
    raise JitError(
        f"{user_site()}: the value of {describe(node)} is asked for (by if, bool, item, float, "
        f"print, numpy or the like), but {recording.trace.name} is being traced for mo.jit and "
        "has no values yet; write mo.where(condition, a, b) instead of if, and return what is to "
        "be looked at"
    )


def again(error: BaseException) -> BaseException:
    """A failed value's error to be raised once more, without the frames of earlier times."""
    try:
        return type(error)(*error.args)
    except TypeError:
        return error.with_traceback(None)


class Ran(NamedTuple):
    """A program that was run: what it computed, from what; and what was computed already."""

    program: Bound
    nodes: list[Node]
    roots: list[Node]
    leaves: list[Node]
    aliases: list[Node]


def sync(ran: list[Ran] | None = None) -> None:
    """Computes every live pending Var and every recorded write; raises the first error met, if it
    is that of a Var that is no garbage, or a write was taken back.

    Does nothing in a trace, which is one program anyway, and in a rehearsal.
    ran: gets the programs that did it.
    """
    if recording.trace is not None or _transactions.rehearsing:
        return
    writes = list(_writes)
    errors: list[BaseException] = []
    while (error := compute([], everything=True, ran=ran)) is not None:
        errors.append(error)
    if errors:
        error = _of_somebody(errors, writes)
        if error is not None:
            raise again(error)


def _of_somebody(errors: list[BaseException], writes: list[Write]) -> BaseException | None:
    """The first of some errors that is of a Var that somebody can ask for, or of a write."""
    gc.collect()
    for record in writes:
        var = record.var()
        if var is not None and var._node is record.old:
            return errors[0]
    failed = [var._node.error for var in _noted_pending()]
    return next((error for error in errors if any(error is one for one in failed)), None)


def everything_pending() -> list[Node]:
    """What `sync` would compute."""
    written = {write.new: None for write in _writes if _is_current(write)}
    wanted = [*written, *[var._node for var in live_pending()]]
    return list(dict.fromkeys([node for node in wanted if node.storage is None]))


def all_computed() -> None:
    """Notes that nothing is pending that `sync` would compute."""
    _writes[:] = [w for w in _writes if w.new.storage is None and _is_current(w)]
    _gradients.clear()


def compute(
    asked: list[Node], everything: bool = False, ran: list[Ran] | None = None
) -> BaseException | None:
    """Computes the asked nodes and the recorded writes (and all live pending Vars), in one program
    unless that would be too long.

    Returns the error of a failed check, after which what depends on it is marked as failed.
    """
    if recording.trace is not None:
        return None
    with lock:
        writes = list(_writes)
        written = {w.new: None for w in writes if _is_current(w)}
        wanted = [*asked, *written]
        if everything:
            wanted += [var._node for var in live_pending()]
        elif _gradients:
            wanted += _gradients_with(asked)
        nodes, graph, error = _runnable(wanted)
        if error is not None:
            error = _undo_failed(writes)
        try:
            for part in _parts(nodes, graph):
                fault = _run(part, writes, graph if part is nodes else None, ran)
                if fault is not None:
                    return fault
        except Exception:  # out of memory: a value that was only read leaves the writes to be tried
            if everything and _collected():
                return compute(asked, everything, ran)
            if everything or any(node in written for node in asked):
                undo(writes)
            raise
        _writes[:] = [w for w in _writes if w.new.storage is None and _is_current(w)]
        if everything:
            _gradients.clear()
        return error


def _collected() -> bool:
    """Whether a pending Var was garbage that an earlier error held: nobody asks for it any more."""
    count = len(live_pending())
    gc.collect()
    return len(live_pending()) < count


def _is_current(record: Write) -> bool:
    var = record.var()
    return var is not None and var._node is record.new


def note_gradients(vars: list[Var]) -> None:
    """Remembers what `backward()` recorded, for `_gradients_with`."""
    if recording.trace is None:
        _gradients.extend(map(weakref.ref, vars))


def _gradients_with(asked: list[Node]) -> list[Node]:
    """Pending gradients that need what the asked nodes need: reading a loss between `backward()`
    and `step()` computes both, or the forward pass would run twice."""
    gradients = []
    for reference in _gradients:
        var = reference()
        if var is not None and var._node.storage is None and var._node.error is None:
            gradients.append(var._node)
    if not gradients:
        _gradients.clear()
        return []
    needed = {n for n in pending(asked) if n.storage is None and n.inputs}
    return gradients if not needed.isdisjoint(pending(gradients)) else []


def _runnable(wanted: Iterable[Node]) -> tuple[list[Node], list[Node], BaseException | None]:
    """The distinct pending ones of the wanted nodes that do not depend on a failed one, what they
    are computed from, and an error that was met."""
    distinct = list(dict.fromkeys([n for n in wanted if n.storage is None]))
    graph = pending(distinct)
    if not any(map(_error, graph)):
        return distinct, graph, None
    error = None
    for node in graph:
        if node.error is None and node.storage is None:
            for source in node.inputs:
                if source.error is not None and source.storage is None:
                    node.error = source.error
                    break
        if node.error is not None and node.storage is None:
            error = error or node.error
    if error is not None:
        distinct = [n for n in distinct if n.error is None]
        graph = pending(distinct)
    return distinct, graph, error


def _undo_failed(writes: list[Write]) -> BaseException | None:
    """Takes back the writes of failed values; the error of the first."""
    failed = [w for w in writes if w.new.error is not None]
    _undo_groups(failed, writes)
    return failed[0].new.error if failed else None


def _undo_groups(failed: list[Write], writes: list[Write]) -> None:
    groups = {w.group for w in failed}
    undo([w for w in writes if w.group in groups])


def _run(
    wanted: list[Node], writes: list[Write], graph: list[Node] | None, ran: list[Ran] | None
) -> BaseException | None:
    """Computes some nodes by one program; graph: what they are computed from, if known."""
    aliases = [n for n in wanted if alias(n) is not None]
    roots = [n for n in wanted if n not in set(aliases)] if aliases else wanted
    nodes = pending(roots) if aliases or graph is None else graph
    storages: list[Storage] = []
    program: Bound | None = None
    leaves: list[Node] = []
    if roots:
        program, leaves = programs.program_for(nodes, roots)
        try:
            storages = run(program, leaves, nodes)
        except KernelError as fault:
            culprit = nodes[fault.check.position]
            return _fail(culprit, _error_for(culprit, fault), nodes, writes)
        except MemoryError as fault:
            raise _out_of_memory(fault, program, roots) from None
        except Exception as fault:
            escape = _failing_escape(nodes)
            if escape is None:
                raise
            return _fail(escape, _error_of_escape(escape, fault), nodes, writes)
        if config.check_nan:
            found = _search_nans(program, nodes, roots, storages)
            if found is not None:
                return _fail(found.node, found.error, nodes, writes)
    with uninterrupted():
        if program is not None:
            _commit(program, nodes, roots, leaves, storages)
        for node in aliases:
            base = alias(node)
            assert base is not None
            bind(node, base.storage, base.layout)
        forget_history(nodes)
        forget_history(aliases)
    if ran is not None and program is not None:
        ran.append(Ran(program, nodes, roots, leaves, aliases))
    return None


def _search_nans(
    program: Bound, nodes: list[Node], roots: list[Node], storages: list[Storage]
) -> Find | None:
    """What made a NaN or an infinity that a program would return."""
    from .nans import find  # only where it is asked for

    values = {
        node: storages[number]
        for node, (kind, number) in zip(roots, program.results)
        if kind == "out"
    }
    kept = {nodes[position]: storages[number] for position, number in program.kept}
    return find([*values, *kept], {**kept, **values})


def alias(node: Node) -> Node | None:
    """The computed node of which this one is a mere copy or reshape."""
    base = node
    while True:
        if base.storage is not None:
            return base
        if isinstance(base, Elementwise) and base.op == "copy":
            base = base.inputs[0]
        elif isinstance(base, Reindex) and base.inputs and _is_reshape(base):
            base = base.inputs[0]
            if base.layout is not None:
                return None  # a program finds that of the other shape
        else:
            return None


def _is_reshape(node: Reindex) -> bool:
    if len(node.inputs) > 1 or node.size != node.inputs[0].size:
        return False
    from .compiler.fuse import reshape_base  # which imports half of the compiler

    return reshape_base(node) is not node


def bind(node: Node, storage: Storage | None, layout: Layout | None) -> None:
    """Gives a node its value."""
    node.storage, node.layout = storage, layout
    node.depth = 0


def _commit(
    program: Bound,
    nodes: list[Node],
    roots: list[Node],
    leaves: list[Node],
    storages: list[Storage],
) -> None:
    """Binds the results: the only step of a program that a user can see."""
    made: list[tuple[Node, Storage | None]] = []
    for node, (kind, number) in zip(roots, program.results):
        if kind == "out":
            made.append((node, storages[number]))
        elif isinstance(leaf := leaves[number], Scalar):
            made.append((node, number_storage(leaf)))
        else:
            made.append((node, leaf.storage))
    made += [(nodes[position], storages[number]) for position, number in program.kept]
    for (node, storage), form in zip(made, program.forms(leaves)):
        if node.storage is None:
            bind(node, storage, form.layout)
            if program.knows_extents:
                node.shape = form.shape


def forget_history(nodes: list[Node]) -> None:
    """A computed value through which no gradient can be asked for needs no inputs any more.

    Nor can it where the history of all inputs was dropped: `total += loss` and running statistics
    do not hold on to the steps that they come from.
    """
    if not [node for node in nodes if node.requires_grad and not node.stop]:
        for node in nodes:
            if node.storage is not None and node.inputs:
                _become_value(node)
        return
    leads: dict[Node, bool] = {}
    for node in nodes:
        if node.requires_grad and not node.stop:
            sources = history_inputs(node)
            if all(source in leads for source in sources):
                leads[node] = any(leads[source] for source in sources)
            else:
                leads[node] = _leads_to_leaf(node)
            if not leads[node]:
                node.requires_grad, node.dropped = False, _dropped_below(node)
        else:
            leads[node] = node.requires_grad
        if node.storage is not None and node.inputs and not (leads[node] and not node.stop):
            _become_value(node)


def _become_value(node: Node) -> None:
    """Forgets how a computed node was made."""
    node.inputs = ()
    if type(node) is Custom:
        node.call = None
    node.signature = VALUE
    if node.dropped is None and not node.stop and node.dtype.kind == "f":
        node.dropped = COMPUTED


def _leads_to_leaf(node: Node) -> bool:
    """True if a value computed earlier still has a history that ends in a leaf.

    A long history is taken to; a history that is not is dropped.
    """
    seen = {node}
    stack = [node]
    while stack:
        for source in history_inputs(stack.pop()):
            if source.requires_grad and source not in seen:
                if source.stop or len(seen) > LONG_HISTORY:
                    return True
                seen.add(source)
                stack.append(source)
    for lost in sorted(seen, key=lambda n: n.sequence):
        lost.requires_grad, lost.dropped = False, _dropped_below(lost)
    return False


def _dropped_below(node: Node) -> Site | None:
    """Where the history of a node's inputs went, or its own."""
    for source in history_inputs(node):
        if source.dropped is not None and source.dropped is not COMPUTED:
            return source.dropped
    return node.dropped


def _fail(
    culprit: Node, error: BaseException, nodes: list[Node], writes: list[Write]
) -> BaseException:
    """Marks what depends on the failing node and takes back the writes of it, with those of the
    calls that it continues; lets the rest be."""
    with uninterrupted():
        failed = {culprit}
        culprit.error = error
        for node in nodes:
            if node.storage is None and any(source in failed for source in node.inputs):
                failed.add(node)
                node.error = error
        below = [n.sequence for n in pending([culprit])]
        failed_writes = [
            w for w in writes
            if w.new.error is not None
            or (w.since is not None and any(w.since <= n <= w.new.sequence for n in below))
        ]  # fmt: skip
        _undo_groups(failed_writes, writes)
    return error


def _failing_escape(nodes: list[Node]) -> Escape | None:
    """The host callback that raised, found by running one after the other."""
    for node in nodes:
        if isinstance(node, Escape) and node.storage is None:
            graph = pending([node])
            try:
                run(*programs.program_for(graph, [node]))
            except MemoryError:
                return None
            except Exception:
                return node
    return None


def _error_of_escape(node: Escape, fault: Exception) -> Exception:
    text = f"{fault} (in {node.name}, recorded at {node.site})"
    try:
        return type(fault)(text)
    except TypeError:
        return RuntimeError(f"{type(fault).__name__}: {text}")


def _out_of_memory(fault: MemoryError, program: Bound, roots: list[Node]) -> MemoryError:
    largest = max(roots, key=lambda node: node.nbytes)
    total = sum(nbytes for _, nbytes in program.outputs)
    return MemoryError(
        f"{fault}: the program needs {total:,} bytes for results and {program.arena_bytes:,} for "
        f"temporaries; its largest result is {describe(largest)}, recorded at {largest.site}"
    )


def _error_for(node: Node, fault: KernelError) -> BaseException:
    low, high = fault.check.low, fault.check.high
    if isinstance(node, Apply):
        name = node.function.label
        return ZeroDivisionError(f"division by zero in {name}, recorded at {node.site}")
    if low == high:
        return ZeroDivisionError(
            f"integer division by zero in {getattr(node, 'op', node.kind)}, recorded at {node.site}"
        )
    return IndexError(
        f"index {fault.value} is out of bounds for an axis of size {high} "
        f"(allowed: {low} to {high - 1}), in the operation recorded at {node.site}"
    )


# ------------------------------------------------------------------------------ bounded pending


class _Horizon:
    """When to look again at how much is pending: a creation number, and a count of bytes lent."""

    sequence = config.pending_nodes
    lent_bytes = config.pending_bytes


horizon = _Horizon()


def bound(node: Node) -> None:
    """Computes the oldest part of what is pending if a node just recorded made it too much."""
    if node.depth > config.pending_depth:
        deepest = max(node.inputs, key=lambda source: source.depth)
        if isinstance(deepest.error, JitError):
            raise JitError(f"{user_site()}: {deepest.error}")
        if deepest.storage is None and deepest.error is None:
            compute([deepest])
            node.depth = 1 + max((source.depth for source in node.inputs), default=0)
    if node.sequence >= horizon.sequence or pool.lent_bytes >= horizon.lent_bytes:
        _bound_all(node.sequence)


def _bound_all(now: int) -> None:
    """Computes all but the latest part of what live Vars wait for, if that is too much."""
    wanted = {var._node for var in live_pending()}
    graph = pending(wanted)
    read = sum(n.nbytes for n in graph if n.storage is not None and n.owner is None)
    if len(graph) >= config.pending_nodes or read >= config.pending_bytes:
        parts = _cut(graph, wanted)
        for part in parts[: max(len(parts) - 1, 1)]:
            nodes = [n for n in part if n.storage is None and n.error is None]
            if nodes:
                compute(nodes)
    horizon.sequence = now + config.pending_nodes // 2
    horizon.lent_bytes = pool.lent_bytes + config.pending_bytes // 2


def bound_update(old: Node) -> None:
    """Computes the old value of an accumulator before it is updated, if that is real work.

    An old value that was itself written in part, as in a loop of x[i] = v, is left to the other
    bounds: so the loop becomes one program, in which every assignment costs its own elements.
    """
    if _transactions.rehearsing:
        return
    if old.storage is None and old.depth >= config.pending_update_depth and old.error is None:
        base = old.inputs[0] if isinstance(old, Elementwise) and old.op == "copy" else old
        if not (isinstance(base, Reindex) and len(base.pieces) > 1):
            compute([old])


def _parts(wanted: list[Node], graph: list[Node]) -> list[list[Node]]:
    """The wanted nodes as one program, or, if that were too deep or too long, what a row of shorter
    ones has to compute."""
    if not wanted:
        return []
    deep = any(node.depth >= config.pending_depth for node in wanted)
    is_deep = deep and _depth(graph) >= config.pending_depth
    if len(graph) < 4 * config.pending_nodes and not is_deep:
        return [wanted]
    return _cut(graph, set(wanted))


def _depth(graph: list[Node]) -> int:
    """The longest chain of pending nodes."""
    depth: dict[Node, int] = {}
    for node in graph:
        below = max((depth[i] for i in node.inputs), default=0) if node.storage is None else -1
        depth[node] = below + 1
    return max(depth.values(), default=0)


def _cut(graph: list[Node], wanted: set[Node]) -> list[list[Node]]:
    """The values that each part of a graph hands over to the later ones."""
    number = {node: k for k, node in enumerate(graph)}
    last = [0] * len(graph)  # the number of the last reader
    for k, node in enumerate(graph):
        if node.storage is None:
            for source in node.inputs:
                last[number[source]] = k
    for node in wanted:
        last[number[node]] = len(graph)
    parts = []
    first = 0
    while first < len(graph):
        stop = _end_of_part(graph, last, first)
        part = [graph[k] for k in range(first, stop) if last[k] >= stop and _has_work(graph[k])]
        if part:
            parts.append(part)
        first = stop
    return parts


def _has_work(node: Node) -> bool:
    return node.storage is None and not isinstance(node, Scalar)


def _end_of_part(graph: list[Node], last: list[int], first: int) -> int:
    """Where the part from `first` ends: where the fewest bytes are handed over to nodes nearby.

    Among equals after a computed value, then after the same operation as elsewhere, so that the
    parts of a loop's graph are equal and compiled once.
    """
    limit = first + PART_NODES
    if limit >= len(graph):
        return len(graph)
    handed_over = [0] * PART_NODES
    for k in range(first, limit):
        if last[k] < limit and _has_work(graph[k]):
            handed_over[k - first] += graph[k].nbytes
            handed_over[last[k] - first] -= graph[k].nbytes
    totals = list(itertools.accumulate(handed_over))
    best = min(
        range(first + PART_NODES // 2, limit),
        key=lambda k: (
            totals[k - first], graph[k].storage is None, str(graph[k].definition()), -k
        ),
    )  # fmt: skip
    return best + 1


def drop_history(nodes: list[Node], site: Site) -> None:
    """Forgets how values were made, so that no gradient can be asked for through them."""
    for node in nodes:
        if node.requires_grad and node.inputs and not node.stop:
            node.requires_grad = False
            node.dropped = site
            if type(node) is Custom:
                node.call = None
            if node.storage is not None:
                node.inputs = ()


def live_nodes() -> int:
    """The number of nodes in memory."""
    import gc

    return sum(issubclass(type(item), Node) for item in gc.get_objects())
