"""TransformerEncoderLayer and TransformerEncoder."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import metaop as mo

from .. import functional
from ..module import Module
from .attention import MultiheadAttention
from .container import ModuleList
from .dropout import Dropout
from .linear import Linear
from .norm import LayerNorm

ACTIVATIONS: dict[str, Callable[[mo.Var], mo.Var]] = {
    "relu": functional.relu,
    "gelu": functional.gelu,
}


class TransformerEncoderLayer(Module):
    """Self-attention, then `linear2(activation(linear1(x)))`, each added to its input.

    A layer norm follows each sum; with norm_first=True it comes before each of the two parts
    instead.  x: [length, batch, d_model], or [batch, length, d_model] with batch_first=True.
    activation: "relu", "gelu" or a function.

    Source: Vaswani et al. 2017, section 3; as torch.nn.TransformerEncoderLayer.
    """

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: str | Callable[[mo.Var], mo.Var] = "relu",
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        *,
        dtype: Any = None,
    ):
        super().__init__()
        if isinstance(activation, str) and activation not in ACTIVATIONS:
            raise ValueError(
                "TransformerEncoderLayer: activation must be 'relu', 'gelu' or a function, "
                f"got {activation!r}"
            )
        self.self_attn = MultiheadAttention(
            d_model, nhead, dropout, bias, batch_first=batch_first, dtype=dtype
        )
        self.linear1 = Linear(d_model, dim_feedforward, bias, dtype=dtype)
        self.dropout = Dropout(dropout)
        self.linear2 = Linear(dim_feedforward, d_model, bias, dtype=dtype)
        self.norm1 = LayerNorm(d_model, layer_norm_eps, bias=bias, dtype=dtype)
        self.norm2 = LayerNorm(d_model, layer_norm_eps, bias=bias, dtype=dtype)
        self.dropout1, self.dropout2 = Dropout(dropout), Dropout(dropout)
        self.norm_first = norm_first
        self.activation = ACTIVATIONS[activation] if isinstance(activation, str) else activation

    def forward(
        self,
        src: mo.Var,
        src_mask: mo.Var | None = None,
        src_key_padding_mask: mo.Var | None = None,
        is_causal: bool = False,
    ) -> mo.Var:
        """src with attention and feed-forward part added; the masks as in MultiheadAttention."""
        masks = (src_mask, src_key_padding_mask, is_causal)
        if self.norm_first:
            src = src + self._attend(self.norm1(src), *masks)
            return src + self._feed_forward(self.norm2(src))
        src = self.norm1(src + self._attend(src, *masks))
        return self.norm2(src + self._feed_forward(src))

    def _attend(
        self, x: mo.Var, mask: mo.Var | None, padding: mo.Var | None, is_causal: bool
    ) -> mo.Var:
        attended, _ = self.self_attn(
            x, x, x, padding, need_weights=False, attn_mask=mask, is_causal=is_causal
        )
        return self.dropout1(attended)

    def _feed_forward(self, x: mo.Var) -> mo.Var:
        return self.dropout2(self.linear2(self.dropout(self.activation(self.linear1(x)))))


class TransformerEncoder(Module):
    """num_layers copies of encoder_layer, one after another, and norm at the end if given.

    Source: as torch.nn.TransformerEncoder; all copies start with equal parameters.
    """

    def __init__(
        self, encoder_layer: TransformerEncoderLayer, num_layers: int, norm: Module | None = None
    ):
        super().__init__()
        self.layers = ModuleList(copy.deepcopy(encoder_layer) for _ in range(num_layers))
        self.num_layers = num_layers
        self.register_module("norm", norm)

    def forward(
        self,
        src: mo.Var,
        mask: mo.Var | None = None,
        src_key_padding_mask: mo.Var | None = None,
        is_causal: bool = False,
    ) -> mo.Var:
        """src: as in TransformerEncoderLayer.  The masks go to every layer."""
        for layer in self.layers:
            src = layer(src, mask, src_key_padding_mask, is_causal)
        return src if self.norm is None else self.norm(src)
