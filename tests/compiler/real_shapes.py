"""The layers of known networks, and drawn layers of their sizes, as programs that are written once
for metaop and for PyTorch.

Operands of a sum of products are small integers: every order of its additions gives the same
float32, so that results are compared bit by bit and one missing product shows.  What divides or
takes roots has normal operands, and PyTorch computes it in float64.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import metaop as mo
import metaop.nn.functional as F

Shape = tuple[int, ...]
Program = Callable[..., Any]


@dataclass(frozen=True)
class Case:
    """A program of a namespace of functions and of tensors of `shapes`; `terms` is the length of
    its longest sum, 0 where all sums are exact; `indices` are integers that come before; `again` is
    the same program of another batch, for which nothing is compiled."""

    name: str
    program: Program
    shapes: tuple[Shape, ...]
    terms: int = 0
    indices: np.ndarray | None = None
    again: Case | None = None

    @property
    def elements(self) -> int:
        return sum(map(math.prod, self.shapes))

    def operands(self) -> list[np.ndarray]:
        generator = np.random.default_rng(0)
        if self.terms:
            return [generator.standard_normal(s).astype("f4") for s in self.shapes]
        return [generator.integers(-2, 3, s).astype("f4") for s in self.shapes]


# --- convolutions ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Layer:
    """A convolution of images [batch, channels, *size] by `window`; None pads to the same size."""

    channels: int
    size: int | Shape
    outputs: int
    window: int | Shape
    stride: int = 1
    padding: int | Shape | None = None
    groups: int = 1
    dilation: int = 1
    transposed: bool = False
    batch: int = 1

    @property
    def space(self) -> Shape:
        return (self.size, self.size) if isinstance(self.size, int) else self.size

    def axes(self, value: int | Shape) -> Shape:
        return (value,) * len(self.space) if isinstance(value, int) else value

    @property
    def windows(self) -> Shape:
        return self.axes(self.window)

    @property
    def pads(self) -> Shape:
        if self.padding is not None:
            return self.axes(self.padding)
        return tuple(self.dilation * (k - 1) // 2 for k in self.windows)

    @property
    def image(self) -> Shape:
        return (self.batch, self.channels, *self.space)

    @property
    def kernel(self) -> Shape:
        ends = (self.channels, self.outputs) if self.transposed else (self.outputs, self.channels)
        return (ends[0], ends[1] // self.groups, *self.windows)

    @property
    def result(self) -> Shape:
        spans = [self.dilation * (k - 1) + 1 for k in self.windows]
        if self.transposed:
            space = [(n - 1) * self.stride - 2 * p + s
                     for n, p, s in zip(self.space, self.pads, spans, strict=True)]  # fmt: skip
        else:
            space = [(n + 2 * p - s) // self.stride + 1
                     for n, p, s in zip(self.space, self.pads, spans, strict=True)]  # fmt: skip
        return (self.batch, self.outputs, *space)

    @property
    def products(self) -> int:
        places = self.image if self.transposed else self.result
        return math.prod(self.kernel) * math.prod(places[2:]) * self.batch

    @property
    def terms(self) -> int:
        """The longest sum of the convolution and of its gradients."""
        taps = math.prod(self.windows)
        ends = max(self.channels, self.outputs) // self.groups
        places = self.image if self.transposed else self.result
        return max(ends * taps, self.batch * math.prod(places[2:]))

    def __call__(self, f: Any, x: Any, w: Any) -> Any:
        name = f"conv{'_transpose' * self.transposed}{len(self.space)}d"
        return getattr(f, name)(x, w, stride=self.stride, padding=self.pads,
                                dilation=self.dilation, groups=self.groups)  # fmt: skip

    def __str__(self) -> str:
        sizes = "x".join(map(str, self.image))
        kind = "transposed " * self.transposed
        return (f"{kind}{sizes} to {self.outputs} by {'x'.join(map(str, self.windows))} "
                f"stride {self.stride} padding {'x'.join(map(str, self.pads))} "
                f"groups {self.groups} dilation {self.dilation}")  # fmt: skip


def depthwise(channels: int, size: int, window: int, stride: int = 1) -> Layer:
    return Layer(channels, size, channels, window, stride, groups=channels)


def bottleneck(inner: int, size: int, outputs: int, window: int = 3, stride: int = 1,
               inputs: int = 0) -> list[Layer]:  # fmt: skip
    """Expansion, depthwise window and projection of MobileNet v2 and its heirs."""
    small = (size - 1) // stride + 1
    return [Layer(inputs or outputs, size, inner, 1), depthwise(inner, size, window, stride),
            Layer(inner, small, outputs, 1)]  # fmt: skip


def residual(inputs: int, size: int, inner: int, stride: int = 1) -> list[Layer]:
    """The layers of a bottleneck of ResNet-50, and its shortcut."""
    small = (size - 1) // stride + 1
    return [Layer(inputs, size, inner, 1), Layer(inner, size, inner, 3, stride),
            Layer(inner, small, 4 * inner, 1),
            Layer(inputs, size, 4 * inner, 1, stride)]  # fmt: skip


def up(channels: int, size: int, outputs: int, window: int = 4, stride: int = 2,
       padding: int = 1) -> Layer:  # fmt: skip
    return Layer(channels, size, outputs, window, stride, padding, transposed=True)


CONVOLUTIONS: dict[str, list[Layer]] = {
    "LeNet": [Layer(1, 28, 6, 5, batch=3), Layer(6, 14, 16, 5, 1, 0, batch=3)],
    "AlexNet": [
        Layer(3, 224, 64, 11, 4, 2), Layer(64, 27, 192, 5), Layer(192, 13, 384, 3),
        Layer(384, 13, 256, 3), Layer(256, 13, 256, 3),
        Layer(96, 27, 256, 5, groups=2, batch=2), Layer(3, 227, 96, 11, 4, 0),
    ],
    "VGG-16": [
        Layer(3, 224, 64, 3), Layer(64, 224, 64, 3), Layer(64, 112, 128, 3),
        Layer(128, 112, 128, 3), Layer(128, 56, 256, 3), Layer(256, 56, 256, 3),
        Layer(256, 28, 512, 3), Layer(512, 28, 512, 3), Layer(512, 14, 512, 3),
    ],
    "ResNet-18": [
        Layer(3, 224, 64, 7, 2), Layer(64, 56, 64, 3, batch=2), Layer(64, 56, 128, 3, 2),
        Layer(64, 56, 128, 1, 2, 0, batch=2), Layer(128, 28, 128, 3), Layer(128, 28, 256, 3, 2),
        Layer(128, 28, 256, 1, 2, 0), Layer(256, 14, 256, 3), Layer(256, 14, 512, 3, 2),
        Layer(256, 14, 512, 1, 2, 0, batch=2), Layer(512, 7, 512, 3),
        Layer(512, 7, 512, 3, batch=3),
    ],
    "ResNet-18 of CIFAR": [
        Layer(3, 32, 64, 3, batch=3), Layer(64, 32, 64, 3), Layer(64, 32, 128, 3, 2),
        Layer(64, 32, 128, 1, 2, 0), Layer(128, 16, 128, 3, batch=2), Layer(128, 16, 256, 3, 2),
        Layer(256, 8, 256, 3, batch=3), Layer(256, 8, 512, 3, 2), Layer(256, 8, 512, 1, 2, 0),
        Layer(512, 4, 512, 3, batch=3),
    ],
    "ResNet-50": [
        *residual(64, 56, 64), Layer(256, 56, 64, 1), *residual(256, 56, 128, 2),
        Layer(512, 28, 128, 1, batch=2), *residual(512, 28, 256, 2), Layer(1024, 14, 256, 1),
        *residual(1024, 14, 512, 2), Layer(2048, 7, 512, 1, batch=2),
        Layer(512, 28, 512, 1, 2, 0), Layer(1024, 14, 1024, 1, 2, 0),
    ],
    "ResNeXt-50": [
        Layer(128, 56, 128, 3, groups=32), Layer(256, 56, 256, 3, 2, groups=32),
        Layer(512, 14, 512, 3, groups=32), Layer(1024, 7, 1024, 3, groups=32, batch=2),
    ],
    "DenseNet-121": [
        Layer(224, 56, 128, 1), Layer(128, 56, 32, 3), Layer(1000, 14, 128, 1),
        Layer(128, 14, 32, 3, batch=3), Layer(992, 7, 128, 1, batch=2),
    ],
    "Inception v3": [
        Layer(3, 299, 32, 3, 2, 0), Layer(80, 73, 192, 3, 1, 0), Layer(48, 35, 64, 5),
        Layer(768, 17, 128, 1), Layer(128, 17, 128, (1, 7)), Layer(128, 17, 192, (7, 1)),
        Layer(288, 35, 384, 3, 2, 0), Layer(448, 8, 384, 3), Layer(384, 8, 384, (1, 3), batch=2),
    ],
    "MobileNet v2": [
        Layer(3, 224, 32, 3, 2), depthwise(32, 112, 3), Layer(32, 112, 16, 1),
        *bottleneck(96, 112, 24, stride=2, inputs=16), *bottleneck(144, 56, 24),
        depthwise(144, 56, 3, 2), *bottleneck(192, 28, 32), depthwise(192, 28, 3, 2),
        *bottleneck(384, 14, 64), *bottleneck(576, 14, 96), *bottleneck(576, 14, 160, 3, 2, 96),
        *bottleneck(960, 7, 160), Layer(960, 7, 320, 1), Layer(320, 7, 1280, 1, batch=2),
    ],
    "MobileNet v3": [
        depthwise(16, 112, 3), *bottleneck(64, 112, 24, 3, 2, 16),
        *bottleneck(72, 56, 40, 5, 2, 24),
        *bottleneck(120, 28, 40, 5), *bottleneck(240, 28, 80, 3, 2, 40), *bottleneck(200, 14, 80),
        *bottleneck(184, 14, 80), *bottleneck(480, 14, 112), *bottleneck(672, 14, 112),
        *bottleneck(672, 14, 160, 5, 2, 112), *bottleneck(960, 7, 160, 5),
        Layer(72, 1, 24, 1, batch=2), Layer(960, 1, 240, 1, batch=3), Layer(240, 1, 960, 1),
    ],
    "EfficientNet-B0": [
        *bottleneck(144, 56, 40, 5, 2, 24), *bottleneck(240, 28, 40, 5),
        *bottleneck(480, 14, 80), depthwise(480, 14, 5), *bottleneck(672, 14, 112, 5),
        *bottleneck(672, 14, 192, 5, 2, 112), *bottleneck(1152, 7, 192, 5),
        *bottleneck(1152, 7, 320, 3, inputs=192),
    ],
    "ShuffleNet": [
        Layer(24, 56, 60, 1), depthwise(60, 56, 3, 2), Layer(60, 28, 216, 1, groups=3),
        Layer(240, 28, 60, 1, groups=3), depthwise(60, 28, 3), Layer(60, 28, 240, 1, groups=3),
        depthwise(120, 28, 3, 2), Layer(480, 14, 120, 1, groups=3),
        Layer(120, 14, 480, 1, groups=3, batch=2), Layer(960, 7, 240, 1, groups=3, batch=2),
        Layer(240, 7, 960, 1, groups=3), depthwise(58, 28, 3), depthwise(232, 7, 3),
        Layer(272, 14, 68, 1, groups=4), Layer(384, 28, 96, 1, groups=8), Layer(464, 7, 1024, 1),
    ],
    "U-Net": [
        Layer(1, 128, 64, 3), Layer(64, 128, 64, 3, 1, 0), Layer(64, 64, 128, 3),
        Layer(512, 16, 1024, 3), up(1024, 8, 512, 2, 2, 0), up(512, 16, 256, 2, 2, 0),
        up(256, 32, 128, 2, 2, 0), up(128, 64, 64, 2, 2, 0), Layer(128, 128, 64, 3),
        Layer(64, 128, 2, 1),
    ],
    "DCGAN": [
        up(100, 1, 1024, 4, 1, 0), up(1024, 4, 512), up(512, 8, 256), up(256, 16, 128),
        up(128, 32, 3), up(64, 32, 3), Layer(3, 64, 64, 4, 2, 1, batch=2),
        Layer(64, 32, 128, 4, 2, 1), Layer(128, 16, 256, 4, 2, 1), Layer(256, 8, 512, 4, 2, 1),
        Layer(512, 4, 1, 4, 1, 0, batch=3), Layer(100, 7, 100, 5, 3, 1, transposed=True),
    ],
    "DeepLab v3": [
        Layer(256, 28, 256, 3, dilation=2), Layer(512, 28, 256, 3, dilation=6),
        Layer(512, 28, 128, 3, dilation=12), Layer(728, 28, 728, 3, groups=728),
    ],
    "ConvNeXt-T": [
        Layer(3, 224, 96, 4, 4, 0), depthwise(96, 56, 7), depthwise(384, 14, 7),
        depthwise(768, 7, 7), Layer(96, 56, 192, 2, 2, 0),
    ],
    "ViT-B": [Layer(3, 224, 768, 16, 16, 0)],
    "WaveNet": [
        Layer(64, (1024,), 64, (2,), padding=0, dilation=256),
        Layer(128, (500,), 256, (3,), dilation=4, batch=2), Layer(300, (50,), 100, (5,), batch=3),
        Layer(80, (3000,), 384, (3,)), Layer(384, (3000,), 384, (3,), 2),
    ],
    "C3D": [
        Layer(3, (8, 56, 56), 64, (3, 3, 3)), Layer(64, (4, 28, 28), 128, (3, 3, 3)),
        Layer(256, (2, 7, 7), 512, (3, 3, 3)),
    ],
}  # fmt: skip


# --- what stands around a convolution -------------------------------------------------------------


def _per_channel(v: Any, layer: Layer) -> Any:
    return v.reshape((1, -1, *(1 for _ in layer.space)))


def alone(layer: Layer) -> Case:
    return Case("", layer, (layer.image, layer.kernel))


def biased(layer: Layer) -> Case:
    def program(f: Any, x: Any, w: Any, b: Any) -> Any:
        return f.relu(layer(f, x, w) + _per_channel(b, layer))

    return Case("bias, relu", program, (layer.image, layer.kernel, (layer.outputs,)))


def shortcut(layer: Layer) -> Case:
    def program(f: Any, x: Any, w: Any, r: Any) -> Any:
        return f.relu(layer(f, f.relu(x), w) + r)

    return Case("relu before, shortcut, relu", program, (layer.image, layer.kernel, layer.result))


def kept(layer: Layer) -> Case:
    """Several results of one convolution, each made of the one before."""

    def program(f: Any, x: Any, w: Any, b: Any, r: Any) -> Any:
        y = layer(f, x, w) + _per_channel(b, layer)
        z = f.relu(y + r)
        return y, z, z * 2.0 + r

    shapes = (layer.image, layer.kernel, (layer.outputs,), layer.result)
    return Case("all kept", program, shapes)


def pooled(layer: Layer) -> Case:
    def program(f: Any, x: Any, w: Any, b: Any) -> Any:
        return f.max_pool2d(f.relu(layer(f, x, w) + _per_channel(b, layer)), 3, 2, 1)

    return Case("bias, relu, pool", program, (layer.image, layer.kernel, (layer.outputs,)))


def two_fold(layer: Layer) -> Case:
    """Two convolutions, the second of 1x1 (twice as wide, at most 64 outputs)."""
    outputs = min(2 * layer.outputs, 64)
    second = Layer(layer.outputs, layer.result[2:], outputs, (1,) * len(layer.space))

    def program(f: Any, x: Any, w: Any, v: Any) -> Any:
        return second(f, f.relu(layer(f, x, w)), v) * 2.0 + 1.0

    return Case("relu, 1x1", program, (layer.image, layer.kernel, second.kernel))


def concatenated(layer: Layer) -> Case:
    part = layer.channels // 3

    def program(f: Any, x: Any, y: Any, w: Any) -> Any:
        return layer(f, f.concat([x, y], 1), w)

    images = [(layer.batch, c, *layer.space) for c in (part, layer.channels - part)]
    return Case("concatenated", program, (*images, layer.kernel))


def shuffled(layer: Layer) -> Case:
    """Channels of the groups in turn, as in ShuffleNet."""

    def program(f: Any, x: Any, w: Any) -> Any:
        y = layer(f, x, w)
        n, c, *space = y.shape
        parts = y.reshape((n, layer.groups, c // layer.groups, *space))
        return f.relu(parts.swapaxes(1, 2).reshape((n, c, *space)))

    return Case("shuffled", program, (layer.image, layer.kernel))


def normed(layer: Layer) -> Case:
    def program(f: Any, x: Any, w: Any, gamma: Any, beta: Any) -> Any:
        return f.relu(f.batch_norm(layer(f, x, w), None, None, gamma, beta, True))

    vector = (layer.outputs,)
    return Case("batch norm, relu", program, (layer.image, layer.kernel, vector, vector),
                layer.terms)  # fmt: skip


def block(layer: Layer) -> Case:
    """Normed on both sides, with a shortcut where it fits."""

    def program(f: Any, x: Any, w: Any, gamma: Any, beta: Any, delta: Any, r: Any) -> Any:
        x = f.silu(f.batch_norm(x, None, None, gamma, beta, True))
        return f.relu(f.batch_norm(layer(f, x, w), None, None, delta, None, True) + r)

    ends = ((layer.channels,), (layer.channels,), (layer.outputs,), layer.result)
    terms = max(layer.terms, layer.batch * math.prod(layer.space))
    return Case("batch norms, silu, shortcut", program, (layer.image, layer.kernel, *ends), terms)


def surroundings(layer: Layer) -> list[Callable[[Layer], Case]]:
    """Those that a layer can have: statistics need several numbers of a channel."""
    found = [alone, biased, shortcut, two_fold, kept]
    if len(layer.space) == 2 and min(layer.result[2:]) > 1:
        found.append(pooled)
    if layer.channels >= 3:
        found.append(concatenated)
    if 1 < layer.groups < layer.outputs:
        found.append(shuffled)
    places = [layer.batch * math.prod(s[2:]) for s in (layer.image, layer.result)]
    if min(places) >= 16 and layer.groups < layer.channels:
        found += [normed, block]  # of one channel, a norm takes back its scale: gradients of 0
    return found


def around(layer: Layer, surrounding: Callable[[Layer], Case], network: str) -> Case:
    case = surrounding(layer)
    # statistics need several numbers
    batch = layer.batch + 2 if case.terms or layer.batch == 1 else layer.batch // 2
    name = f"{network}: {layer}{', ' * bool(case.name)}{case.name}"
    return replace(case, name=name, again=surrounding(replace(layer, batch=batch)))


# --- products of matrices and what stands around them ---------------------------------------------


def linear(network: str, rows: int, inputs: int, outputs: int, deep: bool = False) -> Case:
    def program(f: Any, x: Any, w: Any, b: Any) -> Any:
        return f.relu(f.linear(x, w, b))

    x = (2, rows // 2, inputs) if deep else (rows, inputs)
    ends = ((outputs, inputs), (outputs,))
    again = Case("", program, ((x[0] + 2, *x[1:]), *ends))
    return Case(f"{network}: linear {rows} {inputs} {outputs}", program, (x, *ends), again=again)


LINEAR: dict[str, list[tuple[int, int, int]]] = {  # rows, inputs, outputs
    "LeNet": [(3, 400, 120), (3, 120, 84), (3, 84, 10)],
    "AlexNet": [(1, 9216, 4096), (2, 4096, 4096), (3, 4096, 1000)],
    "VGG-16": [(1, 25088, 4096)],
    "ResNet": [(2, 512, 1000), (1, 2048, 1000), (3, 512, 10)],
    "MobileNet": [(2, 1280, 1000), (3, 960, 1280)],
    "MLP": [(128, 784, 512), (100, 300, 100), (1, 784, 10)],
    "GPT-2": [(64, 768, 2304), (64, 768, 768), (128, 768, 3072), (64, 3072, 768), (8, 768, 50257)],
    "ViT-B": [(197, 768, 2304), (197, 768, 3072), (2, 768, 1000)],
    "DLRM": [(64, 13, 512), (64, 479, 1024), (64, 1024, 1)],
}


def product(m: int, k: int, n: int, form: str = "ab", batch: Shape = ()) -> Case:
    """Of [m, k] and [k, n]; A and B stand for a transposed operand."""
    one = (k, m) if "A" in form else (m, k)
    two = (n, k) if "B" in form else (k, n)

    def program(f: Any, a: Any, b: Any) -> Any:
        a = a.swapaxes(-1, -2) if "A" in form else a
        return a @ (b.swapaxes(-1, -2) if "B" in form else b)

    a, b = (*batch, *one), (*batch, *two)
    again = None  # with other rows of a
    if not batch and form[0] == "a":
        again = Case("", program, ((m // 2 + 1, k), two))
    return Case(f"matmul {batch} {m} {k} {n} {form}", program, (a, b), again=again)


def outer_sum(m: int, k: int, n: int) -> Case:
    """A product between elementwise operations and a sum of its rows."""

    def program(f: Any, a: Any, b: Any, c: Any) -> Any:
        return (f.relu((a * 2.0 + 1.0) @ b + c) - c).sum(0)

    return Case(f"matmul {m} {k} {n}, sum of rows", program, ((m, k), (k, n), (n,)))


def attention(batch: int, heads: int, rows: int, width: int, causal: bool) -> Case:
    def program(f: Any, x: Any, w: Any, v: Any) -> Any:
        packed = f.linear(x, w).reshape((batch, rows, 3, heads, width // heads))
        q, k, u = (packed[:, :, i].swapaxes(1, 2) for i in range(3))
        y = f.scaled_dot_product_attention(q * 0.05, k * 0.05, u, is_causal=causal)
        return f.linear(y.swapaxes(1, 2).reshape((batch, rows, width)), v)

    name = f"attention {batch}x{heads}x{rows}x{width}{' causal' * causal}"
    shapes = ((batch, rows, width), (3 * width, width), (width, width))
    return Case(name, program, shapes, max(3 * width, batch * rows))


def transformer_block(batch: int, rows: int, width: int, inner: int) -> Case:
    """Layer norm, a layer, gelu, a layer and the shortcut of a GPT-2-like block."""

    def program(f: Any, x: Any, g: Any, b: Any, w: Any, u: Any, v: Any) -> Any:
        y = f.linear(f.layer_norm(x, (width,), g, b), w, u)
        return x + f.linear(f.gelu(y * 0.1), v)

    shapes = ((batch, rows, width), (width,), (width,), (inner, width), (inner,), (width, inner))
    return Case(f"block {batch}x{rows}x{width} {inner}", program, shapes, max(inner, batch * rows))


def lstm(batch: int, inputs: int, width: int) -> Case:
    """Two steps of a cell."""

    def program(f: Any, x: Any, h: Any, c: Any, w: Any, u: Any, b: Any) -> Any:
        for _ in range(2):
            gates = (f.linear(x, w) + f.linear(h, u) + b) * 0.1
            i, o, z, r = (gates[:, k * width : (k + 1) * width] for k in range(4))
            c = r.sigmoid() * c + i.sigmoid() * z.tanh()
            h = o.sigmoid() * c.tanh()
        return h

    four = 4 * width
    shapes = ((batch, inputs), (batch, width), (batch, width), (four, inputs), (four, width),
              (four,))  # fmt: skip
    return Case(f"LSTM {batch}x{inputs}x{width}", program, shapes, four)


def classes(rows: int, count: int) -> Case:
    """Cross entropy's log softmax at the width of a vocabulary."""

    def program(f: Any, x: Any) -> Any:
        return f.log_softmax(x, -1)

    return Case(f"log softmax {rows}x{count}", program, ((rows, count),), count)


