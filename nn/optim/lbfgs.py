"""L-BFGS: Newton's direction from the last few steps, and a line search along it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import metaop as mo
from metaop import Var, support

from .optimizer import Group, Optimizer, State, check_at_least_zero

DECREASE, CURVATURE = 1e-4, 0.9  # the constants of Wolfe's conditions
LEAST_CURVATURE = 1e-10  # a pair whose y·s is not above this says nothing of the Hessian


class LBFGS(Optimizer):
    """`w += t * d`, `d = -H g`, H the inverse Hessian that the last history_size steps tell of.

    `step(closure)` calls closure several times; it returns the loss, after `zero_grad()` and
    `loss.backward()`, or without: then its gradient is taken here.  A step ends after max_iter
    moves, max_eval calls (default: 5/4 of max_iter), when no gradient is above tolerance_grad, or
    when loss or parameters change by less than tolerance_change.  t is lr, or with
    line_search_fn="strong_wolfe" a step length that fulfils Wolfe's strong conditions.

    A step asks for values, so it is no part of a `mo.jit`; the closure may call what is.  An error
    in it leaves the parameters as they were.

    State, of the first parameter: the last gradient and direction, and history_size pairs of their
    changes: `2 * history_size + 2` times the memory of the parameters.
    Source: Nocedal and Wright 2006, algorithms 7.4, 3.5 and 3.6; as torch.optim.LBFGS.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1.0,
        max_iter: int = 20,
        max_eval: int | None = None,
        tolerance_grad: float = 1e-7,
        tolerance_change: float = 1e-9,
        history_size: int = 100,
        line_search_fn: str | None = None,
    ):
        check_at_least_zero(
            lr=lr, max_iter=max_iter, tolerance_grad=tolerance_grad,
            tolerance_change=tolerance_change, history_size=history_size,
        )  # fmt: skip
        if line_search_fn not in (None, "strong_wolfe"):
            raise ValueError(
                f"LBFGS: line_search_fn must be 'strong_wolfe' or None, got {line_search_fn!r}"
            )
        defaults = {
            "lr": lr, "max_iter": max_iter,
            "max_eval": max_iter * 5 // 4 if max_eval is None else max_eval,
            "tolerance_grad": tolerance_grad, "tolerance_change": tolerance_change,
            "history_size": history_size, "line_search_fn": line_search_fn,
        }  # fmt: skip
        super().__init__(params, defaults)
        self.state = support.Watched({self._parameters[0]: _no_history()})

    def add_param_group(self, param_group: Mapping[str, Any]) -> None:
        """The one group there is.  Raises ValueError for a second."""
        if self.param_groups:
            raise ValueError("LBFGS has one group of parameters: a step moves them all at once")
        super().add_param_group(param_group)

    def state_names(self, group: Group) -> tuple[str, ...]:
        """None: what is kept belongs to all parameters together."""
        return ()

    @property
    def _parameters(self) -> list[Var]:
        return self.param_groups[0]["params"]

    def loaded(self, current: State | None, parameter: Var, saved: Mapping[str, Any]) -> State:
        """The history of a state dict."""
        return {**_no_history(), **{name: _copy(value) for name, value in saved.items()}}

    # --- a step -----------------------------------------------------------------------------------

    def step(self, closure: Any = None) -> Any:
        """Moves the parameters until one of the conditions above holds; the first loss.

        closure: a function of no arguments that returns the loss.
        """
        if not callable(closure):
            raise TypeError(
                "LBFGS.step(closure) evaluates the loss several times: give a function that "
                f"returns it, as step(lambda: loss(net(x), y)), not {type(closure).__name__}"
            )
        start = self._values()
        try:
            with mo.no_grad():
                return self._step(closure)
        except BaseException:
            self._set(start)
            raise

    def _step(self, closure: Callable[[], Var]) -> Var:
        group = dict(self.param_groups[0])
        state = dict(self.state[self._parameters[0]])
        state["old_dirs"], state["old_stps"] = list(state["old_dirs"]), list(state["old_stps"])
        state["ro"] = list(state["ro"])
        first, here = self._evaluate(closure)
        calls, moves = 1, 0
        while moves < group["max_iter"] and (not moves or calls < group["max_eval"]):
            if _largest(here.gradient) <= group["tolerance_grad"]:
                break
            moves += 1
            there, used = self._further(closure, here, state, group, calls, moves)
            calls += used
            if there is None or _has_converged(here, there, state, group):
                break
            here = there
        state["func_evals"] += calls
        self.state[self._parameters[0]] = state
        return first

    def _further(
        self, closure: Callable[[], Var], here: _Point, state: State, group: Group,
        calls: int, moves: int,
    ) -> tuple[_Point | None, int]:  # fmt: skip
        """One move: where it ends, and how many calls it took; None if it is the last, or if the
        direction leads nowhere."""
        state["n_iter"] += 1
        direction = _direction(here.gradient, state, group)
        is_first = state["n_iter"] == 1
        t = group["lr"]
        if is_first:
            t *= min(1.0, 1.0 / mo.abs(here.gradient).sum().item())
        slope = _dot(here.gradient, direction)
        state.update(
            d=direction, t=t, prev_flat_grad=here.gradient, prev_loss=here.value,
        )  # fmt: skip
        if slope > -group["tolerance_change"]:
            return None, 0
        start = self._values()

        def at(length: float) -> _Point:
            self._set(start, length, direction)
            _, point = self._evaluate(closure)
            return point._replace(t=length, slope=_dot(point.gradient, direction))

        if group["line_search_fn"] is None:
            self._set(start, t, direction)
            if moves == group["max_iter"]:  # the next step evaluates there
                return None, 0
            return self._evaluate(closure)[1], 1
        found, used = _strong_wolfe(
            at, here._replace(t=0.0, slope=slope), t, _largest(direction), group["max_eval"] - calls
        )
        self._set(start, found.t, direction)
        state["t"] = found.t
        return found, used

    def _evaluate(self, closure: Callable[[], Var]) -> tuple[Var, _Point]:
        """The loss, and with it the gradient, of all parameters in a row."""
        self.zero_grad()
        with mo.enable_grad():
            loss = closure()
        gradients = [p.grad for p in self._parameters]
        if all(g is None for g in gradients):
            trained = [p for p in self._parameters if p.requires_grad]
            found = dict(zip(map(id, trained), mo.grad(loss, trained), strict=True))
            gradients = [found.get(id(p)) for p in self._parameters]
        parts = [
            mo.zeros(p.size, dtype=p.dtype) if g is None else g.detach().reshape(-1)
            for p, g in zip(self._parameters, gradients, strict=True)
        ]
        flat = mo.concat(parts) if len(parts) > 1 else parts[0]
        return loss, _Point(0.0, loss.item(), flat.sync(), 0.0)

    def _values(self) -> list[Var]:
        return [p.detach() for p in self._parameters]

    def _set(self, start: list[Var], length: float = 0.0, direction: Var | None = None) -> None:
        """Parameters at `start + length * direction`."""
        values, offset = start, 0
        if direction is not None:
            values = []
            for value in start:
                part = direction[offset : offset + value.size].reshape(value.shape)
                values.append(value + length * part)
                offset += value.size
        with mo.no_grad():
            mo.assign_all(list(zip(self._parameters, values, strict=True)))
        mo.sync()


