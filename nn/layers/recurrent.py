"""RNN, LSTM and GRU along a sequence; RNNCell, LSTMCell and GRUCell for one step."""

from __future__ import annotations

import math
from typing import Any

import metaop as mo

from .. import functional, init
from ..functional.recurrent import STEPS
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

    def _step(self, kind: str, x: mo.Var, *state: mo.Var) -> tuple[mo.Var, ...]:
        """The state after one step."""
        from_input = functional.linear(x, self.weight_ih, self.bias_ih)
        from_state = functional.linear(state[0], self.weight_hh, self.bias_hh)
        return STEPS[kind](from_input, from_state, *state)

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
        kind = f"RNN_{self.nonlinearity.upper()}"
        return self._step(kind, x, self._zeros(x) if h is None else h)[0]

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
        h, c = self._step("LSTM", x, h, c)
        return h, c


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
        return self._step("GRU", x, self._zeros(x) if h is None else h)[0]


class _Recurrent(Module):
    """What RNN, LSTM and GRU share: layers, directions, names of parameters."""

    mode: str
    gates: int
    states = 1

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        proj_size: int = 0,
        dtype: Any = None,
    ):
        super().__init__()
        name = type(self).__name__
        if hidden_size < 1 or num_layers < 1:
            raise ValueError(f"{name}: hidden_size and num_layers must be at least 1")
        if not 0 <= dropout <= 1:
            raise ValueError(f"{name}: dropout must be between 0 and 1, got {dropout}")
        if not 0 <= proj_size < hidden_size:
            raise ValueError(f"{name}: proj_size must be smaller than hidden_size {hidden_size}")
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.bias, self.batch_first, self.dropout = bias, batch_first, dropout
        self.bidirectional, self.proj_size = bidirectional, proj_size
        for layer in range(num_layers):
            for suffix in self._suffixes(layer):
                self._add_parameters(layer, suffix, dtype or mo.float32)
        self.reset_parameters()

    def _suffixes(self, layer: int) -> list[str]:
        """How the names of a layer's parameters end, one for each direction."""
        return [f"_l{layer}{way}" for way in ("", "_reverse")[: 1 + self.bidirectional]]

    @property
    def _width(self) -> int:
        """The features of h in one direction."""
        return self.proj_size or self.hidden_size

    def _add_parameters(self, layer: int, suffix: str, dtype: Any) -> None:
        rows = self.gates * self.hidden_size
        width = self._width * (1 + self.bidirectional)
        shapes: dict[str, tuple[int, ...] | None] = {
            "weight_ih": (rows, width if layer else self.input_size),
            "weight_hh": (rows, self._width),
            "bias_ih": (rows,) if self.bias else None,
            "bias_hh": (rows,) if self.bias else None,
            "weight_hr": (self.proj_size, self.hidden_size) if self.proj_size else None,
        }
        for name, shape in shapes.items():
            if shape is not None:
                self.register_parameter(name + suffix, Parameter(mo.zeros(shape, dtype=dtype)))

    def reset_parameters(self) -> None:
        """Draw all parameters anew: uniform on ±1/sqrt(hidden_size)."""
        bound = 1 / math.sqrt(self.hidden_size)
        for parameter in self.parameters():
            init.uniform_(parameter, -bound, bound)

    def flatten_parameters(self) -> None:
        """Nothing: parameters need not lie side by side."""

    def _run(
        self, x: mo.Var, given: tuple[mo.Var, ...] | None
    ) -> tuple[mo.Var, tuple[mo.Var, ...]]:
        """The output, and the states at the end of every layer and direction."""
        name = type(self).__name__
        if x.ndim not in (2, 3):
            raise mo.errors.ShapeError(
                f"{name}: x must be [length, batch, input_size], with batch_first=True [batch, "
                f"length, input_size], or [length, input_size], got {mo.errors.describe(x)}"
            )
        single = x.ndim == 2
        x = x[:, None] if single else x.swapaxes(0, 1) if self.batch_first else x
        state = self._first(x, given, single)
        last: list[tuple[mo.Var, ...]] = []
        for layer in range(self.num_layers):
            if layer and self.dropout:
                x = functional.dropout(x, self.dropout, self.training)
            ways = [self._along(x, state, len(last) + k, s)
                    for k, s in enumerate(self._suffixes(layer))]  # fmt: skip
            last += [end for _, end in ways]
            x = ways[0][0] if len(ways) == 1 else mo.concat([out for out, _ in ways], axis=-1)
        ends = tuple(mo.stack(list(parts)) for parts in zip(*last, strict=True))
        if single:
            return x[:, 0], tuple(end[:, 0] for end in ends)
        return x.swapaxes(0, 1) if self.batch_first else x, ends

    def _first(
        self, x: mo.Var, given: tuple[mo.Var, ...] | None, single: bool
    ) -> tuple[mo.Var, ...]:
        """The states before the first step, each [layers * directions, batch, features]."""
        count = self.num_layers * (1 + self.bidirectional)
        shapes = [(count, x.shape[1], size) for size in (self._width, self.hidden_size)]
        if given is None:
            return tuple(mo.zeros(shape, dtype=x.dtype) for shape in shapes[: self.states])
        given = tuple(part[:, None] for part in given) if single else given
        for part, shape in zip(given, shapes, strict=False):
            if part.shape != shape:
                raise mo.errors.ShapeError(
                    f"{type(self).__name__}: the state must be {list(shape)}, "
                    f"got {mo.errors.describe(part)}"
                )
        return given

    def _along(
        self, x: mo.Var, state: tuple[mo.Var, ...], number: int, suffix: str
    ) -> tuple[mo.Var, tuple[mo.Var, ...]]:
        """h after every step of one layer in one direction, and the states after the last."""
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")
        weights = [self._parameters.get(name + suffix) for name in names]
        reverse = suffix.endswith("_reverse")
        first = [part[number] for part in state]
        states = functional.recur(STEPS[self.mode], x, first, weights, reverse)
        end = 0 if reverse else -1
        return states[0], tuple(part[end] for part in states)

    def extra_repr(self) -> str:
        """The constructor's arguments, those at their default left out."""
        defaults = {
            "proj_size": 0, "num_layers": 1, "bias": True, "batch_first": False, "dropout": 0.0,
            "bidirectional": False,
        }  # fmt: skip
        changed = [
            f"{name}={getattr(self, name)}"
            for name, default in defaults.items()
            if getattr(self, name) != default
        ]
        return ", ".join([str(self.input_size), str(self.hidden_size), *changed])


