"""Var: a value that is recorded now and computed when somebody looks.

The functions on Vars stand in the modules of their family; `metaop.methods` makes the methods of
them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from . import dtype as dt
from . import life
from .build import broadcast_shapes, broadcast_to, full
from .compiler.signals import uninterrupted
from .config import config
from .dtype import DType, as_dtype
from .errors import DTypeError, JitError, ShapeError, StaleValueError, describe, user_site
from .extent import dynamic_shape, plain
from .grad import gradients_of, warn_unreached
from .graph import (
    Buffer,
    Elementwise,
    Node,
    Scalar,
    Shape,
    history,
    history_inputs,
    size_of,
    toposort,
)
from .hints import hint_for
from .index import Index
from .recording import recording
from .storage import Storage, pool
from .traced import TracedNumber, scalar_value

_new_var = object.__new__
SHOWN = 1000  # elements beyond which NumPy's printing abbreviates


class Var:
    """An array value: `Var([1.0, 2.0])`, as made by `mo.array`.

    data: a Var, ndarray, number or nested list (copied).  A list of Python floats becomes float32,
    of ints int64; an ndarray keeps its dtype.
    """

    __slots__ = ("_node", "_is_leaf", "_grad", "__weakref__", "__dict__")
    __array_ufunc__ = None  # ndarray * Var is left to Var
    __hash__ = object.__hash__

    _node: Node
    _is_leaf: bool
    _grad: Var | None

    def __init__(self, data: Any, dtype: Any = None, requires_grad: bool = False):
        self._node = node_of(data, None if dtype is None else as_dtype(dtype))
        self._is_leaf, self._grad = False, None
        if isinstance(data, Var) and self._node is data._node:
            self._node = life.constant_copy(self._node)
        if self._node.storage is None:
            life.register(self)
        if requires_grad:
            self.requires_grad = True

    @staticmethod
    def _of(node: Node) -> Var:
        """A Var bound to a node just recorded."""
        var = _new_var(Var)
        var._node = node
        var._is_leaf = False
        var._grad = None
        if node.storage is None:
            life.register(var)
            if (
                node.depth > config.pending_depth
                or node.sequence >= life.horizon.sequence
                or pool.lent_bytes >= life.horizon.lent_bytes
            ):
                life.bound(node)
        return var

    if TYPE_CHECKING:  # what metaop.methods adds

        def __getattr__(self, name: str) -> Any: ...
        def __neg__(self) -> Any: ...
        def __pos__(self) -> Any: ...
        def __abs__(self) -> Any: ...
        def __invert__(self) -> Any: ...
        def __setitem__(self, key: Any, value: Any) -> None: ...
        def __eq__(self, other: Any) -> Any: ...
        def __ne__(self, other: Any) -> Any: ...
        def __add__(self, other: Any) -> Any: ...
        def __radd__(self, other: Any) -> Any: ...
        def __iadd__(self, other: Any) -> Any: ...
        def __sub__(self, other: Any) -> Any: ...
        def __rsub__(self, other: Any) -> Any: ...
        def __isub__(self, other: Any) -> Any: ...
        def __mul__(self, other: Any) -> Any: ...
        def __rmul__(self, other: Any) -> Any: ...
        def __imul__(self, other: Any) -> Any: ...
        def __truediv__(self, other: Any) -> Any: ...
        def __rtruediv__(self, other: Any) -> Any: ...
        def __itruediv__(self, other: Any) -> Any: ...
        def __floordiv__(self, other: Any) -> Any: ...
        def __rfloordiv__(self, other: Any) -> Any: ...
        def __ifloordiv__(self, other: Any) -> Any: ...
        def __mod__(self, other: Any) -> Any: ...
        def __rmod__(self, other: Any) -> Any: ...
        def __imod__(self, other: Any) -> Any: ...
        def __pow__(self, other: Any) -> Any: ...
        def __rpow__(self, other: Any) -> Any: ...
        def __ipow__(self, other: Any) -> Any: ...
        def __and__(self, other: Any) -> Any: ...
        def __rand__(self, other: Any) -> Any: ...
        def __iand__(self, other: Any) -> Any: ...
        def __or__(self, other: Any) -> Any: ...
        def __ror__(self, other: Any) -> Any: ...
        def __ior__(self, other: Any) -> Any: ...
        def __xor__(self, other: Any) -> Any: ...
        def __rxor__(self, other: Any) -> Any: ...
        def __ixor__(self, other: Any) -> Any: ...
        def __lshift__(self, other: Any) -> Any: ...
        def __rlshift__(self, other: Any) -> Any: ...
        def __ilshift__(self, other: Any) -> Any: ...
        def __rshift__(self, other: Any) -> Any: ...
        def __rrshift__(self, other: Any) -> Any: ...
        def __irshift__(self, other: Any) -> Any: ...
        def __matmul__(self, other: Any) -> Any: ...
        def __rmatmul__(self, other: Any) -> Any: ...
        def __imatmul__(self, other: Any) -> Any: ...
        def __lt__(self, other: Any) -> Any: ...
        def __le__(self, other: Any) -> Any: ...
        def __gt__(self, other: Any) -> Any: ...
        def __ge__(self, other: Any) -> Any: ...
        def __getitem__(self, other: Any) -> Any: ...

    else:

        def __getattr__(self, name: str) -> Any:
            raise AttributeError(hint_for("Var", name, dir(type(self))))

    # -- what it is ---------------------------------------------------------------------------

    @property
    def shape(self) -> Shape:
        """The extents of the axes."""
        return self._node.shape

    @property
    def dtype(self) -> DType:
        """The element type."""
        return self._node.dtype

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self._node.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the value."""
        return self._node.nbytes

    def numel(self) -> int:
        """The number of elements."""
        return size_of(self._node.shape)

    def dim(self) -> int:
        """The number of axes."""
        return len(self._node.shape)

    @property
    def size(self) -> Any:
        """The number of elements; `x.size()` and `x.size(0)` answer as in PyTorch."""
        return _Size(self._node.shape)

    @property
    def device(self) -> str:
        """Where the value lives: always "cpu"."""
        return "cpu"

    # -- its value ----------------------------------------------------------------------------

    def _array(self) -> np.ndarray:
        """A read-only array over the value's own memory."""
        storage = life.value_of(self._node)
        array = storage.view(self.dtype.storage, self.shape)
        if self.dtype is dt.bfloat16:
            array = np.asarray(array.astype(np.uint32) << 16, np.uint32).view(np.float32)
        array.flags.writeable = False
        return array

    def numpy(self) -> np.ndarray:
        """A copy of the value as an ndarray (bfloat16 as float32); computes what is pending."""
        return np.array(self._array())

    def item(self) -> Any:
        """The value of a Var of one element as a Python number."""
        if size_of(self.shape) != 1:
            raise ShapeError(f"item(): x must have one element, it is {describe(self)}")
        return self._array().reshape(())[()].item()

    def tolist(self) -> Any:
        """The value as nested lists of Python numbers."""
        return self._array().tolist()

    def sync(self) -> Var:
        """Computes the value; returns the Var.  Does nothing in a trace of `mo.jit`."""
        if recording.trace is None:
            life.value_of(self._node)
        return self

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = self._array()
        if copy is False:
            if dtype is not None and array.dtype != dtype:
                raise ValueError(f"{describe(self)} as {np.dtype(dtype)} is a copy: copy=False")
            return array  # read-only; it keeps the memory, in which no later step writes
        return np.array(array, dtype)

    def __dlpack__(self, **options: Any) -> Any:
        return self.numpy().__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)  # kDLCPU

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __bool__(self) -> bool:
        if size_of(self.shape) != 1:
            raise ShapeError(
                f"bool(x), as in `if x` and `x and y`: x must have one element, it is "
                f"{describe(self)}; write x.any(), x.all(), or x & y"
            )
        return bool(self.item())

    def __index__(self) -> int:
        if self.dtype.is_float:
            raise DTypeError(f"{describe(self)} cannot be used as an index: it is not an integer")
        return int(self.item())

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec else str(self)

    def __str__(self) -> str:
        life.value_of(self._node)
        return repr(self)

    def __repr__(self) -> str:
        kind = type(self).__name__
        grad = ", requires_grad=True" if self.requires_grad else ""
        if self._node.storage is None or recording.trace is not None:
            state = "failed" if self._node.error is not None else "pending"
            return f"{kind}({describe(self)}, {state}{grad})"
        prefix = f"{kind}("
        text = np.array2string(self._array(), separator=", ", prefix=prefix, threshold=SHOWN)
        return f"{prefix}{text}, dtype={self.dtype}{grad})"

    def _repr_svg_(self) -> str | None:
        """In a notebook: the graph of a value that is not computed, if it is small."""
        if self._node.storage is not None or recording.trace is not None:
            return None
        from .pictures.jupyter import graph_svg  # loads the compiler

        return graph_svg([self._node])

    def _repr_html_(self) -> str | None:
        """In a notebook: what a value is whose graph is too large to be drawn."""
        if self._node.storage is not None or recording.trace is not None:
            return None
        from .pictures.jupyter import summary_html

        return summary_html(self._node)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of a 0-d Var")
        return self.shape[0]

    def __iter__(self) -> Iterator[Var]:
        if not self.shape:
            raise TypeError("iteration over a 0-d Var")
        return (self[k] for k in range(self.shape[0]))

    def __contains__(self, value: Any) -> bool:
        return bool((self == value).any())

    # -- gradients ----------------------------------------------------------------------------

    @property
    def requires_grad(self) -> bool:
        """True if a gradient can be asked for: a leaf that wants one, or made from such."""
        return self._node.requires_grad

    @requires_grad.setter
    def requires_grad(self, wanted: bool) -> None:
        if wanted and not self.dtype.is_float:
            raise DTypeError(f"only a float Var can require a gradient, not {describe(self)}")
        if bool(wanted) == self.requires_grad:
            return
        if not self._is_leaf and not wanted:
            raise RuntimeError(
                f"{describe(self)} was made from what requires a gradient; write x = x.detach()"
            )
        if recording.trace is not None and not recording.trace.is_born(self):
            raise JitError(
                f"{user_site()}: requires_grad of {describe(self)} is set in a trace of "
                f"{recording.trace.name}, which a replay would not see; set it before the call"
            )
        self._is_leaf = bool(wanted)
        storage = self._node.storage
        with life.not_recording_gradients():
            if storage is not None:
                self._node = Buffer(storage, self.shape, self.dtype, self._node.layout)
            else:
                self._node = Elementwise("copy", self._node)
                life.register(self)
        life.mark_leaf(self._node, self)

    def requires_grad_(self, wanted: bool = True) -> Var:
        """Sets requires_grad; returns the Var."""
        self.requires_grad = wanted
        return self

    @property
    def is_leaf(self) -> bool:
        """True if no operation made it from something that requires a gradient."""
        return self._is_leaf or not self.requires_grad

    @property
    def grad(self) -> Var | None:
        """What `backward()` accumulated, None before."""
        return self._grad

    @grad.setter
    def grad(self, value: Var | None) -> None:
        if value is not None and value.shape != self.shape:
            raise ShapeError(f"grad of {describe(self)} cannot be {describe(value)}")
        self._grad = value

    def detach(self) -> Var:
        """The same value as a constant."""
        return Var._of(life.constant_copy(self._node))

    @property
    def data(self) -> Var:
        """The same value as a constant; assigning writes the value."""
        return self.detach()

    @data.setter
    def data(self, value: Any) -> None:
        self.assign(value)

    def backward(self, gradient: Any = None, retain_graph: bool = False) -> None:
        """Adds d self / d leaf to the `.grad` of every leaf that requires a gradient.

        self must be a float of one element unless `gradient` (of self's shape) is given.  History
        is dropped afterwards unless retain_graph.  Raises DTypeError, ShapeError, and
        StaleValueError for a value that was overwritten or whose history was dropped.
        """
        start = check_loss(self, gradient, "backward()")
        if not self.requires_grad:
            raise_no_history(self, "backward()")
        site = user_site()
        graph = history_of(self, set(), "backward()")
        owners = [(n, n.owner()) for n in graph if n.owner is not None and n.requires_grad]
        leaves = [(node, var) for node, var in owners if var is not None]
        with life.not_recording_gradients():
            found = gradients_of(self._node, [node for node, _ in leaves], start, graph)
            reached = [(var, g) for (_, var), g in zip(leaves, found) if g is not None]
            grads = [
                g if var._grad is None else Elementwise("add", var._grad._node, g)
                for var, g in reached
            ]
        accumulated = [Var._of(g) for g in grads]
        with uninterrupted():
            for (var, _), total in zip(reached, accumulated):
                var._grad = total
        life.note_gradients(accumulated)
        if not retain_graph:
            life.drop_history(graph, site)

    # -- writes -------------------------------------------------------------------------------

    def assign(self, value: Any) -> Var:
        """Writes a value of the same shape (or one that broadcasts to it); returns the Var.

        No gradient passes through the write.  Raises ShapeError or DTypeError.
        """
        life.write(self, self._writable(value))
        return self

    def _writable(self, value: Any) -> Node:
        exact = self.dtype.is_float and not isinstance(value, Var)  # 0.1 into a float64
        node = node_of(value, self.dtype if exact else None)
        if node.dtype is not self.dtype:
            if node.dtype.is_float and not self.dtype.is_float:
                raise DTypeError(f"assign: cannot write {describe(node)} into {describe(self)}")
            node = Elementwise("cast", node, dtype=self.dtype)
        if node.shape != self.shape:
            try:
                fits = broadcast_shapes(node.shape, self.shape) == self.shape
            except ValueError:
                fits = False
            if not fits:
                raise ShapeError(f"assign: cannot write {describe(node)} into {describe(self)}")
            node = broadcast_to(node, self.shape)
        return node

    def _update(self, result: Var) -> Var:
        """Rebinds this Var to the result of an in-place operator."""
        if result.shape != self.shape:
            raise ShapeError(
                f"in-place: the result is {describe(result)} but the Var is {describe(self)}; "
                "write x = x + y"
            )
        node = result._node
        if node.dtype is not self.dtype:
            if node.dtype.is_float and not self.dtype.is_float:
                raise DTypeError(
                    f"in-place: cannot write {node.dtype} into a Var of {self.dtype}; "
                    "write x = x + y"
                )
            node = Elementwise("cast", node, dtype=self.dtype)
        life.write(self, node)
        return self

    def _before_update(self) -> None:
        if self._is_leaf and recording.grad:
            raise RuntimeError(
                "a leaf that requires a gradient is updated in place while history is recorded; "
                "write: with mo.no_grad(): w -= lr * w.grad"
            )
        life.bound_update(self._node)

    # -- copies -------------------------------------------------------------------------------

    def __reduce__(self) -> Any:
        return (_unpickle, (type(self), self._array().tobytes(), self._bits_dtype(), self.shape,
                            self._is_leaf))  # fmt: skip

    def _bits_dtype(self) -> str:
        # bfloat16 travels as the float32 that `_array` makes of it
        return "float32->bfloat16" if self.dtype is dt.bfloat16 else self.dtype.name

    def __deepcopy__(self, memo: dict[int, Any]) -> Var:
        new = type(self).__new__(type(self))
        Var.__init__(new, self.detach(), requires_grad=self._is_leaf)
        memo[id(self)] = new
        if self._grad is not None:
            new._grad = self._grad.detach()
        return new