class _Point(NamedTuple):
    """A place on the way: how far, the loss, its gradient, and its slope in that direction."""

    t: float
    value: float
    gradient: Var
    slope: float


def _no_history() -> State:
    return support.Counters(
        func_evals=0, n_iter=0, d=None, t=0.0, old_dirs=[], old_stps=[], ro=[], H_diag=1.0,
        prev_flat_grad=None, prev_loss=0.0,
    )  # fmt: skip


def _copy(value: Any) -> Any:
    """An entry of a saved state, of which arrays become Vars."""
    if isinstance(value, list | tuple):
        return [_copy(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float) else mo.array(value)


def _dot(a: Var, b: Var) -> float:
    return (a * b).sum().item()


def _largest(x: Var) -> float:
    return mo.abs(x).max().item()


def _direction(gradient: Var, state: State, group: Group) -> Var:
    """`-H g` by the two loops over the pairs s, y of moves and changes of the gradient."""
    if state["n_iter"] == 1:
        return (-gradient).sync()
    pairs, changes, weights = state["old_stps"], state["old_dirs"], state["ro"]
    y, s = (gradient - state["prev_flat_grad"]).sync(), (state["d"] * state["t"]).sync()
    curvature = _dot(y, s)
    if curvature > LEAST_CURVATURE:
        for entries, new in ((pairs, s), (changes, y), (weights, 1 / curvature)):
            entries.append(new)
            del entries[: -group["history_size"] or None]
        state["H_diag"] = curvature / _dot(y, y)
    q = -gradient
    shares = []
    for s, y, weight in zip(pairs[::-1], changes[::-1], weights[::-1]):
        shares.append(_dot(s, q) * weight)
        q = (q - shares[-1] * y).sync()
    q = (q * state["H_diag"]).sync()
    for s, y, weight, share in zip(pairs, changes, weights, shares[::-1]):
        q = (q + (share - _dot(y, q) * weight) * s).sync()
    return q.sync()


def _has_converged(here: _Point, there: _Point, state: State, group: Group) -> bool:
    least = group["tolerance_change"]
    moved = _largest(state["d"]) * abs(state["t"])
    return moved <= least or abs(there.value - here.value) < least


# --- the line search ------------------------------------------------------------------------------


def _strong_wolfe(
    at: Callable[[float], _Point], start: _Point, t: float, reach: float, most: int
) -> tuple[_Point, int]:
    """A point with `f <= f0 + c1 t f0'` and `|f'| <= c2 |f0'|`, or the best that was found.

    at: evaluates the point at a distance; t: the first to try; reach: the largest change of a
    parameter at distance 1; most: how many evaluations but for the first.
    Returns it, and how often it was evaluated.
    """
    before, point, tries = start, at(t), 0
    low, high = start, point
    while tries < most:
        if _is_high(point, start) or (tries > 1 and point.value >= before.value):
            low, high = before, point
            break
        if _is_flat(point, start):
            return point, tries + 1
        if point.slope >= 0:
            low, high = before, point
            break
        further = _between(before, point, point.t + 0.01 * (point.t - before.t), 10 * point.t)
        before, point = point, at(further)
        low, high = start, point
        tries += 1
    if high.value < low.value:
        low, high = high, low
    return _zoomed(at, start, (low, high), reach, tries, most)


def _zoomed(
    at: Callable[[float], _Point], start: _Point, bracket: tuple[_Point, _Point], reach: float,
    tries: int, most: int,
) -> tuple[_Point, int]:  # fmt: skip
    """The same, between the lower and the higher end of a bracket."""
    low, high = bracket
    is_slow = False  # the last point came close to an end
    while tries < most and abs(high.t - low.t) * reach >= 1e-9:
        left, right = sorted((low.t, high.t))
        t, margin = _between(low, high, left, right), 0.1 * (right - left)
        if min(right - t, t - left) >= margin:
            is_slow = False
        elif is_slow or not left < t < right:
            t = right - margin if right - t < t - left else left + margin
            is_slow = False
        else:
            is_slow = True
        point = at(t)
        tries += 1
        if _is_high(point, start) or point.value >= low.value:
            low, high = (point, low) if point.value < low.value else (low, point)
        elif _is_flat(point, start):
            return point, tries + 1
        else:
            low, high = point, low if point.slope * (high.t - low.t) >= 0 else high
    return low, tries + 1


def _is_high(point: _Point, start: _Point) -> bool:
    return point.value > start.value + DECREASE * point.t * start.slope


def _is_flat(point: _Point, start: _Point) -> bool:
    return abs(point.slope) <= -CURVATURE * start.slope


def _between(a: _Point, b: _Point, least: float, most: float) -> float:
    """The minimum of the cubic through two points with their slopes, within bounds; the middle of
    the bounds if it has none."""
    if a.t > b.t:
        a, b = b, a
    mean = a.slope + b.slope - 3 * (a.value - b.value) / (a.t - b.t)
    square = mean * mean - a.slope * b.slope
    root = math.sqrt(square) if square >= 0 else math.nan
    below = b.slope - a.slope + 2 * root
    if not square >= 0 or below == 0:
        return (least + most) / 2
    found = b.t - (b.t - a.t) * ((b.slope + root - mean) / below)
    return min(max(found, least), most)