def embedding(rows: Shape, count: int, width: int) -> Case:
    indices = np.random.default_rng(1).integers(0, count, rows)

    def program(f: Any, at: Any, w: Any) -> Any:
        return f.embedding(at, w) * 2.0

    name = f"embedding {rows} of {count}x{width}"
    return Case(name, program, ((count, width),), 0, indices)


# --- norms and pools ------------------------------------------------------------------------------


def batch_norm(*shape: int) -> Case:
    def program(f: Any, x: Any, gamma: Any, beta: Any) -> Any:
        return f.relu(f.batch_norm(x, None, None, gamma, beta, True))

    channels = (shape[1],)
    return Case(f"batch norm {shape}", program, (shape, channels, channels),
                math.prod(shape) // shape[1])  # fmt: skip


def layer_norm(*shape: int) -> Case:
    def program(f: Any, x: Any, gamma: Any, beta: Any) -> Any:
        return f.layer_norm(x, (shape[-1],), gamma, beta)

    return Case(f"layer norm {shape}", program, (shape, shape[-1:], shape[-1:]), max(shape))


def group_norm(groups: int, *shape: int) -> Case:
    def program(f: Any, x: Any, gamma: Any, beta: Any) -> Any:
        return f.silu(f.group_norm(x, groups, gamma, beta))

    channels = (shape[1],)
    return Case(f"group norm {groups} {shape}", program, (shape, channels, channels),
                math.prod(shape) // groups)  # fmt: skip


def max_pool(shape: Shape, window: int, stride: int, padding: int = 0) -> Case:
    def program(f: Any, x: Any) -> Any:
        return f.max_pool2d(f.relu(x), window, stride, padding)

    return Case(f"max pool {shape} {window} {stride} {padding}", program, (shape,))


def mean_pool(shape: Shape, window: int, stride: int, padding: int = 0) -> Case:
    def program(f: Any, x: Any) -> Any:
        return f.avg_pool2d(x, window, stride, padding)

    return Case(f"mean pool {shape} {window} {stride} {padding}", program, (shape,), window**2)


def global_pool(*shape: int) -> Case:
    def program(f: Any, x: Any, w: Any) -> Any:
        return f.linear(f.silu(x).mean((2, 3)), w)

    return Case(f"global pool {shape}", program, (shape, (10, shape[1])), math.prod(shape[1:]))


def squeeze(*shape: int) -> Case:
    """Squeeze and excitation, as in EfficientNet."""
    inner = max(shape[1] // 24, 1)

    def program(f: Any, x: Any, w: Any, v: Any) -> Any:
        y = f.silu(f.linear(x.mean((2, 3)), w))
        return x * f.linear(y, v).sigmoid().reshape((*shape[:2], 1, 1))

    return Case(f"squeeze {shape}", program, (shape, (inner, shape[1]), (shape[1], inner)),
                math.prod(shape[1:]))  # fmt: skip


OTHERS: list[Case] = [
    *(attention(*a) for a in [(2, 12, 64, 768, True), (1, 12, 197, 768, False),
                              (3, 8, 10, 512, False), (1, 1, 100, 17, True)]),
    *(transformer_block(*b) for b in [(2, 64, 768, 3072), (1, 197, 768, 3072), (3, 17, 100, 400)]),
    *(lstm(*c) for c in [(2, 128, 256), (3, 650, 650), (1, 28, 128), (8, 100, 455)]),
    *(classes(*c) for c in [(8, 50257), (128, 10), (64, 1000)]),
    embedding((2, 64), 50257, 768), embedding((2, 64), 1024, 768), embedding((3, 17), 1000, 300),
    *(batch_norm(*s) for s in [(2, 64, 112, 112), (2, 512, 7, 7), (3, 2048, 7, 7), (128, 100),
                               (1, 32, 112, 112), (2, 3, 224, 224), (3, 1152, 7, 7), (8, 455)]),
    *(layer_norm(*s) for s in [(2, 197, 768), (1, 128, 1280), (64, 511), (3, 100, 17)]),
    group_norm(32, 1, 320, 32, 32), group_norm(32, 2, 512, 16, 16), group_norm(3, 2, 51, 9, 9),
    max_pool((2, 64, 112, 112), 3, 2, 1), max_pool((1, 64, 224, 224), 2, 2),
    max_pool((1, 64, 55, 55), 3, 2), max_pool((3, 512, 14, 14), 2, 2),
    max_pool((1, 192, 28, 28), 3, 1, 1), max_pool((1, 512, 16, 16), 13, 1, 6),
    mean_pool((2, 128, 28, 28), 2, 2), mean_pool((1, 192, 35, 35), 3, 1, 1),
    mean_pool((3, 2048, 7, 7), 7, 1), global_pool(2, 512, 7, 7), global_pool(1, 1280, 7, 7),
    squeeze(2, 96, 56, 56), squeeze(2, 1152, 7, 7), squeeze(1, 672, 14, 14),
    *(product(*p) for p in [(1000, 37, 515), (4096, 3, 17), (3, 4096, 5), (1, 1024, 4096),
                            (511, 513, 509), (2048, 64, 1), (455, 1000, 100)]),
    product(64, 64, 64, "AB"), product(197, 64, 197, "aB", (12,)),
    product(64, 128, 64, "Ab", (3, 2)),
    outer_sum(197, 768, 511), outer_sum(1000, 17, 100), outer_sum(3, 1024, 4096),
]  # fmt: skip


def table() -> list[Case]:
    """Every layer alone and in one of its surroundings."""
    cases = []
    for network, layers in CONVOLUTIONS.items():
        for number, layer in enumerate(dict.fromkeys(layers)):
            others = surroundings(layer)[1:]
            other = others[number % len(others)]
            cases += [around(layer, s, network) for s in (alone, other)]
    for network, sizes in LINEAR.items():
        cases += [linear(network, *one, deep=one[0] % 2 == 0) for one in sizes]
    return [*cases, *OTHERS]


# --- drawn ----------------------------------------------------------------------------------------

CHANNELS = (1, 2, 3, 4, 8, 16, 17, 24, 32, 33, 64, 96, 100, 128, 192, 255, 256, 384, 455, 511, 512,
            640, 728, 1000, 1024)  # fmt: skip
MOST_PRODUCTS = 2e8
MOST_ELEMENTS = 3e6


def _size(draw: random.Random, most: int) -> int:
    """At most `most`, small ones as often as large ones."""
    return int(2 ** draw.uniform(0, math.log2(most + 1)))


def draw_layer(draw: random.Random) -> Layer:
    while True:
        channels = draw.choice(CHANNELS)
        outputs = draw.choice(CHANNELS)
        groups = 1
        if draw.random() < 0.3:
            groups = channels
            outputs = channels * draw.choice((1, 1, 1, 2))
        elif draw.random() < 0.3:
            groups = draw.choice([g for g in (1, 2, 3, 4, 7, 8, 32) if channels % g == 0])
            outputs = groups * max(outputs // groups, 1)
        rank = draw.choice((1, 2, 2, 2, 2, 2, 2, 3))
        space = tuple(_size(draw, 224 if rank < 3 else 24) for _ in range(rank))
        if draw.random() < 0.7:
            space = space[:1] * rank
        window = tuple(draw.choice((1, 2, 3, 3, 3, 4, 5, 7)) for _ in range(rank))
        if draw.random() < 0.8:
            window = window[:1] * rank
        dilation = draw.choice((1, 1, 1, 1, 2, 3))
        span = dilation * (max(window) - 1) + 1
        padding = draw.choice((None, None, 0, draw.randint(0, span)))
        layer = Layer(
            channels, space, outputs, window, draw.choice((1, 1, 1, 2, 2, 3, 4)), padding, groups,
            dilation, draw.random() < 0.15, draw.choice((1, 1, 2, 3, 5, 8)),
        )  # fmt: skip
        arrays = (layer.image, layer.kernel, layer.result)
        if (
            min(layer.result) > 0
            and layer.products <= MOST_PRODUCTS
            and max(map(math.prod, arrays)) <= MOST_ELEMENTS
        ):
            return layer


def draw_convolution(draw: random.Random) -> Case:
    layer = draw_layer(draw)
    return around(layer, draw.choice(surroundings(layer)), "drawn")


def draw_product(draw: random.Random) -> Case:
    while True:
        m, k, n = (_size(draw, 4096) for _ in range(3))
        batch = draw.choice(((), (), (), (2,), (12,), (3, 4)))
        if m * k * n * math.prod(batch) <= MOST_PRODUCTS:
            break
    if batch or draw.random() < 0.5:
        return product(m, k, n, draw.choice(("ab", "aB", "Ab", "AB")), batch)
    if draw.random() < 0.5:
        return linear("drawn", m, k, n)
    return outer_sum(m, k, n)


def draw_other(draw: random.Random) -> Case:
    channels, batch, size = draw.choice(CHANNELS), draw.choice((1, 2, 3, 8)), _size(draw, 60)
    kind = draw.randrange(5)
    if kind == 0:
        return layer_norm(batch, size, 2 + channels)
    if kind == 1:
        heads = draw.choice((1, 2, 3, 8))
        return attention(batch, heads, size, heads * draw.choice((3, 16, 17, 64)),
                         draw.random() < 0.5)  # fmt: skip
    if kind == 2:
        window = min(size, draw.choice((1, 2, 3, 5)))
        pool = draw.choice((max_pool, mean_pool))
        return pool((batch, channels, size, size), window, draw.choice((1, 2, 3)), window // 2)
    if kind == 3:
        return squeeze(batch, channels, size, size)
    return batch_norm(batch, channels, size + 4, size + 4)


def draw_case(seed: int) -> Case:
    draw = random.Random(seed)
    kind = draw.random()
    make = draw_convolution if kind < 0.65 else draw_product if kind < 0.85 else draw_other
    return make(draw)


def drawn(count: int) -> list[Case]:
    return [draw_case(seed) for seed in range(count)]


# --- both frameworks ------------------------------------------------------------------------------


class Functions:
    """The functions of a framework by one name each."""

    def __init__(self, *modules: Any, **others: Any) -> None:
        self.modules = modules
        self.__dict__.update(others)

    def __getattr__(self, name: str) -> Any:
        for module in self.modules:
            if hasattr(module, name):
                return getattr(module, name)
        raise AttributeError(name)


OURS = Functions(F, mo)


def as_results(found: Any) -> tuple[Any, ...]:
    return found if isinstance(found, tuple) else (found,)


def weights(shape: Any, exact: bool) -> np.ndarray:
    """What results are multiplied by before their sum is derived."""
    generator = np.random.default_rng(1)
    shape = tuple(map(int, shape))
    if exact:
        return generator.integers(-2, 3, shape).astype("f4")
    return generator.standard_normal(shape).astype("f4")


def computed(case: Case, jit: bool, backward: bool = True) -> list[np.ndarray]:
    """The results and, if backward, the gradients of the operands."""
    fixed = [] if case.indices is None else [mo.array(case.indices)]

    def step(*operands: mo.Var) -> list[mo.Var]:
        results = as_results(case.program(OURS, *fixed, *operands))
        if not backward:
            return list(results)
        loss = sum((y * mo.array(weights(y.shape, not case.terms))).sum() for y in results)
        return [*results, *mo.grad(loss, list(operands))]

    operands = [mo.array(a, requires_grad=True) for a in case.operands()]
    found = (mo.jit(step) if jit else step)(*operands)
    mo.sync(*found)
    return [x.numpy() for x in found]


def expected(case: Case, result: np.ndarray) -> list[np.ndarray]:
    """The same by PyTorch.  Where a rounded number may be on either side of 0, the last relu is
    off where `result` is."""
    import torch

    dtype = torch.float64 if case.terms else torch.float32
    others: dict[str, Any] = {"concat": torch.cat}
    if case.terms:
        others["relu"] = lambda x: x * torch.tensor(result > 0)
    theirs = Functions(torch.nn.functional, torch, **others)
    fixed = [] if case.indices is None else [torch.tensor(case.indices)]
    operands = [torch.tensor(a, dtype=dtype, requires_grad=True) for a in case.operands()]
    results = as_results(case.program(theirs, *fixed, *operands))
    factors = [torch.tensor(weights(y.shape, not case.terms), dtype=dtype) for y in results]
    loss = sum((y * g).sum() for y, g in zip(results, factors, strict=True))
    return [x.detach().numpy() for x in (*results, *torch.autograd.grad(loss, operands))]