class _Size(int):
    """The number of elements that can also be called as PyTorch's method."""

    shape: Shape

    def __new__(cls, shape: Shape) -> _Size:
        size = super().__new__(cls, size_of(shape))
        size.shape = shape
        return size

    def __call__(self, axis: int | None = None) -> Any:
        return self.shape if axis is None else self.shape[axis]


def _unpickle(kind: type[Var], raw: bytes, dtype: str, shape: Shape, is_leaf: bool) -> Var:
    stored, _, final = dtype.partition("->")
    array = np.frombuffer(raw, as_dtype(stored).storage).reshape(shape)
    var: Var = kind.__new__(kind)
    Var.__init__(var, array, dtype=final or None, requires_grad=is_leaf)
    if is_leaf:
        var._node.shape = plain(var.shape)
    return var


# ------------------------------------------------------------------------------ values into nodes


def node_of(value: Any, dtype: DType | None = None) -> Node:
    """The node of a Var, or of a copy of an array, number or list."""
    if isinstance(value, Var):
        node = value._node
        if dtype is not None and node.dtype is not dtype:
            node = Elementwise("cast", node, dtype=dtype)
        return node
    if isinstance(value, TracedNumber):
        if dtype is None:
            dtype = dt.PYTHON_TYPES[type(value.example)]
        return Scalar(scalar_value(value), dtype)
    if isinstance(value, Index):
        raise TypeError("an index is not a value; use mo.index(shape, axis) for its numbers")
    array = np.asarray(value)
    if recording.trace is not None and isinstance(value, np.ndarray):
        recording.trace.note_array(value)
    if array.dtype == object:
        array = _array_of_objects(value)
    if dtype is None and not hasattr(value, "dtype") and array.dtype == np.float64:
        dtype = dt.float32  # Python floats
    return buffer_of(array, dtype)


