"""Linear maps: dense layers and convolutions."""

from __future__ import annotations

import metaop as mo
from metaop import Var, support

from .arguments import Sizes, of_arrays, per_channel


@of_arrays
@support.remembered
def linear(input: Var, weight: Var, bias: Var | None = None) -> Var:
    """`x @ weight.T + bias`.

    input: [..., in]; weight: [out, in]; bias: [out].  Returns [..., out].
    Raises: ShapeError where the inner sizes differ, DTypeError where the dtypes do.
    """
    describe_all = mo.errors.describe_all
    if input.dtype is not weight.dtype:
        raise mo.errors.DTypeError(
            f"linear(input, weight): dtypes must agree, "
            f"{describe_all(input=input, weight=weight)}; write input.astype({weight.dtype.name!r})"
        )
    if input.ndim == 0 or input.shape[-1] != weight.shape[-1]:
        size = input.shape[-1] if input.ndim else "no axis"
        raise mo.errors.ShapeError(
            f"linear(input, weight): inner sizes must agree, "
            f"{describe_all(input=input, weight=weight)} ({size} != {weight.shape[-1]})"
        )
    product = mo.matmul(input, weight.T)
    return product if bias is None else product + bias


def _with_bias(output: Var, bias: Var | None) -> Var:
    """Add one number per channel, axis 1."""
    return output if bias is None else output + per_channel(bias, output.ndim)


@of_arrays
@support.remembered
def conv1d(
    input: Var,
    weight: Var,
    bias: Var | None = None,
    stride: Sizes = 1,
    padding: Sizes | str = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Var:
    """`mo.conv1d` plus a bias per output channel; [batch, in, length] -> [batch, out, length']."""
    return _with_bias(mo.conv1d(input, weight, stride, padding, dilation, groups), bias)


@of_arrays
@support.remembered
def conv2d(
    input: Var,
    weight: Var,
    bias: Var | None = None,
    stride: Sizes = 1,
    padding: Sizes | str = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Var:
    """`mo.conv2d` plus a bias per output channel; [batch, in, h, w] -> [batch, out, h', w']."""
    return _with_bias(mo.conv2d(input, weight, stride, padding, dilation, groups), bias)


@of_arrays
@support.remembered
def conv3d(
    input: Var,
    weight: Var,
    bias: Var | None = None,
    stride: Sizes = 1,
    padding: Sizes | str = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Var:
    """`mo.conv3d` plus a bias per output channel; input: [batch, in, d, h, w]."""
    return _with_bias(mo.conv3d(input, weight, stride, padding, dilation, groups), bias)


@of_arrays
@support.remembered
def conv_transpose1d(
    input: Var,
    weight: Var,
    bias: Var | None = None,
    stride: Sizes = 1,
    padding: Sizes = 0,
    output_padding: Sizes = 0,
    groups: int = 1,
    dilation: Sizes = 1,
) -> Var:
    """`mo.conv_transpose1d` plus a bias per output channel; input: [batch, in, length]."""
    return _with_bias(
        mo.conv_transpose1d(input, weight, stride, padding, output_padding, groups, dilation), bias
    )


@of_arrays
@support.remembered
def conv_transpose2d(
    input: Var,
    weight: Var,
    bias: Var | None = None,
    stride: Sizes = 1,
    padding: Sizes = 0,
    output_padding: Sizes = 0,
    groups: int = 1,
    dilation: Sizes = 1,
) -> Var:
    """`mo.conv_transpose2d` plus a bias per output channel; input: [batch, in, h, w]."""
    return _with_bias(
        mo.conv_transpose2d(input, weight, stride, padding, output_padding, groups, dilation), bias
    )


@of_arrays
@support.remembered
def conv_transpose3d(
    input: Var,
    weight: Var,
    bias: Var | None = None,
    stride: Sizes = 1,
    padding: Sizes = 0,
    output_padding: Sizes = 0,
    groups: int = 1,
    dilation: Sizes = 1,
) -> Var:
    """`mo.conv_transpose3d` plus a bias per output channel; input: [batch, in, d, h, w]."""
    return _with_bias(
        mo.conv_transpose3d(input, weight, stride, padding, output_padding, groups, dilation), bias
    )


@of_arrays
@support.remembered
def bilinear(input1: Var, input2: Var, weight: Var, bias: Var | None = None) -> Var:
    """`out[…, o] = sum(input1[…, i] * weight[o, i, j] * input2[…, j] over i, j) + bias[o]`."""
    product = mo.einsum("...i,oij,...j->...o", input1, weight, input2)
    return product if bias is None else product + bias
