"""A transformer encoder that classifies sequences of vectors."""

from __future__ import annotations

import metaop as mo

from ..layers.linear import Linear
from ..layers.transformer import TransformerEncoder, TransformerEncoderLayer
from ..module import Module


class TransformerClassifier(Module):
    """Encoder layers, a linear layer at each place, the mean over places.

    [batch, length, d_model] to logits [batch, classes].  There is no positional encoding: what
    should tell places apart belongs to the input.

    Source: Vaswani et al. 2017, section 3.1.
    """

    def __init__(
        self,
        layers: int = 4,
        d_model: int = 256,
        heads: int = 4,
        dim_feedforward: int = 1024,
        classes: int = 10,
        dropout: float = 0.0,
    ):
        super().__init__()
        layer = TransformerEncoderLayer(d_model, heads, dim_feedforward, dropout, batch_first=True)
        self.encoder = TransformerEncoder(layer, layers)
        self.fc = Linear(d_model, classes)

    def forward(self, x: mo.Var, padding: mo.Var | None = None) -> mo.Var:
        """x: [batch, length, d_model]; padding: bool [batch, length], True at places to ignore."""
        logits = self.fc(self.encoder(x, src_key_padding_mask=padding))
        if padding is None:
            return logits.mean(axis=1)
        kept = mo.logical_not(padding).astype(logits.dtype)[:, :, None]
        return (logits * kept).sum(axis=1) / kept.sum(axis=1)