def _array_of_objects(value: Any) -> np.ndarray:
    """A list that holds Vars, or something that is no array."""
    if isinstance(value, list | tuple) and value:
        array = np.stack([np.asarray(v) for v in value])
        if array.dtype != object:
            return array
    raise DTypeError(f"cannot make a Var of {type(value).__name__}: {value!r}")


def buffer_of(array: np.ndarray, dtype: DType | None = None) -> Node:
    """A node holding a copy of an array; axis 0 is dynamic: other sizes compile nothing."""
    own = as_dtype(array.dtype)
    shape = dynamic_shape(array.shape)
    node = Buffer(Storage.of_array(np.asarray(array, own.storage)), shape, own)
    if dtype is None or dtype is own:
        return node
    if dtype.storage == np.dtype("float32") and own is dt.float64:
        return Buffer(Storage.of_array(array.astype(np.float32)), shape, dtype)
    return Elementwise("cast", node, dtype=dtype)


# ---------------------------------------------------------------------------------------- mo.grad


def check_loss(loss: Var, gradient: Any, operation: str) -> Node | None:
    """The gradient to start from; raises unless the loss is a float of one element or has one."""
    if not loss.dtype.is_float:
        raise DTypeError(
            f"{operation}: the loss must be a float, it is {describe(loss)}; "
            "an integer has no gradient"
        )
    if gradient is None:
        if size_of(loss.shape) != 1:
            raise ShapeError(
                f"{operation}: the loss must have one element, it is {describe(loss)}; "
                "call .sum() or pass grad_outputs="
            )
        return None
    node = node_of(gradient, loss.dtype)
    if node.shape != loss.shape:
        kinds = f"the gradient is {describe(node)}, the loss {describe(loss)}"
        raise ShapeError(f"{operation}: {kinds}")
    return node


