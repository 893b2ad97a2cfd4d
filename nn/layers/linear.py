"""Linear and Identity."""

from __future__ import annotations

from typing import Any

import metaop as mo

from .. import functional, init
from ..module import Module
from ..parameter import Parameter


class Identity(Module):
    """`x`, whatever the constructor is given."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__()

    def forward(self, x: mo.Var) -> mo.Var:
        """x itself."""
        return x


class Linear(Module):
    """`x @ weight.T + bias`: [..., in_features] to [..., out_features].

    weight: [out_features, in_features] and bias: [out_features] start uniform on
    ±1/sqrt(in_features).

    Source: as torch.nn.Linear.
    """

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, *, dtype: Any = None
    ):
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        dtype = dtype or mo.float32
        self.weight = Parameter(mo.zeros((out_features, in_features), dtype=dtype))
        self.register_parameter(
            "bias", Parameter(mo.zeros((out_features,), dtype=dtype)) if bias else None
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weight and bias anew."""
        init.fan_in_uniform_(self.weight, self.bias)

    def forward(self, x: mo.Var) -> mo.Var:
        """x: [..., in_features].  Returns [..., out_features]."""
        return functional.linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}"
        )
