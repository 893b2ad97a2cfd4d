"""Transformations of functions: products with the Jacobian, Jacobians, Hessians, checks of
gradients.

All are made of `mo.grad`, whose results are meta-operators again, and of `vmap`; so they nest.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from . import elementwise as el
from . import life, reduction
from .batching import vmap
from .build import full
from .errors import DTypeError, ShapeError, UnreachedGradientWarning, describe
from .grad import gradients_of
from .grad_mode import enable_grad
from .graph import Custom, Elementwise, IndexOf, Node, _sequence, toposort
from .placeholder import as_var, leaves_of, rebuilt, substitute
from .var import Var, grad

Function = Callable[..., Any]


def _variable(value: Any) -> Var:
    """A Var of its own to differentiate with respect to; outer gradients pass through it."""
    var = as_var(value)
    if not var.dtype.is_float:
        raise DTypeError(f"only floats can be differentiated, not {describe(var)}")
    node = Elementwise("copy", var._node)
    node.requires_grad, node.stop = True, False
    return Var._of(node)


def _weighted(outputs: list[Var], weights: list[Var]) -> Var:
    """The sum of all outputs times their weights: its gradient is the product with the Jacobian."""
    total: Var | None = None
    for y, w in zip(outputs, weights, strict=True):
        if y.shape != w.shape:
            raise ShapeError(f"vjp: the cotangent of {describe(y)} cannot be {describe(w)}")
        if not y.dtype.is_float:
            continue
        term = reduction.sum(el.multiply(y, w))
        total = term if total is None else el.add(total, term)
    if total is None:
        raise DTypeError("no result of the function is a float")
    return total


def _grad(loss: Var, variables: list[Var]) -> list[Var]:
    """Gradients; zeros, without a warning, where the loss does not depend on one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnreachedGradientWarning)
        return grad(loss, variables)


# ---------------------------------------------------------------------- products with the Jacobian


def vjp(function: Function, *primals: Any) -> tuple[Any, Callable[..., Any]]:
    """(function(*primals), pullback): pullback(cotangents) is the tuple of gradients of the
    primals of sum(cotangents * results); it may be called often."""
    variables = [_variable(leaf) for leaf in leaves_of(primals)]
    with enable_grad():
        results = function(*rebuilt(primals, variables))
    outputs = [as_var(leaf) for leaf in leaves_of(results)]

    def pullback(cotangents: Any) -> Any:
        weights = [as_var(leaf) for leaf in leaves_of(cotangents)]
        with enable_grad():
            loss = _weighted(outputs, weights)
        return rebuilt(primals, _grad(loss, variables))

    return results, pullback


