"""The layers of `metaop.nn` as functions: each composed of public functions of metaop.

Names, argument order, defaults and numerics are those of torch.nn.functional.  Nothing here has a
kernel or a gradient rule of its own.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

import metaop as mo
from metaop import Var, support

Sizes = int | Sequence[int]
P = ParamSpec("P")
T = TypeVar("T")


def _of_arrays(function: Callable[P, T]) -> Callable[P, T]:
    """A decorator: NumPy arrays among the arguments, and a list as the first, become Vars."""

    def as_var(value: Any, also_list: bool = False) -> Any:
        if isinstance(value, Var):
            return value
        is_array = hasattr(value, "__array_interface__") or (also_list and type(value) is list)
        return mo.asarray(value) if is_array else value

    @functools.wraps(function)
    def wrapped(*args: Any, **options: Any) -> Any:
        options = {name: as_var(value) for name, value in options.items()}
        given = [as_var(value, also_list=k == 0) for k, value in enumerate(args)]
        return function(*given, **options)

    return wrapped


# --- activations ----------------------------------------------------------------------------------


@support.remembered
def relu(input: Var, inplace: bool = False) -> Var:
    """`max(x, 0)`; NaN stays NaN, and the gradient at 0 is 0.

    inplace: accepted for compatibility; there are no views, so it would change nothing.
    """
    return mo.where(input <= 0, 0, input)


@support.remembered
def relu6(input: Var, inplace: bool = False) -> Var:
    """`min(max(x, 0), 6)`, with gradient 0 at both ends."""
    return hardtanh(input, 0.0, 6.0)


@support.remembered
def hardtanh(input: Var, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Var:
    """`min(max(x, min_val), max_val)`, with gradient 0 at both ends."""
    return mo.where(input <= min_val, min_val, mo.where(input >= max_val, max_val, input))


@support.remembered
def leaky_relu(input: Var, negative_slope: float = 0.01, inplace: bool = False) -> Var:
    """`x if x > 0 else negative_slope * x`."""
    return mo.where(input > 0, input, negative_slope * input)


def _nonpositive(x: Var) -> Var:
    """x where it is at most 0, else 0: keeps exp finite in a branch that `where` discards."""
    return mo.where(x > 0, 0, x)


@support.remembered
def elu(input: Var, alpha: float = 1.0, inplace: bool = False) -> Var:
    """`x if x > 0 else alpha * (exp(x) - 1)`.  Source: Clevert et al. 2016, eq. 15."""
    return mo.where(input > 0, input, alpha * (mo.exp(_nonpositive(input)) - 1))


SELU_ALPHA = 1.6732632423543772848170429916717
SELU_SCALE = 1.0507009873554804934193349852946


@support.remembered
def selu(input: Var, inplace: bool = False) -> Var:
    """`scale * elu(x, alpha)` with the constants that keep mean 0 and variance 1.

    Source: Klambauer et al. 2017, eq. 2.
    """
    return SELU_SCALE * elu(input, SELU_ALPHA)


def sigmoid(input: Var) -> Var:
    """`1 / (1 + exp(-x))`."""
    return mo.sigmoid(input)


def tanh(input: Var) -> Var:
    """The hyperbolic tangent."""
    return mo.tanh(input)


@support.remembered
def softplus(input: Var, beta: float = 1.0, threshold: float = 20.0) -> Var:
    """`log(1 + exp(beta * x)) / beta`, and x itself where `beta * x > threshold`."""
    scaled = input * beta
    smooth = (mo.maximum(scaled, 0) + mo.log1p(mo.exp(-mo.abs(scaled)))) / beta
    return mo.where(scaled > threshold, input, smooth)


@support.remembered
def softsign(input: Var) -> Var:
    """`x / (1 + |x|)`."""
    return input / (1 + mo.abs(input))


@support.remembered
def logsigmoid(input: Var) -> Var:
    """`log(sigmoid(x))`, accurate for large |x|."""
    return mo.minimum(input, 0) - mo.log1p(mo.exp(-mo.abs(input)))


@support.remembered
def silu(input: Var, inplace: bool = False) -> Var:
    """`x * sigmoid(x)`."""
    return input * mo.sigmoid(input)


@support.remembered
def mish(input: Var, inplace: bool = False) -> Var:
    """`x * tanh(softplus(x))`.  Source: Misra 2019."""
    return input * mo.tanh(softplus(input))


@support.remembered
def gelu(input: Var, approximate: str = "none") -> Var:
    """`x * Phi(x)`, Phi the normal distribution's; approximate="tanh" as in the paper.

    Source: Hendrycks and Gimpel 2016.
    """
    if approximate == "none":
        return input * (0.5 * (1 + mo.erf(input * math.sqrt(0.5))))
    if approximate == "tanh":
        double = 2 * math.sqrt(2 / math.pi)  # (1 + tanh(u)) / 2 is sigmoid(2 u)
        return input * mo.sigmoid(input * (double + 0.044715 * double * (input * input)))
    raise ValueError(f"gelu: approximate must be 'none' or 'tanh', got {approximate!r}")


@support.remembered
def hardsigmoid(input: Var, inplace: bool = False) -> Var:
    """`min(max(x + 3, 0), 6) / 6`."""
    return relu6(input + 3) / 6


@support.remembered
def hardswish(input: Var, inplace: bool = False) -> Var:
    """`x * hardsigmoid(x)`.  Source: Howard et al. 2019, section 5.2."""
    return input * hardsigmoid(input)


def _softmax_axis(x: Var, dim: int | None) -> int:
    """PyTorch's rule for a missing `dim`: the class axis, 0 for ranks 0, 1 and 3, else 1."""
    if dim is not None:
        return dim
    return 0 if x.ndim in (0, 1, 3) else 1


