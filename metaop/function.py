"""mo.Function: a function of Vars with a gradient of its own.

PyTorch's style, static, with a context:

    class Cube(mo.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x * x

        @staticmethod
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            return g * 3 * x * x

    y = Cube.apply(x)

Jittor's style, an instance that keeps what it needs:

    class Cube(mo.Function):
        def execute(self, x):
            self.x = x
            return x * x * x

        def grad(self, g):
            return g * 3 * self.x * self.x

    y = Cube.apply(x)           # or Cube()(x)

What backward computes with metaop's functions can be differentiated again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .build import cast, full
from .errors import DTypeError, ShapeError, describe
from .grad_mode import no_grad
from .graph import Custom, Node
from .recording import recording
from .var import Var


class FunctionContext:
    """What `forward` leaves for `backward`; any attribute may be set on it.

    needs_input_grad: for every argument of forward, whether its gradient is wanted.
    """

    def __init__(self, needs_input_grad: tuple[bool, ...]):
        self.needs_input_grad = needs_input_grad
        self._saved: tuple[Var | None, ...] = ()
        self._constant: tuple[Var, ...] = ()
        self._materialize = True

    def save_for_backward(self, *vars: Var | None) -> None:
        """Keeps arguments, results or other Vars (or None) for `saved_tensors`."""
        self._saved = vars

    @property
    def saved_tensors(self) -> tuple[Var | None, ...]:
        """What `save_for_backward` kept."""
        return self._saved

    saved_variables = saved_tensors

    def mark_non_differentiable(self, *results: Var) -> None:
        """Results of forward through which no gradient passes."""
        self._constant = results

    def set_materialize_grads(self, value: bool) -> None:
        """Whether the gradient of a result that is not used is zeros (else None)."""
        self._materialize = value

    def mark_dirty(self, *vars: Var) -> None:
        """Not supported: a Var never shares memory with another."""
        raise TypeError(
            "mark_dirty: return new Vars from forward instead of writing into arguments"
        )


class Call:
    """One application of a Function, as the gradient table sees it.

    inputs: the nodes of the arguments that are Vars; outputs: the nodes of the results that a
    gradient passes through.
    """

    def __init__(self, name: str, args: Sequence[Any], backward: Callable[..., Any], zeros: bool):
        self.name, self.count, self.backward, self.zeros = name, len(args), backward, zeros
        self.positions = [k for k, value in enumerate(args) if isinstance(value, Var)]
        self.inputs: tuple[Node, ...] = tuple(args[k]._node for k in self.positions)
        self.results: list[tuple[Any, Any]] = []  # shape and dtype of every result

    def gradients(self, given: dict[int, Node]) -> tuple[Node | None, ...]:
        """The gradients of the inputs from those of the results, by number."""
        arguments: list[Var | None] = []
        for k, (shape, dtype) in enumerate(self.results):
            node = given.get(k)
            if node is None and self.zeros and dtype is not None:
                node = full(0, shape, dtype)
            arguments.append(None if node is None else Var._of(node))
        answer = self.backward(*arguments)
        listed = list(answer) if isinstance(answer, tuple | list) else [answer]
        while len(listed) > self.count and listed[-1] is None:
            listed.pop()
        if len(listed) == self.count:
            listed = [listed[k] for k in self.positions]
        if len(listed) != len(self.inputs):
            raise TypeError(
                f"{self.name}: its gradient must have {self.count} values, one for each argument, "
                f"it has {len(listed)}; give None where there is none"
            )
        return tuple(map(self._checked, listed, self.inputs))

    def _checked(self, gradient: Any, source: Node) -> Node | None:
        if gradient is None or not source.dtype.is_float:
            return None
        if not isinstance(gradient, Var):
            raise TypeError(
                f"{self.name}: a gradient must be a Var or None, not {type(gradient).__name__}"
            )
        if gradient.shape != source.shape:
            raise ShapeError(
                f"{self.name}: the gradient of an argument {describe(source)} is "
                f"{describe(gradient)}; write g.sum(axis) over the axes that were broadcast"
            )
        if not gradient.dtype.is_float:
            raise DTypeError(f"{self.name}: a gradient must be a float, it is {describe(gradient)}")
        return cast(gradient._node, source.dtype)


class Function:
    """The base of functions with a gradient of their own; see the module's text.

    Source: as torch.autograd.Function; as jittor.Function.
    """

    @staticmethod
    def forward(ctx: Any, *args: Any) -> Any:
        """The function's value, a Var or a tuple; recorded without gradients."""
        raise NotImplementedError("a Function defines forward and backward, or execute and grad")

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        """The gradients of forward's arguments from those of its results; None where there is
        none."""
        raise NotImplementedError("this Function defines no backward")

    @classmethod
    def apply(cls, *args: Any) -> Any:
        """The function's value for these arguments."""
        if hasattr(cls, "execute"):
            return cls()(*args)
        needs = tuple([isinstance(value, Var) and value.requires_grad for value in args])
        ctx = FunctionContext(needs if recording.grad else (False,) * len(args))
        return _apply(cls.__name__, cls.forward, cls.backward, args, ctx)

    def __call__(self, *args: Any) -> Any:
        """The function's value for these arguments."""
        execute = getattr(self, "execute", None)
        if execute is None:
            return type(self).apply(*args)
        grad = getattr(self, "grad", None)
        if grad is None:
            raise NotImplementedError(f"{type(self).__name__} defines execute, but no grad")
        return _apply(type(self).__name__, execute, grad, args, None)


def _apply(
    name: str,
    forward: Callable[..., Any],
    backward: Callable[..., Any],
    args: tuple[Any, ...],
    ctx: FunctionContext | None,
) -> Any:
    # aliases: what is kept for the gradient is the version of now, whatever is written later
    given = [Var._of(value._node) if isinstance(value, Var) else value for value in args]
    first = () if ctx is None else (ctx,)
    with no_grad():
        answer = forward(*first, *given)
    results = list(answer) if isinstance(answer, tuple | list) else [answer]
    if not recording.grad or not any(v.requires_grad for v in given if isinstance(v, Var)):
        return answer
    zeros = ctx is not None and ctx._materialize
    rule = backward if ctx is None else lambda *gradients: backward(ctx, *gradients)
    call = Call(name, given, rule, zeros)
    constant = [] if ctx is None else list(map(id, ctx._constant))
    aliases = {id(v) for v in given}
    for k, result in enumerate(results):
        passes = isinstance(result, Var) and result.dtype.is_float and id(result) not in constant
        call.results.append((result.shape, result.dtype) if passes else ((), None))
        if passes:
            node = Custom(result._node, call, k)
            if id(result) in aliases:
                results[k] = Var._of(node)
            else:
                result._node = node  # so that what was kept of it leads to the arguments too
    if not isinstance(answer, tuple | list):
        return results[0]
    return type(answer)(results)
