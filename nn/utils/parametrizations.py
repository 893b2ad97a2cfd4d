"""Weights of a length of their own, and of a bounded spectral norm."""

from __future__ import annotations

from typing import TYPE_CHECKING

import metaop as mo
from metaop import Var

from ..functional import normalize
from ..hints import refuse
from ..layers.convolution import ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from ..module import Module
from .parametrize import register_parametrization, remove_parametrizations

FIRST_ITERATIONS = 15


class _WeightNorm(Module):
    """`g * v / |v|`, |v| over all axes but dim."""

    def __init__(self, dim: int | None):
        super().__init__()
        self.dim = dim

    def _norm(self, v: Var) -> Var:
        kept = None if self.dim is None or self.dim == -1 else self.dim % v.ndim
        axes = tuple(k for k in range(v.ndim) if k != kept)
        norm = mo.norm(v, axis=axes, keepdims=True)
        return norm.reshape(()) if kept is None else norm

    def forward(self, g: Var, v: Var) -> Var:
        """g: the lengths; v: the directions."""
        return v * (g / self._norm(v))

    def right_inverse(self, weight: Var) -> tuple[Var, Var]:
        """g and v of a weight."""
        return self._norm(weight), weight


def weight_norm(module: Module, name: str = "weight", dim: int | None = 0) -> Module:
    """The module, its parameter `name` computed as `g * v / |v|`, |v| over all axes but dim.

    dim None: over all axes.  Trained are `module.parametrizations.weight.original0` (g) and
    `original1` (v).  A state dict may have their older names, weight_g and weight_v.
    Source: Salimans and Kingma 2016, eq. 2; as torch.nn.utils.parametrizations.weight_norm.
    """
    return register_parametrization(module, name, _WeightNorm(dim), unsafe=True)


class _SpectralNorm(Module):
    """`w / sigma`, sigma = u·Wv the largest singular value of w as a matrix [dim, all others].

    Buffers _u and _v go towards its singular vectors by iterations of the power method, some of
    them whenever the weight is read in training.
    """

    def __init__(self, weight: Var, n_power_iterations: int, dim: int, eps: float):
        super().__init__()
        if not -weight.ndim <= dim < weight.ndim:
            raise IndexError(
                f"spectral_norm: dim must be an axis of {mo.errors.describe(weight)}, got {dim}"
            )
        if n_power_iterations < 1:
            raise ValueError(
                f"spectral_norm: n_power_iterations must be at least 1, got {n_power_iterations}"
            )
        self.dim, self.eps = dim % weight.ndim, eps
        self.n_power_iterations = n_power_iterations
        if weight.ndim > 1:
            matrix = self._matrix(weight.detach())
            for buffer, size in zip(("_u", "_v"), matrix.shape, strict=True):
                drawn = mo.random.normal((size,), dtype=weight.dtype)
                self.register_buffer(buffer, normalize(drawn, dim=0, eps=eps))
            self._iterate(matrix, FIRST_ITERATIONS)
            mo.sync()

    def _matrix(self, weight: Var) -> Var:
        return mo.moveaxis(weight, self.dim, 0).reshape((weight.shape[self.dim], -1))

    def _iterate(self, matrix: Var, count: int) -> None:
        with mo.uninterrupted(), mo.no_grad():
            u, v = self._u, self._v
            for _ in range(count):
                u = normalize(matrix @ v, dim=0, eps=self.eps)
                v = normalize(u @ matrix, dim=0, eps=self.eps)
            mo.assign_all([(self._u, u), (self._v, v)])

    def forward(self, weight: Var) -> Var:
        """weight: of any rank from 1 on; a vector is divided by its length."""
        if weight.ndim == 1:
            return normalize(weight, dim=0, eps=self.eps)
        matrix = self._matrix(weight)
        if self.training:
            self._iterate(matrix.detach(), self.n_power_iterations)
        return weight / (self._u.detach() * (matrix @ self._v.detach())).sum()

    def right_inverse(self, weight: Var) -> Var:
        """The weight itself."""
        return weight


def spectral_norm(
    module: Module,
    name: str = "weight",
    n_power_iterations: int = 1,
    eps: float = 1e-12,
    dim: int | None = None,
) -> Module:
    """The module, its parameter `name` divided by its largest singular value, as a matrix whose
    rows are axis dim (default: the outputs).

    Trained is `module.parametrizations.weight.original`; its singular vectors are followed by
    n_power_iterations of the power method for every forward in training.  A state dict may have the
    older names weight_orig, weight_u and weight_v.
    Source: Miyato et al. 2018, algorithm 1; as torch.nn.utils.parametrizations.spectral_norm.
    """
    if dim is None:
        transposed = isinstance(module, ConvTranspose1d | ConvTranspose2d | ConvTranspose3d)
        dim = 1 if transposed else 0
    normed = _SpectralNorm(getattr(module, name), n_power_iterations, dim, eps)
    return register_parametrization(module, name, normed)


def remove_weight_norm(module: Module, name: str = "weight") -> Module:
    """The module with the weight that `weight_norm` computes now as its parameter."""
    return remove_parametrizations(module, name)


def remove_spectral_norm(module: Module, name: str = "weight") -> Module:
    """The module with the weight that `spectral_norm` computes now as its parameter."""
    return remove_parametrizations(module, name)


if not TYPE_CHECKING:
    __getattr__ = refuse(__name__, lambda: list(globals()))