def _shifted(x: Var, axis: int) -> Var:
    """x minus its largest value along axis, which softmax does not see and exp needs."""
    return x - x.detach().max(axis=axis, keepdims=True)


@_of_arrays
@support.remembered
def softmax(input: Var, dim: int | None = None) -> Var:
    """`exp(x) / sum(exp(x))` along `dim`, computed from x minus its maximum."""
    axis = _softmax_axis(input, dim)
    exponentials = mo.exp(_shifted(input, axis))
    return exponentials / exponentials.sum(axis=axis, keepdims=True)


@support.remembered
def softmin(input: Var, dim: int | None = None) -> Var:
    """`softmax(-x)` along `dim`."""
    return softmax(-input, dim)


@_of_arrays
@support.remembered
def log_softmax(input: Var, dim: int | None = None) -> Var:
    """`x - log(sum(exp(x)))` along `dim`, computed from x minus its maximum."""
    axis = _softmax_axis(input, dim)
    shifted = _shifted(input, axis)
    return shifted - mo.log(mo.exp(shifted).sum(axis=axis, keepdims=True))


# --- linear, convolution, pooling, shape ----------------------------------------------------------


@_of_arrays
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
    return output if bias is None else output + _per_channel(bias, output.ndim)


@_of_arrays
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


@_of_arrays
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


@_of_arrays
def max_pool2d(
    input: Var,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
) -> Var:
    """The largest value in each window; see `mo.max_pool2d`."""
    return mo.max_pool2d(input, kernel_size, stride, padding, dilation, ceil_mode)


