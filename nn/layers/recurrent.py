"""RNNCell, LSTMCell and GRUCell: one step of a recurrent network."""

from __future__ import annotations

import math
from typing import Any

import metaop as mo

from .. import functional, init
from ..module import Module
from ..parameter import Parameter


class _Cell(Module):
    """What the cells share: two linear maps, of the input and of the state, to stacked gates."""

    gates: int

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, *, dtype: Any = None):
        super().__init__()
        self.input_size, self.hidden_size, self.bias = input_size, hidden_size, bias
        rows, dtype = self.gates * hidden_size, dtype or mo.float32
        self.weight_ih = Parameter(mo.zeros((rows, input_size), dtype=dtype))
        self.weight_hh = Parameter(mo.zeros((rows, hidden_size), dtype=dtype))
        for name in ("bias_ih", "bias_hh"):
            vector = Parameter(mo.zeros((rows,), dtype=dtype)) if bias else None
            self.register_parameter(name, vector)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all parameters anew: uniform on ±1/sqrt(hidden_size)."""
        bound = 1 / math.sqrt(max(self.hidden_size, 1))
        for parameter in self.parameters():
            init.uniform_(parameter, -bound, bound)

    def _gates(self, x: mo.Var, h: mo.Var) -> tuple[list[mo.Var], list[mo.Var]]:
        """What input and state contribute to each gate."""
        from_input = functional.linear(x, self.weight_ih, self.bias_ih)
        from_state = functional.linear(h, self.weight_hh, self.bias_hh)
        return mo.split(from_input, self.gates, -1), mo.split(from_state, self.gates, -1)

    def _zeros(self, x: mo.Var) -> mo.Var:
        """The state before the first step."""
        if x.ndim not in (1, 2):
            raise mo.errors.ShapeError(
                f"{type(self).__name__}: x must be [batch, input] or [input], "
                f"got {mo.errors.describe(x)}"
            )
        return mo.zeros((*x.shape[:-1], self.hidden_size), dtype=x.dtype)

    def extra_repr(self) -> str:
        """The constructor's arguments, those at their default left out."""
        return f"{self.input_size}, {self.hidden_size}" + ("" if self.bias else ", bias=False")


class RNNCell(_Cell):
    """`h' = tanh(W_ih x + b_ih + W_hh h + b_hh)`, or with ReLU for nonlinearity="relu".

    weight_ih: [hidden_size, input_size]; weight_hh: [hidden_size, hidden_size]; bias_ih, bias_hh:
    [hidden_size].

    Source: Elman 1990; as torch.nn.RNNCell.
    """

    gates = 1

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        *,
        dtype: Any = None,
    ):
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(
                f"RNNCell: nonlinearity must be 'tanh' or 'relu', got {nonlinearity!r}"
            )
        super().__init__(input_size, hidden_size, bias, dtype=dtype)
        self.nonlinearity = nonlinearity

    def forward(self, x: mo.Var, h: mo.Var | None = None) -> mo.Var:
        """x: [batch, input_size] or [input_size]; h: the state, zeros if None.  Returns h'."""
        (from_input,), (from_state,) = self._gates(x, self._zeros(x) if h is None else h)
        apply = functional.tanh if self.nonlinearity == "tanh" else functional.relu
        return apply(from_input + from_state)

    def extra_repr(self) -> str:
        """The constructor's arguments, those at their default left out."""
        kind = "" if self.nonlinearity == "tanh" else f", nonlinearity={self.nonlinearity!r}"
        return super().extra_repr() + kind


class LSTMCell(_Cell):
    """`c' = f c + i g`, `h' = o tanh(c')`, with gates i, f, o = sigmoid and g = tanh of
    `W_ih x + b_ih + W_hh h + b_hh`.

    weight_ih: [4*hidden_size, input_size], weight_hh: [4*hidden_size, hidden_size], bias_ih,
    bias_hh: [4*hidden_size], each in the order i, f, g, o.

    Source: Hochreiter and Schmidhuber 1997, Gers et al. 2000; as torch.nn.LSTMCell.
    """

    gates = 4

    def forward(
        self, x: mo.Var, state: tuple[mo.Var, mo.Var] | None = None
    ) -> tuple[mo.Var, mo.Var]:
        """x: [batch, input_size] or [input_size]; state: (h, c), zeros if None.

        Returns (h', c').
        """
        h, c = (self._zeros(x),) * 2 if state is None else state
        i, f, g, o = (one + other for one, other in zip(*self._gates(x, h), strict=True))
        c = mo.sigmoid(f) * c + mo.sigmoid(i) * mo.tanh(g)
        return mo.sigmoid(o) * mo.tanh(c), c


class GRUCell(_Cell):
    """`h' = (1 - z) n + z h`, with r, z = sigmoid of `W_ih x + b_ih + W_hh h + b_hh` and
    `n = tanh(W_in x + b_in + r (W_hn h + b_hn))`.

    weight_ih: [3*hidden_size, input_size], weight_hh: [3*hidden_size, hidden_size], bias_ih,
    bias_hh: [3*hidden_size], each in the order r, z, n.

    Source: Cho et al. 2014; as torch.nn.GRUCell.
    """

    gates = 3

    def forward(self, x: mo.Var, h: mo.Var | None = None) -> mo.Var:
        """x: [batch, input_size] or [input_size]; h: the state, zeros if None.  Returns h'."""
        h = self._zeros(x) if h is None else h
        (x_r, x_z, x_n), (h_r, h_z, h_n) = self._gates(x, h)
        reset, update = mo.sigmoid(x_r + h_r), mo.sigmoid(x_z + h_z)
        new = mo.tanh(x_n + reset * h_n)
        return new + update * (h - new)
