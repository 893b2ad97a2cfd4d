"""Learned rows for integers."""

from __future__ import annotations

from typing import Any

import metaop as mo

from .. import functional, init
from ..module import Module
from ..parameter import Parameter


class Embedding(Module):
    """`weight[x]`: a learned row of embedding_dim numbers for each of num_embeddings integers.

    weight: [num_embeddings, embedding_dim], normally distributed at first.  padding_idx: a row that
    starts at 0 and gets no gradient.

    Source: as torch.nn.Embedding.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        *,
        dtype: Any = None,
    ):
        super().__init__()
        if padding_idx is not None and not -num_embeddings <= padding_idx < num_embeddings:
            raise ValueError(
                f"Embedding: padding_idx {padding_idx} is out of range for {num_embeddings} rows"
            )
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.padding_idx = None if padding_idx is None else padding_idx % num_embeddings
        shape = (num_embeddings, embedding_dim)
        self.weight = Parameter(mo.zeros(shape, dtype=dtype or mo.float32))
        self.reset_parameters()

    @classmethod
    def from_pretrained(
        cls, embeddings: mo.Var, freeze: bool = True, padding_idx: int | None = None
    ) -> Embedding:
        """A layer with these rows, which are trained only with freeze=False."""
        rows = mo.asarray(embeddings)
        layer = cls(rows.shape[0], rows.shape[1], padding_idx, dtype=rows.dtype)
        with mo.no_grad():
            layer.weight.assign(rows)
        layer.weight.requires_grad = not freeze
        return layer

    def reset_parameters(self) -> None:
        """Draw the rows anew."""
        init.normal_(self.weight)
        if self.padding_idx is not None:
            with mo.no_grad():
                self.weight[self.padding_idx] = 0.0

    def forward(self, x: mo.Var) -> mo.Var:
        """x: integers of any shape.  Returns [*shape, embedding_dim]."""
        return functional.embedding(x, self.weight, self.padding_idx)

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{self.num_embeddings}, {self.embedding_dim}{padding}"


class EmbeddingBag(Module):
    """The sum, mean or largest of the rows `weight[x]` in every bag.

    weight: [num_embeddings, embedding_dim], normally distributed at first.
    Source: as torch.nn.EmbeddingBag.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        mode: str = "mean",
        include_last_offset: bool = False,
        padding_idx: int | None = None,
        *,
        dtype: Any = None,
    ):
        super().__init__()
        self.num_embeddings, self.embedding_dim, self.mode = num_embeddings, embedding_dim, mode
        self.include_last_offset = include_last_offset
        self.padding_idx = None if padding_idx is None else padding_idx % num_embeddings
        shape = (num_embeddings, embedding_dim)
        self.weight = Parameter(mo.zeros(shape, dtype=dtype or mo.float32))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the rows anew."""
        init.normal_(self.weight)
        if self.padding_idx is not None:
            with mo.no_grad():
                self.weight[self.padding_idx] = 0.0

    def forward(
        self,
        x: mo.Var,
        offsets: mo.Var | None = None,
        per_sample_weights: mo.Var | None = None,
    ) -> mo.Var:
        """x: integers [bags, length], or [count] with offsets.  Returns [bags, embedding_dim]."""
        return functional.embedding_bag(
            x, self.weight, offsets, self.mode, per_sample_weights, self.include_last_offset,
            self.padding_idx,
        )  # fmt: skip

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        return f"{self.num_embeddings}, {self.embedding_dim}, mode={self.mode!r}"
