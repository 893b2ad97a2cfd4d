"""Batch normalisation from scratch: a function of meta-operators, a Module, its gradient by hand.

    python examples/batch_norm.py

Three meta-operators suffice: a sum into the channel (reindex_reduce), a channel's number at every
element (reindex), and arithmetic.  All of it is compared with nn.BatchNorm1d and nn.BatchNorm2d.

Source: Ioffe and Szegedy 2015, algorithm 1 and section 3.
"""

from __future__ import annotations

import numpy as np

import metaop as mo
from metaop import nn

# --- the function ---------------------------------------------------------------------------------


def channel_sum(x: mo.Var) -> mo.Var:
    """`out[c] = sum(x[n, c, …])`: the sum over all axes but the second."""
    return x.reindex_reduce("add", (x.shape[1],), lambda *i: i[1])


def spread(channels: mo.Var, like: mo.Var) -> mo.Var:
    """`out[n, c, …] = channels[c]`, of the shape of `like`."""
    return channels.reindex(like.shape, lambda *i: i[1])


def moments(x: mo.Var) -> tuple[mo.Var, mo.Var, int]:
    """Mean and (biased) variance of every channel, and how many numbers they are made of."""
    count = x.size // x.shape[1]
    mean = channel_sum(x) / count
    return mean, channel_sum((x - spread(mean, x)) ** 2) / count, count


def batch_norm(
    x: mo.Var,
    gamma: mo.Var,
    beta: mo.Var,
    moving_mean: mo.Var,
    moving_var: mo.Var,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> tuple[mo.Var, mo.Var, mo.Var]:
    """Normalised x, and the new moving mean and variance.

    Where gradients are recorded this is training, by the batch's own statistics; under `no_grad` it
    is inference, by the moving averages, which then stay as they are.
    """
    if mo.is_grad_enabled():
        mean, var, count = moments(x)
        unbiased = var.detach() * (count / (count - 1))
        moving_mean = (1 - momentum) * moving_mean + momentum * mean.detach()
        moving_var = (1 - momentum) * moving_var + momentum * unbiased
    else:
        mean, var = moving_mean, moving_var
    x_hat = (x - spread(mean, x)) / mo.sqrt(spread(var, x) + eps)
    return spread(gamma, x) * x_hat + spread(beta, x), moving_mean, moving_var


# --- the Module -----------------------------------------------------------------------------------


class BatchNorm(nn.Module):
    """gamma and beta are trained; the moving averages are plain attributes, set in every call."""

    def __init__(self, features: int):
        super().__init__()
        self.gamma = nn.Parameter(mo.ones(features))
        self.beta = nn.Parameter(mo.zeros(features))
        self.moving_mean = mo.zeros(features)
        self.moving_var = mo.ones(features)

    def forward(self, x: mo.Var) -> mo.Var:
        y, self.moving_mean, self.moving_var = batch_norm(
            x, self.gamma, self.beta, self.moving_mean, self.moving_var
        )
        return y


# --- the gradient by hand -------------------------------------------------------------------------


def batch_norm_gradients(
    dy: mo.Var, x: mo.Var, gamma: mo.Var, eps: float = 1e-5
) -> tuple[mo.Var, mo.Var, mo.Var]:
    """dx, dgamma, dbeta of training-mode batch norm, through mean and variance too.

        dbeta  = sum(dy)
        dgamma = sum(dy * x_hat)
        dx     = gamma / sqrt(var + eps) * (dy - dbeta / m - x_hat * dgamma / m)

    with m numbers in a channel, and sums over each channel.
    """
    mean, var, count = moments(x)
    inverse = 1 / mo.sqrt(var + eps)
    x_hat = (x - spread(mean, x)) * spread(inverse, x)
    dbeta, dgamma = channel_sum(dy), channel_sum(dy * x_hat)
    centered = dy - spread(dbeta / count, x) - x_hat * spread(dgamma / count, x)
    return spread(gamma * inverse, x) * centered, dgamma, dbeta


# --- the comparison -------------------------------------------------------------------------------


def difference(ours: mo.Var, theirs: mo.Var) -> float:
    """The largest difference, in parts of the largest expected value."""
    return float(mo.abs(ours - theirs).max() / mo.abs(theirs).max())


def compare(library: nn.Module, shape: tuple[int, ...], generator: np.random.Generator) -> None:
    """Train both on three batches, then print how far apart everything is."""

    def draw(*shape: int) -> mo.Var:
        return mo.array(generator.standard_normal(shape).astype(np.float32))

    ours = BatchNorm(shape[1])
    gamma, beta = draw(shape[1]), draw(shape[1])
    for module, (scale, shift) in ((ours, ("gamma", "beta")), (library, ("weight", "bias"))):
        getattr(module, scale).data = gamma
        getattr(module, shift).data = beta
    for _ in range(3):
        x, dy = 2 * draw(*shape) + 3, draw(*shape)
        x.requires_grad = True
        y, expected = ours(x), library(x)
    derived = mo.grad(y, [x, ours.gamma, ours.beta], grad_outputs=dy)
    theirs = mo.grad(expected, [x, library.weight, library.bias], grad_outputs=dy)
    by_hand = batch_norm_gradients(dy, x, ours.gamma)

    kind = type(library).__name__
    print(f"x of shape {list(shape)}: largest differences, relative")
    print(f"  output in training, from {kind}:    {difference(y, expected):.1e}")
    print(
        f"  moving mean, moving variance:            "
        f"{difference(ours.moving_mean, library.running_mean):.1e}  "
        f"{difference(ours.moving_var, library.running_var):.1e}"
    )
    for title, gradients in ((f"derived, from {kind}'s:", theirs), ("derived, by hand:", by_hand)):
        shown = "  ".join(
            f"{name} {difference(a, b):.1e}"
            for name, a, b in zip(("dx", "dgamma", "dbeta"), derived, gradients)
        )
        print(f"  {title:40} {shown}")
    library.eval()
    with mo.no_grad():
        print(f"  output in inference:                     {difference(ours(x), library(x)):.1e}")


def main() -> None:
    generator = np.random.default_rng(0)
    compare(nn.BatchNorm1d(20), (64, 20), generator)
    compare(nn.BatchNorm2d(6), (16, 6, 12, 12), generator)


if __name__ == "__main__":
    main()