def history_of(loss: Var, targets: set[Node], operation: str) -> list[Node]:
    """The nodes through which the loss's gradient passes on the way to what requires one.

    Raises StaleValueError if the history of one was dropped: its share would be missing.
    """

    graph = history(loss._node, targets)
    in_trace = recording.trace is not None
    for node in graph:
        if in_trace and _leads_outside(node, targets):
            raise JitError(
                f"{operation} in a trace of {recording.trace.name}: the loss depends on "
                f"{describe(node)} made at {node.site}, which has a history outside the trace; "
                "pass x.detach(), or call it outside the jitted function"
            )
        if node.dropped is not None and node.dropped is not life.COMPUTED and node not in targets:
            raise StaleValueError(
                f"{operation}: the loss depends on {describe(node)} made at {node.site}, whose "
                f"history was dropped at {node.dropped}; write x = x.detach() before using it "
                "again, or pass retain_graph=True there"
            )
    return graph


def _leads_outside(node: Node, targets: set[Node]) -> bool:
    """True for a value from outside the trace that was made from what requires a gradient."""
    is_outside = isinstance(node, Buffer) and node.requires_grad and not node.stop
    return is_outside and node.owner is None and node not in targets


def raise_no_history(loss: Var, operation: str) -> None:
    """Says why no gradient can be asked for."""
    dropped = loss._node.dropped
    if dropped is not None and dropped is not life.COMPUTED:
        raise StaleValueError(
            f"{operation}: the history of {describe(loss)} was dropped at {dropped}; "
            "pass retain_graph=True there to differentiate twice"
        )
    raise DTypeError(
        f"{operation}: {describe(loss)} does not depend on anything that requires a gradient"
    )


