"""Four operators that no library ships, in ten lines or fewer each, differentiated, and timed
against PyTorch's way to write them (unfold, then elementwise work on the unfolded array).

    python examples/four_operators.py            the values, gradients and kernels
    python examples/four_operators.py --times    times, if PyTorch is installed
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import metaop as mo

N, C, H, W, K, R = 4, 16, 32, 32, 16, 3  # images [N, C, H, W], K kernels of R × R
OH, OW = H - R + 1, W - R + 1


def tropical(x: mo.Var, w: mo.Var) -> mo.Var:
    """Max-plus convolution: the largest x + w under the window."""
    n, k, i, j, c, r, s = mo.axes(N, K, OH, OW, C, R, R)
    return mo.max(x[n, c, i + r, j + s] + w[k, c, r, s], over=(c, r, s))


def adder(x: mo.Var, w: mo.Var) -> mo.Var:
    """AdderNet's convolution: minus the sum of |x - w|."""
    n, k, i, j, c, r, s = mo.axes(N, K, OH, OW, C, R, R)
    return -mo.sum(abs(x[n, c, i + r, j + s] - w[k, c, r, s]), over=(c, r, s))


def unshared(x: mo.Var, w: mo.Var) -> mo.Var:
    """A convolution with a kernel of its own at every position."""
    n, k, i, j, c, r, s = mo.axes(N, K, OH, OW, C, R, R)
    return mo.sum(x[n, c, i + r, j + s] * w[i, j, k, c, r, s], over=(c, r, s))


def deformable(x: mo.Var, w: mo.Var, dy: mo.Var, dx: mo.Var) -> mo.Var:
    """A convolution whose taps are moved by offsets [N, R, R, OH, OW], read bilinearly."""
    n, k, i, j, c, r, s = mo.axes(N, K, OH, OW, C, R, R)
    y = mo.index(dy.shape, 3) + mo.index(dy.shape, 1) + dy
    z = mo.index(dx.shape, 4) + mo.index(dx.shape, 2) + dx
    y0, z0 = mo.floor(y).astype("int64"), mo.floor(z).astype("int64")
    at = (n, r, s, i, j)
    tap = 0
    for a, b in ((0, 0), (0, 1), (1, 0), (1, 1)):
        share = (1 - abs(y - y0 - a)) * (1 - abs(z - z0 - b))
        tap = x[n, c, (y0 + a)[at], (z0 + b)[at]] * share[at] + tap
    return mo.sum(tap * w[k, c, r, s], over=(c, r, s))


# ----------------------------------------------------------------------- the same with an unfold


def unfolded(torch: Any, x: Any) -> Any:
    """[N, C, R, R, OH, OW]."""
    return torch.nn.functional.unfold(x, R).reshape(N, C, R, R, OH, OW)


def tropical_in_torch(torch: Any, x: Any, w: Any) -> Any:
    """The windows, one axis more, and a maximum."""
    return (unfolded(torch, x)[:, None] + w[None, ..., None, None]).amax((2, 3, 4))


def adder_in_torch(torch: Any, x: Any, w: Any) -> Any:
    """The windows, one axis more, and a sum."""
    return -(unfolded(torch, x)[:, None] - w[None, ..., None, None]).abs().sum((2, 3, 4))


def unshared_in_torch(torch: Any, x: Any, w: Any) -> Any:
    """The windows and an einsum."""
    return torch.einsum("ncrsij,ijkcrs->nkij", unfolded(torch, x), w)


def deformable_in_torch(torch: Any, x: Any, w: Any, dy: Any, dx: Any) -> Any:
    """Four gathers from the flat image, and an einsum."""
    rows = torch.arange(R)[:, None, None, None] + torch.arange(OH)[:, None]
    columns = torch.arange(R)[:, None, None] + torch.arange(OW)
    y, z = rows + dy, columns + dx
    y0, z0 = y.floor().long(), z.floor().long()
    flat, tap = x.reshape(N, C, 1, H * W), 0
    for a, b in ((0, 0), (0, 1), (1, 0), (1, 1)):
        ya, zb = y0 + a, z0 + b
        inside = (ya >= 0) & (ya < H) & (zb >= 0) & (zb < W)
        place = (ya.clamp(0, H - 1) * W + zb.clamp(0, W - 1)).reshape(N, 1, 1, -1)
        read = flat.expand(N, C, 1, H * W).gather(3, place.expand(N, C, 1, -1))
        share = (1 - (y - ya).abs()) * (1 - (z - zb).abs()) * inside
        tap = tap + read.reshape(N, C, R, R, OH, OW) * share[:, None]
    return torch.einsum("ncrsij,kcrs->nkij", tap, w)


