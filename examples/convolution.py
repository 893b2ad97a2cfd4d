"""One convolution in three notations, against seven nested loops; its gradient; its kernels.

    python examples/convolution.py

The three notations record the same meta-operators: two reindexes, a product and a reindex_reduce.
"""

from __future__ import annotations

import numpy as np

import metaop as mo

N, H, W, C = 2, 7, 8, 3  # images: [batch, height, width, channel]
R, S, K = 3, 2, 4  # kernels: [window height, window width, channel, output channel]
OH, OW = H - R + 1, W - S + 1


def in_python(x: mo.Var, w: mo.Var) -> mo.Var:
    """Functions from the loops n, i, j, k, r, s, c to an index."""
    shape = (N, OH, OW, K, R, S, C)
    windows = x.reindex(shape, lambda n, i, j, k, r, s, c: (n, i + r, j + s, c))
    weights = w.reindex(shape, lambda n, i, j, k, r, s, c: (r, s, c, k))
    product = windows * weights
    return product.reindex_reduce("add", (N, OH, OW, K), lambda n, i, j, k, r, s, c: (n, i, j, k))


def in_strings(x: mo.Var, w: mo.Var) -> mo.Var:
    """Jittor's strings; the loops are i0 to i6."""
    shape = [N, OH, OW, K, R, S, C]
    windows = x.reindex(shape, ["i0", "i1+i4", "i2+i5", "i6"])
    weights = w.reindex(shape, ["i4", "i5", "i6", "i3"])
    return (windows * weights).reindex_reduce("add", [N, OH, OW, K], ["i0", "i1", "i2", "i3"])


def in_index_notation(x: mo.Var, w: mo.Var) -> mo.Var:
    """The formula, whole."""
    n, i, j, k, r, s, c = mo.axes(N, OH, OW, K, R, S, C)
    return mo.sum(x[n, i + r, j + s, c] * w[r, s, c, k], over=(r, s, c))


def in_nn(x: mo.Var, w: mo.Var) -> mo.Var:
    """The library's function, whose layouts are [batch, channel, …] and [output, channel, …]."""
    y = mo.conv2d(x.permute(0, 3, 1, 2), w.permute(3, 2, 0, 1))
    return y.permute(0, 2, 3, 1)


def in_loops(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """What a convolution is: seven nested loops."""
    y = np.zeros((N, OH, OW, K))
    for n in range(N):
        for i in range(OH):
            for j in range(OW):
                for k in range(K):
                    for r in range(R):
                        for s in range(S):
                            for c in range(C):
                                y[n, i, j, k] += x[n, i + r, j + s, c] * w[r, s, c, k]
    return y


def gradients_in_loops(
    x: np.ndarray, w: np.ndarray, dy: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The same loops: the derivative of each product goes to where its factors came from."""
    dx, dw = np.zeros(x.shape), np.zeros(w.shape)
    for n, i, j, k, r, s, c in np.ndindex(N, OH, OW, K, R, S, C):
        dx[n, i + r, j + s, c] += dy[n, i, j, k] * w[r, s, c, k]
        dw[r, s, c, k] += dy[n, i, j, k] * x[n, i + r, j + s, c]
    return dx, dw


def relative(ours: mo.Var, expected: np.ndarray) -> float:
    """The largest difference, in parts of the largest expected value."""
    return float(np.abs(ours.numpy() - expected).max() / np.abs(expected).max())


def main() -> None:
    generator = np.random.default_rng(0)
    images, kernels, slopes = (
        generator.standard_normal(shape).astype(np.float32)
        for shape in ((N, H, W, C), (R, S, C, K), (N, OH, OW, K))
    )
    x, w = mo.Var(images, requires_grad=True), mo.Var(kernels, requires_grad=True)
    dy = mo.array(slopes)
    wide = [array.astype(np.float64) for array in (images, kernels, slopes)]
    expected = in_loops(*wide[:2])
    expected_gradients = gradients_in_loops(*wide)

    print("largest differences from seven nested loops in float64, relative:")
    for title, convolve in {
        "index functions": in_python,
        "Jittor's strings": in_strings,
        "index notation": in_index_notation,
        "mo.conv2d": in_nn,
    }.items():
        y = convolve(x, w)
        dx, dw = mo.grad(y, [x, w], grad_outputs=dy)
        shown = [relative(a, b) for a, b in zip((y, dx, dw), (expected, *expected_gradients))]
        print(f"  {title:17} y {shown[0]:.1e}  dx {shown[1]:.1e}  dw {shown[2]:.1e}")

    y = in_index_notation(x, w)
    dx, dw = mo.grad(y, [x, w], grad_outputs=dy)
    print("\nwhat was recorded:")
    print(mo.dump(y, stage="graph"))
    print("what will run, for y, dx and dw:")
    for kernel in mo.explain(y, dx, dw).kernels:
        print(
            f"\n{kernel.name} reads {', '.join(kernel.reads)}, writes {', '.join(kernel.writes)}:"
        )
        print(f"{kernel.bytes:,} bytes, {kernel.flops:,} flops")
        print(kernel.source)


if __name__ == "__main__":
    main()