def grad(loss: Var, vs: Any, grad_outputs: Any = None, retain_graph: bool = True) -> Any:
    """d loss / d v for every Var in vs, in the structure of vs (a Var, list, tuple or dict).

    loss: a float of one element, or any float with grad_outputs of its shape.  The gradients can
    be differentiated again unless retain_graph is False, which drops the history.  A Var that the
    loss does not depend on gets zeros, and one UnreachedGradientWarning is given for all of them.
    """
    start = check_loss(loss, grad_outputs, "grad(loss, vs)")
    targets = _flatten(vs)
    wanted = {v._node for v in targets}
    if loss._node not in wanted and loss._node.dropped not in (None, life.COMPUTED):
        raise_no_history(loss, "grad(loss, vs)")
    site = user_site()
    graph = history_of(loss, wanted, "grad(loss, vs)")
    nodes = [v._node for v in targets]
    # the history leads to all that require a gradient, but not to others that are asked for
    is_whole = loss._node not in wanted and all(node.requires_grad for node in nodes)
    way = graph if is_whole else None
    if retain_graph:
        found = gradients_of(loss._node, nodes, start, way)
    else:
        with life.not_recording_gradients():
            found = gradients_of(loss._node, nodes, start, way)
        life.drop_history(graph, site)
    missed = [v for v, g in zip(targets, found) if g is None]
    if missed:
        _check_computed(loss, [v for v in missed if not v.requires_grad])
        warn_unreached(len(missed))
    gradients = [_zeros(v) if g is None else Var._of(g) for v, g in zip(targets, found)]
    return _rebuild(vs, iter(gradients))


