"""Gradients clipped, parameters as one vector, batch norm folded into the layer before it."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import metaop as mo
from metaop import Var

from ..module import Module
from ..parameter import Parameter

Vars = Var | Iterable[Var]


def _gradients(parameters: Vars) -> list[tuple[Var, Var]]:
    """(parameter, its gradient) of those that have one."""
    listed = [parameters] if isinstance(parameters, Var) else list(parameters)
    return [(parameter, parameter.grad) for parameter in listed if parameter.grad is not None]


def get_total_norm(tensors: Vars, norm_type: float = 2.0, error_if_nonfinite: bool = False) -> Var:
    """The p-norm of all elements of all Vars, p = norm_type, which may be inf."""
    listed = [tensors] if isinstance(tensors, Var) else list(tensors)
    if not listed:
        return mo.array(0.0)
    with mo.no_grad():
        if norm_type == mo.inf:
            total = mo.stack([mo.abs(x).max() for x in listed]).max()
        else:
            parts = [(mo.abs(x) ** norm_type).sum() for x in listed]
            total = mo.stack(parts).sum() ** (1 / norm_type)
    if error_if_nonfinite and not bool(mo.isfinite(total)):
        raise RuntimeError(f"the norm of the gradients is {total.item()}, and nothing was clipped")
    return total


def clip_grad_norm_(
    parameters: Vars, max_norm: float, norm_type: float = 2.0, error_if_nonfinite: bool = False
) -> Var:
    """`g *= min(1, max_norm / (norm + 1e-6))` for every gradient, norm that of all of them.

    Between `loss.backward()` and `opt.step()`.  Returns: norm, which is computed when it is read.
    Source: Pascanu et al. 2013; as torch.nn.utils.clip_grad_norm_.
    """
    found = _gradients(parameters)
    norm = get_total_norm([g for _, g in found], norm_type, error_if_nonfinite)
    clip_grads_with_norm_([p for p, _ in found], max_norm, norm)
    return norm


def clip_grads_with_norm_(parameters: Vars, max_norm: float, total_norm: Var) -> None:
    """`g *= min(1, max_norm / (total_norm + 1e-6))` for every gradient."""
    with mo.no_grad():
        factor = mo.minimum(max_norm / (total_norm + 1e-6), 1.0)
        for parameter, gradient in _gradients(parameters):
            parameter.grad = gradient * factor.astype(gradient.dtype)


def clip_grad_value_(parameters: Vars, clip_value: float) -> None:
    """`g = min(max(g, -clip_value), clip_value)` for every gradient."""
    with mo.no_grad():
        for parameter, gradient in _gradients(parameters):
            parameter.grad = mo.clip(gradient, -clip_value, clip_value)


def parameters_to_vector(parameters: Iterable[Var]) -> Var:
    """All parameters, flat, one after another."""
    return mo.concat([parameter.reshape((-1,)) for parameter in parameters])


def vector_to_parameters(vec: Var, parameters: Iterable[Var]) -> None:
    """Write the parts of a vector into the parameters, in place."""
    listed, start = list(parameters), 0
    count = sum(parameter.numel() for parameter in listed)
    if vec.shape != (count,):
        raise mo.errors.ShapeError(
            f"vector_to_parameters: vec must have {count} elements, got {mo.errors.describe(vec)}"
        )
    with mo.no_grad():
        for parameter in listed:
            end = start + parameter.numel()
            parameter.assign(vec[start:end].reshape(parameter.shape))
            start = end


def _folded(weight: Var, bias: Var | None, norm: Module, axis: int) -> tuple[Any, Any]:
    """Weight and bias of a layer with the batch norm behind it; the outputs are along axis."""
    mean = norm.running_mean
    scale = mo.rsqrt(norm.running_var + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight
    shape = [1] * weight.ndim
    shape[axis] = weight.shape[axis]
    moved = (0 - mean if bias is None else bias - mean) * scale
    shift = moved if norm.bias is None else moved + norm.bias
    made = (Parameter(v.detach()) for v in (weight * scale.reshape(tuple(shape)), shift))
    return next(made), next(made)


def fuse_conv_bn_eval(conv: Module, bn: Module, transpose: bool = False) -> Module:
    """A convolution that does what conv and then bn do in inference.

    transpose: conv is a transposed convolution, whose outputs are along axis 1.
    Raises: ValueError where one of them is in training, or groups divide a transposed convolution.
    """
    if conv.training or bn.training:
        raise ValueError("fuse_conv_bn_eval: call eval() on both first")
    if transpose and conv.groups > 1:
        raise ValueError("fuse_conv_bn_eval: a transposed convolution must have one group")
    return _fused(conv, bn, int(transpose))


def fuse_linear_bn_eval(linear: Module, bn: Module) -> Module:
    """A Linear that does what linear and then bn do in inference."""
    if linear.training or bn.training:
        raise ValueError("fuse_linear_bn_eval: call eval() on both first")
    return _fused(linear, bn, 0)


def _fused(layer: Module, bn: Module, axis: int) -> Module:
    fused = copy.deepcopy(layer)
    weight, bias = _folded(layer.weight, layer.bias, bn, axis)
    fused.register_parameter("weight", weight)
    fused.register_parameter("bias", bias)
    return fused
