"""MultiheadAttention."""

from __future__ import annotations

from typing import Any

import metaop as mo

from .. import functional, init
from ..module import Module
from ..parameter import Parameter
from .linear import Linear


class MultiheadAttention(Module):
    """`concat(softmax(q_h k_h^T / sqrt(d)) v_h over heads h) @ out_proj`, d = embed_dim/num_heads.

    q, k and v are linear projections of query, key and value.  Arrays are [length, batch,
    features], with batch_first=True [batch, length, features], or [length, features] without batch.

    in_proj_weight: [3*embed_dim, embed_dim], those of q, k and v; where kdim or vdim differ from
    embed_dim, q_proj_weight, k_proj_weight, v_proj_weight instead.  in_proj_bias: [3*embed_dim].
    add_bias_kv appends a learned place to keys and values, add_zero_attn one of zeros.

    Source: Vaswani et al. 2017, section 3.2.2; as torch.nn.MultiheadAttention.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        *,
        dtype: Any = None,
    ):
        super().__init__()
        if embed_dim < 1 or num_heads < 1 or embed_dim % num_heads:
            raise ValueError(
                f"MultiheadAttention: num_heads must divide embed_dim {embed_dim}, got {num_heads}"
            )
        self.embed_dim, self.num_heads, self.dropout = embed_dim, num_heads, dropout
        self.kdim = embed_dim if kdim is None else kdim
        self.vdim = embed_dim if vdim is None else vdim
        self.batch_first, self.add_zero_attn = batch_first, add_zero_attn
        dtype = dtype or mo.float32
        together = self.kdim == self.vdim == embed_dim
        shapes: dict[str, tuple[int, ...] | None] = {
            "in_proj_weight": (3 * embed_dim, embed_dim) if together else None,
            "q_proj_weight": None if together else (embed_dim, embed_dim),
            "k_proj_weight": None if together else (embed_dim, self.kdim),
            "v_proj_weight": None if together else (embed_dim, self.vdim),
            "in_proj_bias": (3 * embed_dim,) if bias else None,
            "bias_k": (1, 1, embed_dim) if add_bias_kv else None,
            "bias_v": (1, 1, embed_dim) if add_bias_kv else None,
        }
        for name, shape in shapes.items():
            parameter = None if shape is None else Parameter(mo.zeros(shape, dtype=dtype))
            self.register_parameter(name, parameter)
        self.out_proj = Linear(embed_dim, embed_dim, bias, dtype=dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew: those of q, k, v Xavier-uniform; biases 0."""
        for name in ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"):
            if (weight := getattr(self, name)) is not None:
                init.xavier_uniform_(weight)
        for bias in (self.in_proj_bias, self.out_proj.bias):
            if bias is not None:
                init.zeros_(bias)
        for place in (self.bias_k, self.bias_v):
            if place is not None:
                init.xavier_normal_(place)

    def forward(
        self,
        query: mo.Var,
        key: mo.Var,
        value: mo.Var,
        key_padding_mask: mo.Var | None = None,
        need_weights: bool = True,
        attn_mask: mo.Var | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[mo.Var, mo.Var | None]:
        """The attended values, and with need_weights the softmax, averaged over heads or not.

        query: [target, batch, embed_dim]; key: [source, batch, kdim]; value: [source, batch, vdim].
        key_padding_mask: [batch, source]; attn_mask: [target, source] or [batch*heads, target,
        source].  A bool mask is True where a place must not be attended to; a float mask is added.
        is_causal says that attn_mask, which must be given, is the causal one; it changes nothing.

        Returns: [target, batch, embed_dim], and [batch, target, source] or [batch, heads, target,
        source].  A row of which nothing may be attended to is NaN with need_weights, else 0.
        """
        if is_causal and attn_mask is None:
            raise ValueError("MultiheadAttention: is_causal is a hint and needs attn_mask")
        _check_ranks(query, key, value)
        single = query.ndim == 2
        q, k, v = self._project(query, key, value)
        k, v, added = self._more_places(k, v)
        mask = _merge_masks(attn_mask, key_padding_mask, self.num_heads, added)
        q, k, v = (_split_heads(x, self.num_heads) for x in (q, k, v))
        share = self.dropout if self.training else 0.0
        if need_weights:
            scores = functional.attention_scores(q, k, mask)
            weights = functional.dropout(functional.softmax(scores, -1), share)
            heads = weights @ v
        else:
            heads = functional.scaled_dot_product_attention(
                q, k, v, mask if mask is None or mask.dtype.is_float else ~mask, share
            )
        out = self.out_proj(_merge_heads(heads))
        out = out[0] if single else out if self.batch_first else out.swapaxes(0, 1)
        if not need_weights:
            return out, None
        weights = weights.mean(axis=1) if average_attn_weights else weights
        return out, weights[0] if single else weights

    def _project(self, query: mo.Var, key: mo.Var, value: mo.Var) -> list[mo.Var]:
        """q, k and v as [batch, length, embed_dim]."""
        if self.in_proj_weight is not None:
            weights = mo.split(self.in_proj_weight, 3)
        else:
            weights = [self.q_proj_weight, self.k_proj_weight, self.v_proj_weight]
        biases = [None] * 3 if self.in_proj_bias is None else mo.split(self.in_proj_bias, 3)
        given = map(self._batch_in_front, (query, key, value))
        return [functional.linear(*each) for each in zip(given, weights, biases, strict=True)]

    def _batch_in_front(self, x: mo.Var) -> mo.Var:
        if x.ndim == 2:
            return x[None]
        return x if self.batch_first else x.swapaxes(0, 1)

    def _more_places(self, k: mo.Var, v: mo.Var) -> tuple[mo.Var, mo.Var, int]:
        """k and v with the places that add_bias_kv and add_zero_attn append, and how many."""
        shape, added = (k.shape[0], 1, self.embed_dim), 0
        if self.bias_k is not None:
            k = mo.concat([k, mo.broadcast_to(self.bias_k, shape)], axis=1)
            v = mo.concat([v, mo.broadcast_to(self.bias_v, shape)], axis=1)
            added += 1
        if self.add_zero_attn:
            zeros = mo.zeros(shape, dtype=k.dtype)
            k, v = mo.concat([k, zeros], axis=1), mo.concat([v, zeros], axis=1)
            added += 1
        return k, v, added


def _check_ranks(query: mo.Var, key: mo.Var, value: mo.Var) -> None:
    if query.ndim not in (2, 3) or not query.ndim == key.ndim == value.ndim:
        shown = ", ".join(map(mo.errors.describe, (query, key, value)))
        raise mo.errors.ShapeError(
            f"MultiheadAttention: query, key and value must all have 2 axes, or all 3, got {shown}"
        )


def _split_heads(x: mo.Var, heads: int) -> mo.Var:
    """[batch, length, embed_dim] as [batch, heads, length, embed_dim/heads]."""
    return functional.unflatten(x, -1, (heads, x.shape[-1] // heads)).swapaxes(1, 2)


def _merge_heads(x: mo.Var) -> mo.Var:
    """[batch, heads, length, d] as [batch, length, heads*d]."""
    return functional.flatten(x.swapaxes(1, 2), 2)


def _merge_masks(
    attention: mo.Var | None, padding: mo.Var | None, heads: int, added: int
) -> mo.Var | None:
    """Both masks as one of rank 4, [batch, heads, target, source]; True or -inf forbids.

    Places that were added to the source may always be attended to.
    """
    masks = []
    if attention is not None:
        shape = (
            (-1, heads, *attention.shape[1:]) if attention.ndim == 3 else (1, 1, *attention.shape)
        )
        masks.append(attention.reshape(shape))
    if padding is not None:
        padding = padding if padding.ndim == 2 else padding[None]
        masks.append(padding[:, None, None, :])
    if len({mask.dtype.is_float for mask in masks}) == 2:
        masks = [m if m.dtype.is_float else mo.where(m, -mo.inf, 0.0) for m in masks]
    masks = [mo.pad(mask, [(0, 0)] * 3 + [(0, added)]) if added else mask for mask in masks]
    if len(masks) < 2:
        return masks[0] if masks else None
    one, other = masks
    return one + other if one.dtype.is_float else one | other
