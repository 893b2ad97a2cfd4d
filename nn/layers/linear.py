"""Linear and bilinear maps, and what compares vectors."""

from __future__ import annotations

import math
from typing import Any

import metaop as mo

from .. import functional, init
from ..module import Module
from ..parameter import Parameter
from .applied import Applied


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


class Bilinear(Module):
    """`out[…, o] = sum(x1[…, i] * weight[o, i, j] * x2[…, j] over i, j) + bias[o]`.

    weight: [out_features, in1_features, in2_features]; parameters start uniform on
    ±1/sqrt(in1_features).  Source: as torch.nn.Bilinear.
    """

    def __init__(
        self,
        in1_features: int,
        in2_features: int,
        out_features: int,
        bias: bool = True,
        *,
        dtype: Any = None,
    ):
        super().__init__()
        self.in1_features, self.in2_features = in1_features, in2_features
        self.out_features, dtype = out_features, dtype or mo.float32
        shape = (out_features, in1_features, in2_features)
        self.weight = Parameter(mo.zeros(shape, dtype=dtype))
        self.register_parameter(
            "bias", Parameter(mo.zeros((out_features,), dtype=dtype)) if bias else None
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weight and bias anew."""
        bound = 1 / math.sqrt(max(self.in1_features, 1))
        for parameter in self.parameters():
            init.uniform_(parameter, -bound, bound)

    def forward(self, x1: mo.Var, x2: mo.Var) -> mo.Var:
        """x1: [..., in1_features]; x2: [..., in2_features].  Returns [..., out_features]."""
        return functional.bilinear(x1, x2, self.weight, self.bias)

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        return (
            f"in1_features={self.in1_features}, in2_features={self.in2_features}, "
            f"out_features={self.out_features}, bias={self.bias is not None}"
        )


class CosineSimilarity(Applied):
    """`<x1, x2> / (max(|x1|, eps) * max(|x2|, eps))` along dim."""

    inputs = 2
    function = staticmethod(functional.cosine_similarity)


class PairwiseDistance(Applied):
    """The p-norm, p = 2 by default, of `x1 - x2 + eps` along the last axis."""

    inputs = 2
    function = staticmethod(functional.pairwise_distance)
