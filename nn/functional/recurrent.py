"""Recurrence: one step of each kind of cell, and a cell applied along a sequence.

A step takes what input and state contribute to its gates, and the state; the product of the state
with its weights is outside, so that the gradient of the weights is one product over all steps.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import metaop as mo
from metaop import Var

from .activation import relu, tanh
from .linear import linear

State = tuple[Var, ...]
Step = Callable[..., State]


def rnn_step(from_input: Var, from_state: Var, h: Var, apply: Callable[[Var], Var]) -> State:
    """`h' = apply(from_input + from_state)`."""
    return (apply(from_input + from_state),)


def lstm_step(from_input: Var, from_state: Var, h: Var, c: Var) -> State:
    """`c' = f c + i g`, `h' = o tanh(c')`; the gates lie in the order i, f, g, o."""
    i, f, g, o = mo.split(from_input + from_state, 4, -1)
    c = mo.sigmoid(f) * c + mo.sigmoid(i) * mo.tanh(g)
    return mo.sigmoid(o) * mo.tanh(c), c


def gru_step(from_input: Var, from_state: Var, h: Var) -> State:
    """`h' = (1 - z) n + z h`, `n = tanh(x_n + r h_n)`; the gates lie in the order r, z, n."""
    (x_r, x_z, x_n), (h_r, h_z, h_n) = mo.split(from_input, 3, -1), mo.split(from_state, 3, -1)
    reset, update = mo.sigmoid(x_r + h_r), mo.sigmoid(x_z + h_z)
    new = mo.tanh(x_n + reset * h_n)
    return (new + update * (h - new),)


STEPS: dict[str, Step] = {
    "RNN_TANH": functools.partial(rnn_step, apply=tanh),
    "RNN_RELU": functools.partial(rnn_step, apply=relu),
    "LSTM": lstm_step,
    "GRU": gru_step,
}


class _Recurrence(mo.Function):
    """The states after every step; backwards, the steps give the gradients of their gates, and the
    weights get theirs from all steps at once."""

    @staticmethod
    def forward(
        ctx: Any, step: Step, reverse: bool, gates: Var, weight: Var, bias: Var | None, *state: Var
    ) -> State:
        def advance(state: State, row: Var) -> tuple[State, State]:
            state = step(row, linear(state[0], weight, bias), *state)
            return state, state

        _, states = mo.scan(advance, state, gates, reverse=reverse)
        ctx.step, ctx.reverse, ctx.count = step, reverse, len(state)
        ctx.save_for_backward(gates, weight, bias, *state, *states)
        return states

    @staticmethod
    def backward(ctx: Any, *received: Var) -> tuple[Var | None, ...]:
        gates, weight, bias, *saved = ctx.saved_tensors
        first, states = saved[: ctx.count], saved[ctx.count :]
        before = tuple(
            mo.concat([s[1:], f[None]] if ctx.reverse else [f[None], s[:-1]])
            for f, s in zip(first, states, strict=True)
        )

        def back(flow: State, row: Any) -> tuple[State, State]:
            from_input, from_state, state, gradient = row
            _, pullback = mo.vjp(_with_whole_state(ctx.step), from_input, from_state, *state)
            g_input, g_state, *g_before = pullback(
                tuple(f + g for f, g in zip(flow, gradient, strict=True))
            )
            g_before[0] = g_before[0] + g_state @ weight
            return tuple(g_before), (g_input, g_state)

        rows = (gates, linear(before[0], weight, bias), before, received)
        nothing = tuple(mo.zeros(f.shape, dtype=f.dtype) for f in first)
        g_first, (g_gates, g_states) = mo.scan(back, nothing, rows, reverse=not ctx.reverse)
        flat = g_states.reshape((-1, g_states.shape[-1]))
        g_weight = flat.T @ before[0].reshape((-1, before[0].shape[-1]))
        g_bias = None if bias is None else flat.sum(axis=0)
        return (None, None, g_gates, g_weight, g_bias, *g_first)


def _with_whole_state(step: Step) -> Step:
    """The step, with every part of the state in its result, so that each has a gradient."""

    def whole(from_input: Var, from_state: Var, *state: Var) -> State:
        h, *others = step(from_input, from_state, *state)
        return (h + 0 * state[0], *others)

    return whole


def recur(
    step: Step, x: Var, state: Sequence[Var], weights: Sequence[Var | None], reverse: bool = False
) -> State:
    """The states after every step along x, each [length, batch, hidden_size].

    x: [length, batch, input_size]; state: before the first step; weights: weight_ih, weight_hh,
    bias_ih, bias_hh and weight_hr, None where there is none; reverse: from the last row to the
    first.
    """
    weight_ih, weight_hh, bias_ih, bias_hh, weight_hr = weights
    gates = linear(x, weight_ih, bias_ih)
    if weight_hr is None:
        return _Recurrence.apply(step, reverse, gates, weight_hh, bias_hh, *state)

    def advance(state: State, row: Var) -> tuple[State, State]:
        h, *others = step(row, linear(state[0], weight_hh, bias_hh), *state)
        state = (linear(h, weight_hr), *others)
        return state, state

    return mo.scan(advance, tuple(state), gates, reverse=reverse)[1]