class RNN(_Recurrent):
    """`h[t] = tanh(W_ih x[t] + b_ih + W_hh h[t-1] + b_hh)`, or with ReLU for nonlinearity="relu".

    x: [length, batch, input_size], with batch_first=True [batch, length, input_size], or [length,
    input_size].  Layer k > 0 reads the h of layer k - 1, dropped out in training; with
    bidirectional=True a second set of weights runs from the end, and its h are appended.

    For layer k: weight_ih_lk: [hidden_size, input_size], weight_hh_lk: [hidden_size, hidden_size],
    bias_ih_lk, bias_hh_lk: [hidden_size]; those of the other direction end in _reverse.

    Source: Elman 1990; as torch.nn.RNN.
    """

    gates = 1

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        dtype: Any = None,
    ):
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"RNN: nonlinearity must be 'tanh' or 'relu', got {nonlinearity!r}")
        super().__init__(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional,
            dtype=dtype,
        )  # fmt: skip
        self.nonlinearity, self.mode = nonlinearity, f"RNN_{nonlinearity.upper()}"

    def forward(self, x: mo.Var, h: mo.Var | None = None) -> tuple[mo.Var, mo.Var]:
        """x as above; h: [layers * directions, batch, hidden_size], zeros if None.

        Returns (h of the last layer at every step, h of every layer and direction at the end).
        """
        out, (last,) = self._run(x, None if h is None else (h,))
        return out, last


class LSTM(_Recurrent):
    """LSTMCell along a sequence, in layers and directions as RNN has them.

    proj_size: above 0, h is `weight_hr @ h` of that size.  Each weight has 4*hidden_size rows, in
    the order i, f, g, o.

    Source: Hochreiter and Schmidhuber 1997; as torch.nn.LSTM.
    """

    mode, gates, states = "LSTM", 4, 2

    def forward(
        self, x: mo.Var, state: tuple[mo.Var, mo.Var] | None = None
    ) -> tuple[mo.Var, tuple[mo.Var, mo.Var]]:
        """x as for RNN; state: (h, c), each [layers * directions, batch, size], zeros if None.

        Returns (h of the last layer at every step, (h, c) of every layer and direction at the end).
        """
        out, (h, c) = self._run(x, state)
        return out, (h, c)


class GRU(_Recurrent):
    """GRUCell along a sequence, in layers and directions as RNN has them.

    Each weight has 3*hidden_size rows, in the order r, z, n.

    Source: Cho et al. 2014; as torch.nn.GRU.
    """

    mode, gates = "GRU", 3

    def forward(self, x: mo.Var, h: mo.Var | None = None) -> tuple[mo.Var, mo.Var]:
        """x as for RNN; h: [layers * directions, batch, hidden_size], zeros if None.

        Returns (h of the last layer at every step, h of every layer and direction at the end).
        """
        out, (last,) = self._run(x, None if h is None else (h,))
        return out, last