def _check_computed(loss: Var, missed: list[Var]) -> None:
    """Raises StaleValueError if a Var that requires no gradient may have been part of the loss, but
    what was made from it has been computed since: no history was kept then."""
    for node in toposort([loss._node], None, history_inputs) if missed else ():
        if node.dropped is life.COMPUTED:
            for var in missed:
                if var._node.sequence < node.sequence:
                    raise StaleValueError(
                        f"grad(loss, vs): {describe(node)} made at {node.site} was computed before "
                        f"its gradient was asked for, and {describe(var)} made at "
                        f"{var._node.site} does not require one; write v.requires_grad = True "
                        "before using v"
                    )


def _zeros(var: Var) -> Var:
    return Var._of(full(0, var.shape, var.dtype))


def _flatten(structure: Any) -> list[Var]:
    if isinstance(structure, Var):
        return [structure]
    if isinstance(structure, dict):
        return [v for item in structure.values() for v in _flatten(item)]
    if isinstance(structure, list | tuple):
        return [v for item in structure for v in _flatten(item)]
    raise TypeError(f"grad: expected Vars, got {type(structure).__name__}")


def _rebuild(structure: Any, gradients: Iterator[Var]) -> Any:
    if isinstance(structure, Var):
        return next(gradients)
    if isinstance(structure, dict):
        return {key: _rebuild(item, gradients) for key, item in structure.items()}
    return type(structure)(_rebuild(item, gradients) for item in structure)


def assign_all(
    pairs: list[tuple[Var, Any]],
    applied: Callable[[], object] | None = None,
    undone: Callable[[], object] | None = None,
) -> None:
    """Writes many Vars at once: whoever looks, or interrupts, sees all of the writes or none.

        mo.assign_all([(w, w - lr * g) for w, g in zip(weights, gradients)])

    applied: called in the same moment, for what is not a Var (a count of steps); undone: called
    if the values turn out not to be computable and the writes are taken back.
    """
    life.write_all([(var, var._writable(value)) for var, value in pairs], applied, undone)


def sync(*vars: Var) -> None:
    """Computes the given Vars, or everything that is pending."""
    if not vars:
        life.sync()
    for var in vars:
        var.sync()