@_of_arrays
def avg_pool2d(
    input: Var,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Var:
    """The mean of each window; see `mo.avg_pool2d`."""
    return mo.avg_pool2d(input, kernel_size, stride, padding, ceil_mode, count_include_pad)


@support.remembered
def flatten(input: Var, start_dim: int = 0, end_dim: int = -1) -> Var:
    """The axes start_dim to end_dim (included) merged into one."""
    if input.ndim == 0:
        return input.reshape((1,))
    start, end = (_axis("flatten", d, input.ndim) for d in (start_dim, end_dim))
    if start > end:
        raise ValueError(f"flatten: start_dim {start_dim} comes after end_dim {end_dim}")
    merged = math.prod(input.shape[start : end + 1])
    return input.reshape((*input.shape[:start], merged, *input.shape[end + 1 :]))


@support.remembered
def unflatten(input: Var, dim: int, sizes: Sequence[int]) -> Var:
    """Axis `dim` split into axes of the given sizes, one of which may be -1."""
    axis = _axis("unflatten", dim, input.ndim)
    split = tuple(sizes)
    if split.count(-1) == 1:
        rest = -math.prod(split)
        split = tuple(input.shape[axis] // rest if s == -1 and rest else s for s in split)
    if min(split, default=0) < 0 or math.prod(split) != input.shape[axis]:
        raise mo.errors.ShapeError(
            f"unflatten: sizes {tuple(sizes)} do not multiply to axis {dim} "
            f"of {mo.errors.describe(input)}"
        )
    return input.reshape((*input.shape[:axis], *split, *input.shape[axis + 1 :]))


def _axis(name: str, axis: int, rank: int) -> int:
    if not -rank <= axis < rank:
        raise mo.errors.ShapeError(f"{name}: axis {axis} is out of range for rank {rank}")
    return axis % rank


def one_hot(tensor: Var, num_classes: int) -> Var:
    """`out[..., c] = 1 if tensor[...] == c else 0`, int64."""
    return mo.one_hot(tensor, num_classes, dtype=mo.int64)


# --- dropout --------------------------------------------------------------------------------------


def dropout(input: Var, p: float = 0.5, training: bool = True, inplace: bool = False) -> Var:
    """Each element 0 with probability p, else divided by 1 - p; x itself when not training.

    Source: Srivastava et al. 2014, in its scale-at-training form.
    """
    if not 0 <= p <= 1:
        raise ValueError(f"dropout: p must be between 0 and 1, got {p}")
    if not training or p == 0:
        return input
    if p == 1:
        return input * 0
    keep = mo.random.uniform(input.shape) >= p
    return mo.where(keep, input * (1 / (1 - p)), 0)


# --- normalisation --------------------------------------------------------------------------------


def _per_channel(vector: Var, rank: int) -> Var:
    """[C] as [1, C, 1, ...] of the given rank."""
    return vector.reshape((1, *vector.shape) + (1,) * (rank - 2))


def _moments(x: Var, axes: tuple[int, ...]) -> tuple[Var, Var, Var]:
    """Mean, x minus mean, and variance over axes, which stay as size 1.

    The variance is the mean square of what is left after the mean is subtracted: E[x²] - E[x]²
    would cancel for a large mean.
    """
    mean = x.mean(axis=axes, keepdims=True)
    centered = x - mean
    return mean, centered, (centered * centered).mean(axis=axes, keepdims=True)


def _scale_and_shift(x: Var, weight: Var | None, bias: Var | None) -> Var:
    if weight is not None:
        x = x * weight
    return x if bias is None else x + bias


@_of_arrays
def batch_norm(
    input: Var,
    running_mean: Var | None,
    running_var: Var | None,
    weight: Var | None = None,
    bias: Var | None = None,
    training: bool = False,
    momentum: float | Var = 0.1,
    eps: float = 1e-5,
) -> Var:
    """`(x - mean[c]) / sqrt(var[c] + eps) * weight[c] + bias[c]` for channel c, axis 1.

    Training uses the batch's mean and (biased) variance and moves the running statistics, if
    given, in place: `running = (1 - momentum) * running + momentum * batch`, with the unbiased
    variance n/(n-1).  Otherwise the running statistics are used.

    Gradient: derived, through the mean and the variance too.
    Source: Ioffe and Szegedy 2015, algorithm 1.
    """
    _check_channels(input, running_mean, running_var, weight, bias)
    axes = (0, *range(2, input.ndim))
    if training:
        count = math.prod(input.shape[axis] for axis in axes)
        if count == 1:
            raise ValueError(
                "batch_norm: training needs more than one value per channel, "
                f"input is {mo.errors.describe(input)}"
            )
        result, mean, unbiased = _normalized_batch(input, weight, bias, eps, axes, count)
        _move([(running_mean, mean), (running_var, unbiased)], momentum)
        return result
    if running_mean is None or running_var is None:
        raise ValueError("batch_norm: without training, running_mean and running_var are used")
    return _normalized(input, running_mean, running_var, weight, bias, eps)


@support.remembered
def _normalized_batch(
    x: Var, weight: Var | None, bias: Var | None, eps: float, axes: tuple[int, ...], count: int
) -> tuple[Var, Var, Var]:
    """The result by the batch's own statistics, and those, the variance unbiased."""
    mean, centered, var = _moments(x, axes)
    result = centered * mo.rsqrt(var + eps)
    scale, shift = (None if v is None else _per_channel(v, x.ndim) for v in (weight, bias))
    return _scale_and_shift(result, scale, shift), mean, var * (count / max(count - 1, 1))


@support.remembered
def _normalized(
    x: Var, mean: Var, var: Var, weight: Var | None, bias: Var | None, eps: float
) -> Var:
    """The result by given statistics, one of each per channel."""
    centered = x - _per_channel(mean, x.ndim)
    scale, shift = (None if v is None else _per_channel(v, x.ndim) for v in (weight, bias))
    return _scale_and_shift(centered * mo.rsqrt(_per_channel(var, x.ndim) + eps), scale, shift)


def _check_channels(x: Var, *vectors: Var | None) -> None:
    if x.ndim < 2:
        raise mo.errors.ShapeError(
            f"batch_norm: input must be [batch, channels, ...], got {mo.errors.describe(x)}"
        )
    for vector in vectors:
        if vector is not None and vector.shape != x.shape[1:2]:
            raise mo.errors.ShapeError(
                f"batch_norm: channels must agree, input is {mo.errors.describe(x)}, "
                f"a statistic or weight is {mo.errors.describe(vector)} "
                f"({x.shape[1]} != {vector.size})"
            )


def _move(statistics: list[tuple[Var | None, Var]], momentum: float | Var) -> None:
    """`running = (1 - momentum) * running + momentum * batch`, in place, without history."""
    with mo.uninterrupted(), mo.no_grad():
        mo.assign_all(
            [
                (running, _moved(running, batch, momentum))
                for running, batch in statistics
                if running is not None
            ]
        )


@support.remembered
def _moved(running: Var, batch: Var, momentum: float | Var) -> Var:
    return (1 - momentum) * running + momentum * batch.detach().reshape(running.shape)


@support.remembered
def layer_norm(
    input: Var,
    normalized_shape: Sequence[int],
    weight: Var | None = None,
    bias: Var | None = None,
    eps: float = 1e-5,
) -> Var:
    """`(x - mean) / sqrt(var + eps) * weight + bias`, over the last axes.

    normalized_shape: the sizes of those axes, and the shape of weight and bias.
    Source: Ba et al. 2016, eq. 4.
    """
    sizes = tuple(normalized_shape)
    if not sizes or input.shape[-len(sizes) :] != sizes:
        raise mo.errors.ShapeError(
            f"layer_norm: input must end in the axes {sizes}, got {mo.errors.describe(input)}"
        )
    _, centered, var = _moments(input, tuple(range(input.ndim - len(sizes), input.ndim)))
    return _scale_and_shift(centered * mo.rsqrt(var + eps), weight, bias)


@support.remembered
def group_norm(
    input: Var,
    num_groups: int,
    weight: Var | None = None,
    bias: Var | None = None,
    eps: float = 1e-5,
) -> Var:
    """Each of num_groups blocks of channels normalised by its own mean and variance.

    input: [batch, channels, ...]; weight, bias: [channels].
    Source: Wu and He 2018, section 3.
    """
    if input.ndim < 2 or num_groups < 1 or input.shape[1] % num_groups:
        raise mo.errors.ShapeError(
            f"group_norm: {num_groups} groups do not divide the channels (axis 1) "
            f"of {mo.errors.describe(input)}"
        )
    blocks = unflatten(input, 1, (num_groups, input.shape[1] // num_groups))
    _, centered, var = _moments(blocks, tuple(range(2, blocks.ndim)))
    normal = (centered * mo.rsqrt(var + eps)).reshape(input.shape)
    scale, shift = (None if v is None else _per_channel(v, input.ndim) for v in (weight, bias))
    return _scale_and_shift(normal, scale, shift)


# --- attention and embedding ----------------------------------------------------------------------


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


@_of_arrays
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


@_of_arrays
@support.remembered
def embedding(input: Var, weight: Var, padding_idx: int | None = None) -> Var:
    """`weight[input]`: rows of weight [num, dim] for integers in 0 … num-1 of any shape.

    padding_idx: a row that takes part without a gradient.
    Raises: IndexError, from the call that computes, for an index outside the rows.
    """
    if not input.dtype.is_integer:
        raise mo.errors.DTypeError(
            f"embedding: input must be integers, got {mo.errors.describe(input)}"
        )
    rows = mo.take(weight, input, axis=0)
    if padding_idx is None:
        return rows
    padded = mo.expand_dims(input == padding_idx % weight.shape[0], -1)
    return mo.where(padded, rows.detach(), rows)


# --- losses ---------------------------------------------------------------------------------------

REDUCTIONS: dict[str, Callable[[Var], Var]] = {
    "mean": lambda losses: losses.mean(),
    "sum": lambda losses: losses.sum(),
    "none": lambda losses: losses,
}


def _check_reduction(name: str, reduction: str) -> None:
    if reduction not in REDUCTIONS:
        raise ValueError(f"{name}: reduction must be 'mean', 'sum' or 'none', got {reduction!r}")


def _reduce(name: str, losses: Var, reduction: str) -> Var:
    _check_reduction(name, reduction)
    return REDUCTIONS[reduction](losses)


def _warn_if_broadcast(name: str, input: Var, target: Var) -> None:
    if input.shape != target.shape:
        warnings.warn(
            f"{name}: target {mo.errors.describe(target)} is broadcast against "
            f"input {mo.errors.describe(input)}; is that meant?",
            stacklevel=3,
        )


def mse_loss(input: Var, target: Var, *, reduction: str = "mean") -> Var:
    """`(input - target)²`, reduced."""
    _warn_if_broadcast("mse_loss", input, target)
    difference = input - target
    return _reduce("mse_loss", difference * difference, reduction)


def l1_loss(input: Var, target: Var, *, reduction: str = "mean") -> Var:
    """`|input - target|`, reduced."""
    _warn_if_broadcast("l1_loss", input, target)
    return _reduce("l1_loss", mo.abs(input - target), reduction)


def smooth_l1_loss(input: Var, target: Var, *, reduction: str = "mean", beta: float = 1.0) -> Var:
    """`d²/(2 beta) if |d| < beta else |d| - beta/2`, d = input - target, reduced."""
    if beta < 0:
        raise ValueError(f"smooth_l1_loss: beta must not be negative, got {beta}")
    if beta == 0:
        return l1_loss(input, target, reduction=reduction)
    _warn_if_broadcast("smooth_l1_loss", input, target)
    distance = mo.abs(input - target)
    square = distance * distance * (0.5 / beta)
    losses = mo.where(distance < beta, square, distance - 0.5 * beta)
    return _reduce("smooth_l1_loss", losses, reduction)


@support.remembered
def binary_cross_entropy(
    input: Var, target: Var, weight: Var | None = None, *, reduction: str = "mean"
) -> Var:
    """`-(t log(x) + (1-t) log(1-x))`, the logarithms at least -100, reduced.

    input: probabilities; target: of the same shape, between 0 and 1.
    """
    yes = mo.maximum(mo.log(input), -100.0)
    no = mo.maximum(mo.log(1 - input), -100.0)
    losses = -(target * yes + (1 - target) * no)
    return _reduce("binary_cross_entropy", losses if weight is None else losses * weight, reduction)


@support.remembered
def binary_cross_entropy_with_logits(
    input: Var,
    target: Var,
    weight: Var | None = None,
    *,
    reduction: str = "mean",
    pos_weight: Var | None = None,
) -> Var:
    """`binary_cross_entropy(sigmoid(x), t)` without overflow; pos_weight multiplies the t term."""
    positive = target if pos_weight is None else target * pos_weight
    losses = -(positive * logsigmoid(input) + (1 - target) * logsigmoid(-input))
    return _reduce(
        "binary_cross_entropy_with_logits", losses if weight is None else losses * weight, reduction
    )


@_of_arrays
@support.remembered
def nll_loss(
    input: Var,
    target: Var,
    weight: Var | None = None,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Var:
    """`-weight[t] * input[n, t]` for labels t = target[n], reduced.

    input: log-probabilities [batch, classes, ...] or [classes]; target: integer labels [batch, ...]
    or a single one; weight: [classes].  Labels equal to ignore_index count for nothing; the mean
    divides by the sum of the weights of the others.

    Raises: IndexError, from the call that computes, for a label outside 0 … classes-1.
    """
    _check_reduction("nll_loss", reduction)
    _check_labels("nll_loss", input, target)
    input, target = _batched(input, target)
    counted = target != ignore_index
    label = mo.where(counted, target, 0)
    picked = _at_label(input, label)
    share = counted.astype(input.dtype)
    if weight is not None:
        share = share * mo.take(_class_weights("nll_loss", weight, input), label, axis=0)
    losses = mo.where(counted, -picked * share, 0)
    if reduction == "none":
        return losses
    return losses.sum() if reduction == "sum" else losses.sum() / share.sum()


def _check_labels(name: str, input: Var, target: Var) -> None:
    describe_all = mo.errors.describe_all
    if not target.dtype.is_integer:
        raise mo.errors.DTypeError(
            f"{name}(input, target): labels must be integers, "
            f"{describe_all(input=input, target=target)}"
        )
    if input.ndim == 0 or input.shape[:1] * (input.ndim > 1) + input.shape[2:] != target.shape:
        raise mo.errors.ShapeError(
            f"{name}(input, target): target must have the shape of input without its class axis, "
            f"{describe_all(input=input, target=target)}"
        )


def _batched(input: Var, target: Var) -> tuple[Var, Var]:
    """A single sample [classes] as a batch of one, whose label keeps its shape ()."""
    if input.ndim > 1:
        return input, target
    return mo.expand_dims(input, 0), target


def _at_label(x: Var, label: Var) -> Var:
    """`out[n, ...] = x[n, label[n, ...], ...]`, checked; of the shape of label."""
    index = mo.expand_dims(label, 1) if label.ndim else label.reshape((1, 1))
    return mo.take_along_axis(x, index, axis=1, negative=False).reshape(label.shape)


def _class_weights(name: str, weight: Var, x: Var) -> Var:
    if weight.shape != (x.shape[1],):
        raise mo.errors.ShapeError(
            f"{name}: weight must have one number per class, input is {mo.errors.describe(x)}, "
            f"weight is {mo.errors.describe(weight)}"
        )
    return weight


@_of_arrays
@support.remembered
def cross_entropy(
    input: Var,
    target: Var,
    weight: Var | None = None,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Var:
    """`-log(softmax(input)[n, t])` for labels t = target[n], reduced.

    input: logits [batch, classes, ...] or [classes]; target: integer labels [batch, ...], or
    probabilities of the shape of input; weight: [classes].  label_smoothing mixes each label with
    the uniform distribution, by that share.

    Raises: IndexError, from the call that computes, for a label outside 0 … classes-1.
    Source: as torch.nn.functional.cross_entropy; smoothing: Szegedy et al. 2016, section 7.
    """
    _check_reduction("cross_entropy", reduction)
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"cross_entropy: label_smoothing must be in 0 … 1, got {label_smoothing}")
    axis = 1 if input.ndim > 1 else 0
    logs = log_softmax(input, axis)
    if target.dtype.is_float and target.shape == input.shape:
        return _soft_cross_entropy(logs, target, weight, reduction, label_smoothing)
    _check_labels("cross_entropy", input, target)
    exact = nll_loss(logs, target, weight, ignore_index=ignore_index, reduction=reduction)
    if label_smoothing == 0:
        return exact
    uniform = _uniform_cross_entropy(logs, target, weight, ignore_index, reduction)
    return (1 - label_smoothing) * exact + label_smoothing * uniform


def _weigh_classes(logs: Var, weight: Var | None) -> Var:
    if weight is None:
        return logs
    if logs.ndim == 1:
        return logs * weight
    return logs * _per_channel(_class_weights("cross_entropy", weight, logs), logs.ndim)


def _soft_cross_entropy(
    logs: Var, target: Var, weight: Var | None, reduction: str, smoothing: float
) -> Var:
    """`-sum(target * logs)` over the classes; the mean is over the samples."""
    axis = 1 if logs.ndim > 1 else 0
    target = (1 - smoothing) * target + smoothing / logs.shape[axis]
    losses = -(target * _weigh_classes(logs, weight)).sum(axis=axis)
    return _reduce("cross_entropy", losses, reduction)


def _uniform_cross_entropy(
    logs: Var, target: Var, weight: Var | None, ignore_index: int, reduction: str
) -> Var:
    """The loss against equal probabilities, with the labels' own divisor in the mean."""
    axis = 1 if logs.ndim > 1 else 0
    counted = target != ignore_index
    losses = -_weigh_classes(logs, weight).mean(axis=axis)
    losses = mo.where(counted, losses, 0)
    if reduction != "mean":
        return _reduce("cross_entropy", losses, reduction)
    share = counted.astype(logs.dtype)
    if weight is not None:
        share = share * mo.take(weight, mo.where(counted, target, 0), axis=0)
    return losses.sum() / share.sum()