def jvp(function: Function, primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[Any, Any]:
    """(results, d results / d primals times the tangents): the derivative along a direction.

    The pullback is linear in its cotangent; the derivative of that is this.
    """
    primals, tangents = tuple(primals), tuple(tangents)
    results, pullback = vjp(function, *primals)
    outputs = [as_var(leaf) for leaf in leaves_of(results)]
    weights = [_variable(Var._of(full(0, y.shape, y.dtype))) for y in outputs]
    along = [as_var(t) for t in leaves_of(tangents)]
    with enable_grad():
        gradients = [as_var(g) for g in leaves_of(pullback(rebuilt(results, weights)))]
        slope = _weighted(gradients, along)
    return results, rebuilt(results, _grad(slope, weights))


def value_and_grad(
    function: Function, argnums: int | Sequence[int] = 0, has_aux: bool = False
) -> Function:
    """The function that returns (value, gradients) for the arguments of the given numbers.

    has_aux: the function returns (loss, anything), and so does the value.
    """
    numbers = (argnums,) if isinstance(argnums, int) else tuple(argnums)

    @functools.wraps(function)
    def both(*arguments: Any, **options: Any) -> tuple[Any, Any]:
        given = list(arguments)
        for k in numbers:
            given[k] = rebuilt(arguments[k], [_variable(v) for v in leaves_of(arguments[k])])
        variables = [v for k in numbers for v in leaves_of(given[k])]
        with enable_grad():
            value = function(*given, **options)
        loss = value[0] if has_aux else value
        found = iter(grad(loss, variables))
        gradients = [rebuilt(arguments[k], [next(found) for _ in leaves_of(arguments[k])])
                     for k in numbers]  # fmt: skip
        return value, gradients[0] if isinstance(argnums, int) else tuple(gradients)

    return both


def _basis(x: Var) -> Var:
    """The unit vectors of x's space: [size, *shape]."""
    n = x._node.size
    rows = el.equal(Var._of(IndexOf((n, n), 0)), Var._of(IndexOf((n, n), 1)))
    return el.astype(rows, x.dtype).reshape((n, *x.shape))


def jacobian(function: Function, argnums: int = 0) -> Function:
    """The function that returns d result / d argument, of shape (*result, *argument).

    All rows are computed by one mapped pullback.  The result must be one Var.
    """

    @functools.wraps(function)
    def rows(*arguments: Any) -> Var:
        x = as_var(arguments[argnums])

        def of_one(v: Var) -> Any:
            return function(*arguments[:argnums], v, *arguments[argnums + 1 :])

        y, pullback = vjp(of_one, x)
        if not isinstance(y, Var):
            raise ShapeError(f"jacobian: the function must return one Var, not {type(y).__name__}")
        found = vmap(lambda w: pullback(w)[0])(_basis(y))
        return found.reshape((*y.shape, *x.shape))

    return rows


def hessian(function: Function, argnums: int = 0) -> Function:
    """The function that returns the second derivatives of a scalar function, of shape
    (*argument, *argument)."""

    def slope(*arguments: Any) -> Any:
        return value_and_grad(function, argnums)(*arguments)[1]

    return jacobian(functools.wraps(function)(slope), argnums)


def hvp(function: Function, primals: Any, tangents: Any) -> Any:
    """The Hessian of a scalar function at the primals (a Var, or a tuple of them) times tangents,
    without forming it: the gradient of <gradient, tangents>."""
    single = not isinstance(primals, list | tuple)
    given = (primals,) if single else tuple(primals)
    along = [as_var(t) for t in leaves_of((tangents,) if single else tuple(tangents))]
    variables = [_variable(leaf) for leaf in leaves_of(given)]
    with enable_grad():
        loss = function(*rebuilt(given, variables))
        slope = _weighted(_grad(loss, variables), along)
    found = rebuilt(given, _grad(slope, variables))
    return found[0] if single else found


# ------------------------------------------------------------------------------------ checkpoint


def checkpoint(function: Function, *arguments: Any) -> Any:
    """function(*arguments), whose intermediate values are not kept for the gradient: they are
    computed a second time by it.

    The function is called once.  What it reads from outside (the parameters of a network) is
    differentiated, too.  Source: Chen et al. 2016, "Training deep nets with sublinear memory cost".
    """
    leaves = [as_var(leaf) for leaf in leaves_of(arguments)]
    inside = [v._node for v in leaves]
    first = next(_sequence)
    variables = [_variable(v) if v.dtype.is_float else v for v in leaves]
    results = function(*rebuilt(arguments, variables))
    outputs = [as_var(leaf)._node for leaf in leaves_of(results)]
    given = [v._node for v in variables]
    graph = toposort(outputs, lambda n: n.sequence < first)
    outside = [n for n in graph if n.sequence < first and n.requires_grad]
    with life.not_recording_gradients():
        plain: dict[Node, Node] = dict(zip(given, (Elementwise("copy", n) for n in inside)))
        plain |= {n: Elementwise("copy", n) for n in outside}
        values = substitute(outputs, plain)
    read_by = [*inside, *(n for n in outside if n not in inside)]
    call = _Repeated(outputs, dict(zip(given, inside)), read_by)
    made = [Var._of(Custom(value, call, k)) if value.dtype.is_float else Var._of(value)
            for k, value in enumerate(values)]  # fmt: skip
    return rebuilt(results, made)


class _Repeated:
    """A checkpoint as the gradient table sees it: what it reads, and the gradients of that."""

    def __init__(self, outputs: list[Node], source: dict[Node, Node], read_by: list[Node]):
        self.outputs, self.source, self.inputs = outputs, source, tuple(read_by)

    def gradients(self, given: dict[int, Node]) -> tuple[Node | None, ...]:
        """The outputs computed again from copies that no rewrite removes, and their gradients."""
        again = {n: Elementwise("again", n) for n in self.inputs if n.dtype.is_float}
        for copy in again.values():
            copy.requires_grad, copy.stop = True, False
        replace: dict[Node, Node] = {v: again.get(n, n) for v, n in self.source.items()}
        replace |= {n: a for n, a in again.items() if n not in replace}
        with life.recording_gradients():
            repeated = substitute([self.outputs[k] for k in given], replace)
            loss = _weighted(list(map(Var._of, repeated)), list(map(Var._of, given.values())))
        found = iter(gradients_of(loss._node, list(again.values())))
        return tuple(next(found) if n in again else None for n in self.inputs)


# ------------------------------------------------------------------------------------ gradcheck


def gradcheck(
    function: Function,
    inputs: Any,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    order: int = 1,
    raise_exception: bool = True,
) -> bool:
    """True if gradients agree with central differences; inputs should be float64.

    A random weighting of all results is differentiated; with order=2 the gradient's gradient, too.
    Raises AssertionError that names the input and the worst element (or returns False).
    """
    given = tuple(inputs) if isinstance(inputs, list | tuple) else (inputs,)
    arrays = [np.array(as_var(v).numpy()) for v in given]
    rng = np.random.default_rng(0)
    weights: list[Any] = []

    def weighted(*vars: Any) -> Var:
        outputs = [as_var(y) for y in leaves_of(function(*vars))]
        while len(weights) < len(outputs):
            weights.append(rng.normal(size=outputs[len(weights)].shape))
        known = [Var(w, y.dtype) for w, y in zip(weights, outputs) if y.dtype.is_float]
        return _weighted([y for y in outputs if y.dtype.is_float], known)

    try:
        _compare_slopes(weighted, arrays, eps, atol, rtol)
        if order > 1:
            tangents = [rng.normal(size=a.shape) for a in arrays]

            def directional(*vars: Any) -> Var:
                variables = [_variable(v) if v.dtype.is_float else v for v in map(as_var, vars)]
                floats = [k for k, v in enumerate(variables) if v.dtype.is_float]
                slopes = _grad(weighted(*variables), [variables[k] for k in floats])
                along = [Var(tangents[k], variables[k].dtype) for k in floats]
                return _weighted(slopes, along)

            _compare_slopes(directional, arrays, eps, atol, rtol)
    except AssertionError:
        if raise_exception:
            raise
        return False
    return True


def _compare_slopes(
    function: Function, arrays: list[np.ndarray], eps: float, atol: float, rtol: float
) -> None:
    variables = [Var(a) for a in arrays]
    floats = [k for k, v in enumerate(variables) if v.dtype.is_float]
    own = [_variable(v) if k in floats else v for k, v in enumerate(variables)]
    slopes = [g.numpy() for g in _grad(function(*own), [own[k] for k in floats])]
    for k, slope in zip(floats, slopes):
        wanted = np.zeros(arrays[k].shape)
        for i in np.ndindex(*arrays[k].shape):
            moved = []
            for sign in (1, -1):
                shifted = [a.copy() for a in arrays]
                shifted[k][i] += sign * eps
                moved.append(function(*map(Var, shifted)).item())
            wanted[i] = (moved[0] - moved[1]) / (2 * eps)
        far = np.abs(slope - wanted) - (atol + rtol * np.abs(wanted))
        if wanted.size and not (far <= 0).all():
            worst = np.unravel_index(
                int(np.argmax(np.where(np.isnan(far), np.inf, far))), far.shape
            )
            place = ", ".join(map(str, worst))
            raise AssertionError(
                f"gradcheck: input {k} at [{place}]: gradient {slope[worst]!r}, central "
                f"difference {wanted[worst]!r}"
            )
