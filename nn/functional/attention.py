"""Attention."""

from __future__ import annotations

import math

import metaop as mo
from metaop import Var, support

from .activation import softmax
from .arguments import of_arrays
from .dropout import dropout


@support.remembered
def attention_scores(
    query: Var, key: Var, forbidden: Var | None = None, scale: float | None = None
) -> Var:
    """`query @ key^T * scale`, and -inf where attention is forbidden.

    query: [..., target, d]; key: [..., source, d]; forbidden: broadcast to [..., target, source],
    bool, or float and added.  scale None is 1/sqrt(d).
    """
    factor = 1 / math.sqrt(max(query.shape[-1], 1)) if scale is None else scale
    scores = (query * factor) @ key.swapaxes(-1, -2)
    if forbidden is None:
        return scores
    if forbidden.dtype.is_float:
        return scores + forbidden
    return mo.where(forbidden, -math.inf, scores)


@support.remembered
def _softmax_or_zero(scores: Var) -> Var:
    """softmax over the last axis, 0 in a row of which all is -inf."""
    largest = scores.detach().max(axis=-1, keepdims=True)
    exponentials = mo.exp(scores - mo.where(largest == -math.inf, 0, largest))
    total = exponentials.sum(axis=-1, keepdims=True)
    return exponentials / mo.where(total == 0, 1, total)


@of_arrays
def scaled_dot_product_attention(
    query: Var,
    key: Var,
    value: Var,
    attn_mask: Var | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Var:
    """`softmax(query @ key^T * scale + mask) @ value`.

    query: [..., target, d]; key: [..., source, d]; value: [..., source, e].
    attn_mask: broadcast to [..., target, source]; bool, True where a place takes part, or float and
    added.  is_causal: place i sees the places 0 … i, and attn_mask must be None.
    scale: None is 1/sqrt(d).  enable_gqa: axis -3 of key and value, the heads, may be a fraction of
    query's; each head then serves several.

    Returns: [..., target, e]; 0 where nothing takes part.
    Source: Vaswani et al. 2017, eq. 1; as torch.nn.functional.scaled_dot_product_attention.
    """
    if enable_gqa:
        key, value = (mo.repeat(x, query.shape[-3] // x.shape[-3], axis=-3) for x in (key, value))
    if is_causal:
        if attn_mask is not None:
            raise ValueError("scaled_dot_product_attention: is_causal needs attn_mask=None")
        places = (query.shape[-2], key.shape[-2])
        attn_mask = mo.index(places, 1) <= mo.index(places, 0)
    forbidden = attn_mask
    if attn_mask is not None and not attn_mask.dtype.is_float:
        if attn_mask.dtype is not mo.bool_:
            raise mo.errors.DTypeError(
                "scaled_dot_product_attention: attn_mask must be bool or floating-point, "
                f"got {mo.errors.describe(attn_mask)}"
            )
        forbidden = mo.logical_not(attn_mask)
    scores = attention_scores(query, key, forbidden, scale)
    # With no mask, or the causal one, every place sees something.
    visible = attn_mask is None or is_causal
    weights = softmax(scores, -1) if visible else _softmax_or_zero(scores)
    return dropout(weights, dropout_p) @ value
