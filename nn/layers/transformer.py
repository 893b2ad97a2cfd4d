"""Encoders and decoders of attention."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import metaop as mo

from .. import functional, init
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


def _activation(layer: str, given: str | Callable[[mo.Var], mo.Var]) -> Callable[[mo.Var], mo.Var]:
    """An activation by its name, or as it is given."""
    if not isinstance(given, str):
        return given
    if given not in ACTIVATIONS:
        raise ValueError(f"{layer}: activation must be 'relu', 'gelu' or a function, got {given!r}")
    return ACTIVATIONS[given]


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
        self.activation = _activation("TransformerEncoderLayer", activation)
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


class TransformerDecoderLayer(Module):
    """Self-attention, attention to `memory`, then `linear2(activation(linear1(x)))`, each added to
    its input, with a layer norm after each sum, or before each part with norm_first=True.

    Arguments as those of TransformerEncoderLayer.
    Source: Vaswani et al. 2017, section 3; as torch.nn.TransformerDecoderLayer.
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
        self.activation = _activation("TransformerDecoderLayer", activation)
        for name in ("self_attn", "multihead_attn"):
            attention = MultiheadAttention(
                d_model, nhead, dropout, bias, batch_first=batch_first, dtype=dtype
            )
            self.register_module(name, attention)
        self.linear1 = Linear(d_model, dim_feedforward, bias, dtype=dtype)
        self.dropout = Dropout(dropout)
        self.linear2 = Linear(dim_feedforward, d_model, bias, dtype=dtype)
        for k in (1, 2, 3):
            norm = LayerNorm(d_model, layer_norm_eps, bias=bias, dtype=dtype)
            self.register_module(f"norm{k}", norm)
        for k in (1, 2, 3):
            self.register_module(f"dropout{k}", Dropout(dropout))
        self.norm_first = norm_first

    def forward(
        self,
        tgt: mo.Var,
        memory: mo.Var,
        tgt_mask: mo.Var | None = None,
        memory_mask: mo.Var | None = None,
        tgt_key_padding_mask: mo.Var | None = None,
        memory_key_padding_mask: mo.Var | None = None,
        tgt_is_causal: bool = False,
        memory_is_causal: bool = False,
    ) -> mo.Var:
        """tgt with three parts added; memory: the encoder's result; masks as in
        MultiheadAttention."""

        def attend_self(x: mo.Var) -> mo.Var:
            return self.dropout1(self.self_attn(
                x, x, x, tgt_key_padding_mask, False, tgt_mask, is_causal=tgt_is_causal
            )[0])  # fmt: skip

        def attend_memory(x: mo.Var) -> mo.Var:
            return self.dropout2(self.multihead_attn(
                x, memory, memory, memory_key_padding_mask, False, memory_mask,
                is_causal=memory_is_causal,
            )[0])  # fmt: skip

        def feed_forward(x: mo.Var) -> mo.Var:
            return self.dropout3(self.linear2(self.dropout(self.activation(self.linear1(x)))))

        parts = (attend_self, attend_memory, feed_forward)
        for part, norm in zip(parts, (self.norm1, self.norm2, self.norm3), strict=True):
            tgt = tgt + part(norm(tgt)) if self.norm_first else norm(tgt + part(tgt))
        return tgt


class TransformerDecoder(Module):
    """num_layers copies of decoder_layer, one after another, and norm at the end if given.

    Source: as torch.nn.TransformerDecoder; all copies start with equal parameters.
    """

    def __init__(
        self, decoder_layer: TransformerDecoderLayer, num_layers: int, norm: Module | None = None
    ):
        super().__init__()
        self.layers = ModuleList(copy.deepcopy(decoder_layer) for _ in range(num_layers))
        self.num_layers = num_layers
        self.register_module("norm", norm)

    def forward(self, tgt: mo.Var, memory: mo.Var, *masks: Any, **options: Any) -> mo.Var:
        """Arguments as those of TransformerDecoderLayer; the masks go to every layer."""
        for layer in self.layers:
            tgt = layer(tgt, memory, *masks, **options)
        return tgt if self.norm is None else self.norm(tgt)


class Transformer(Module):
    """An encoder of src and a decoder of tgt that attends to it.

    Source: Vaswani et al. 2017; as torch.nn.Transformer: weights start Xavier-uniform.
    """

    def __init__(
        self,
        d_model: int = 512,
        nhead: int = 8,
        num_encoder_layers: int = 6,
        num_decoder_layers: int = 6,
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
        self.d_model, self.nhead, self.batch_first = d_model, nhead, batch_first
        options = (
            d_model, nhead, dim_feedforward, dropout, activation, layer_norm_eps, batch_first,
            norm_first, bias,
        )  # fmt: skip
        norms = [LayerNorm(d_model, layer_norm_eps, bias=bias, dtype=dtype) for _ in range(2)]
        self.encoder = TransformerEncoder(
            TransformerEncoderLayer(*options, dtype=dtype), num_encoder_layers, norms[0]
        )
        self.decoder = TransformerDecoder(
            TransformerDecoderLayer(*options, dtype=dtype), num_decoder_layers, norms[1]
        )
        for parameter in self.parameters():
            if parameter.ndim > 1:
                init.xavier_uniform_(parameter)

    def forward(
        self,
        src: mo.Var,
        tgt: mo.Var,
        src_mask: mo.Var | None = None,
        tgt_mask: mo.Var | None = None,
        memory_mask: mo.Var | None = None,
        src_key_padding_mask: mo.Var | None = None,
        tgt_key_padding_mask: mo.Var | None = None,
        memory_key_padding_mask: mo.Var | None = None,
    ) -> mo.Var:
        """src, tgt: [length, batch, d_model], or batch first; masks as in MultiheadAttention."""
        memory = self.encoder(src, src_mask, src_key_padding_mask)
        return self.decoder(
            tgt, memory, tgt_mask, memory_mask, tgt_key_padding_mask, memory_key_padding_mask
        )

    @staticmethod
    def generate_square_subsequent_mask(size: int) -> mo.Var:
        """[size, size]: -inf where a place would see a later one, else 0."""
        later = mo.index((size, size), 1) > mo.index((size, size), 0)
        return mo.where(later, -mo.inf, 0.0).astype(mo.float32)