def operands() -> dict[str, tuple[Callable[..., Any], Callable[..., Any], list[np.ndarray]]]:
    """The operators, PyTorch's versions, and arrays to call them on."""
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    x, w = normal(N, C, H, W), normal(K, C, R, R)
    offsets = [0.7 * normal(N, R, R, OH, OW) for _ in range(2)]
    return {
        "tropical": (tropical, tropical_in_torch, [x, w]),
        "adder": (adder, adder_in_torch, [x, w]),
        "unshared": (unshared, unshared_in_torch, [x, normal(OH, OW, K, C, R, R)]),
        "deformable": (deformable, deformable_in_torch, [x, w, *offsets]),
    }


def in_loops(name: str, arrays: list[np.ndarray], at: tuple[int, int, int, int]) -> float:
    """One element of the result by plain loops."""
    n, k, i, j = at
    x, w, *offsets = arrays
    values = []
    for c, r, s in np.ndindex(C, R, R):
        if name == "deformable":
            y, z = i + r + offsets[0][n, r, s, i, j], j + s + offsets[1][n, r, s, i, j]
            read = sum(
                x[n, c, p, q] * (1 - abs(y - p)) * (1 - abs(z - q))
                for p in (int(np.floor(y)), int(np.floor(y)) + 1)
                for q in (int(np.floor(z)), int(np.floor(z)) + 1)
                if 0 <= p < H and 0 <= q < W
            )
            values.append(read * w[k, c, r, s])
            continue
        a, b = x[n, c, i + r, j + s], w[i, j, k, c, r, s] if name == "unshared" else w[k, c, r, s]
        values.append({"tropical": a + b, "adder": -abs(a - b), "unshared": a * b}[name])
    return float(max(values) if name == "tropical" else sum(values))


def median_ms(work: Callable[[], object], rounds: int = 7) -> float:
    """The median time of a call in milliseconds, after one to warm up."""
    work()
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        work()
        times.append(1e3 * (time.perf_counter() - started))
    return sorted(times)[len(times) // 2]


def time_of_metaop(function: Callable[..., mo.Var], arrays: list[np.ndarray]) -> float:
    """Value and gradients of all operands."""
    xs = [mo.array(a, requires_grad=True).sync() for a in arrays]

    def step() -> None:
        y = function(*xs)
        mo.sync(y, *mo.grad(y.sum(), xs))

    return median_ms(step)


def time_of_torch(torch: Any, function: Callable[..., Any], arrays: list[np.ndarray]) -> float:
    """The same in PyTorch."""
    xs = [torch.tensor(a, requires_grad=True) for a in arrays]
    return median_ms(lambda: torch.autograd.grad(function(torch, *xs).sum(), xs))


def main() -> None:
    """Prints a line for each operator."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", action="store_true", help="compare times with PyTorch")
    with_times = parser.parse_args().times
    for name, (function, in_torch, arrays) in operands().items():
        xs = [mo.array(a, requires_grad=True).sync() for a in arrays]
        y = function(*xs)
        kernels = len(mo.explain(y).kernels)
        element = (1, 2, 3, 4)
        error = abs(float(y[element]) - in_loops(name, arrays, element))
        print(f"{name}: {kernels} kernels, one element differs from loops by {error:.1e}")
        if with_times:
            import torch

            torch.set_num_threads(mo.get_num_threads())
            ours, theirs = time_of_metaop(function, arrays), time_of_torch(torch, in_torch, arrays)
            print(f"    forward and backward: {ours:.1f} ms, PyTorch {theirs:.1f} ms, "
                  f"{theirs / ours:.1f} times")  # fmt: skip


if __name__ == "__main__":
    main()
