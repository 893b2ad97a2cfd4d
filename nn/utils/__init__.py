"""Gradients clipped, parameters as one vector or computed from others, batch norm folded."""

from typing import TYPE_CHECKING

from ..hints import refuse
from . import parametrizations, parametrize
from .parameters import (
    clip_grad_norm_,
    clip_grad_value_,
    clip_grads_with_norm_,
    fuse_conv_bn_eval,
    fuse_linear_bn_eval,
    get_total_norm,
    parameters_to_vector,
    vector_to_parameters,
)
from .parametrizations import (
    remove_spectral_norm,
    remove_weight_norm,
    spectral_norm,
    weight_norm,
)

__all__ = [
    "clip_grad_norm_", "clip_grad_value_", "clip_grads_with_norm_", "fuse_conv_bn_eval",
    "fuse_linear_bn_eval", "get_total_norm", "parameters_to_vector", "parametrizations",
    "parametrize", "remove_spectral_norm", "remove_weight_norm", "spectral_norm",
    "vector_to_parameters", "weight_norm",
]  # fmt: skip


if not TYPE_CHECKING:
    __getattr__ = refuse(__name__, lambda: list(globals()))
