"""Linear algebra: `mo.linalg`, with the names of the Python Array API and NumPy.

Factorisations are LAPACK's, called through NumPy by a host callback; their gradients are written
with meta-operators, so they can be differentiated again.  All take batches of matrices; integers
are computed in float32.  A matrix that cannot be factorised raises numpy.linalg.LinAlgError when
the value is computed.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from . import dtype as dt
from . import elementwise as el
from . import reduction
from .build import broadcast_shapes, broadcast_to, cast, full, normal_axes, reshape
from .creation import eye, tril, triu
from .dtype import DType, floating, promote
from .errors import DTypeError, ShapeError, describe
from .graph import Escape, Node, Piece, Reindex, Shape, size_of
from .linear import cross, einsum, matmul, tensordot, vecdot
from .linear import outer as _outer
from .movement import concat, expand_dims, matrix_transpose, moveaxis
from .movement import reshape as reshape_var
from .rearrange import diag_embed, trace
from .rearrange import diagonal as _diagonal
from .recipes import remembered
from .var import Var, node_of

__all__ = [
    "cholesky", "cond", "cross", "det", "diagonal", "eigh", "eigvalsh", "inv", "lstsq", "matmul",
    "matrix_norm", "matrix_power", "matrix_rank", "matrix_transpose", "multi_dot", "norm", "outer",
    "pinv", "qr", "slogdet", "solve", "solve_triangular", "svd", "svdvals", "tensordot", "trace",
    "vecdot", "vector_norm",
]  # fmt: skip

Rule = Callable[..., Sequence[Var | None]]
Parts = Callable[..., Sequence[Shape]]


# ------------------------------------------------------------------------ factorisations as nodes


def _matrix(name: str, x: Any, square: bool = False) -> Node:
    """x as matrices of a dtype that LAPACK has."""
    node = node_of(x)
    if len(node.shape) < 2 or (square and node.shape[-1] != node.shape[-2]):
        what = "square matrices" if square else "matrices"
        raise ShapeError(f"{name}(x): x must be {what}, it is {describe(node)}")
    return cast(node, floating(node.dtype).compute)


def _restored(x: Var, dtype: DType) -> Var:
    return x if x.dtype is dtype else el.astype(x, dtype)


def _factorised(
    name: str,
    function: Callable[..., Any],
    parts_of: Parts,
    rule: Rule | None,
    *inputs: Node,
    options: tuple[Any, ...] = (),
) -> list[Var]:
    """The results of a host function of batches, each of shape (*batch, *part).

    function(*arrays, *options) returns one array or as many as there are parts; they travel as one
    array.  parts_of(matrix, …): the parts' shapes, from those of the inputs without their batch.
    rule(results, gradients, *inputs) returns the gradients of the inputs.
    """

    def unpack(packed: Node, inputs: tuple[Node, ...]) -> list[Var]:
        parts = parts_of(*[node.shape[-2:] for node in inputs])
        return _unpacked(packed.shape[:-1], tuple(parts), Var._of(packed))

    def gradient(node: Escape, g: Node) -> tuple[Node | None, ...]:
        results = unpack(node, node.inputs)
        assert rule is not None
        found = rule(results, unpack(g, node.inputs), *(Var._of(i) for i in node.inputs))
        return tuple(None if v is None else v._node for v in found)

    batch = inputs[0].shape[:-2]
    dtype = inputs[0].dtype
    shape = (*batch, sum(size_of(part) for part in parts_of(*[i.shape[-2:] for i in inputs])))

    call = functools.partial(_packed, function, options, len(batch))
    node = Escape(
        name, call, shape, dtype, *inputs,
        gradient=gradient if rule is not None else None, key=("linalg", function, options),
        any_size=True,
    )  # fmt: skip
    return unpack(node, inputs)


def _same(matrix: Shape) -> list[Shape]:
    return [matrix]


def _packed(
    function: Callable[..., Any], options: tuple[Any, ...], rank: int, *arrays: np.ndarray
) -> np.ndarray:
    found = function(*arrays, *options)
    results = found if isinstance(found, tuple) else (found,)
    flat = [np.reshape(r, (*np.shape(r)[:rank], -1)) for r in results]
    return flat[0] if len(flat) == 1 else np.concatenate(flat, -1)


def _unpacked(batch: Shape, parts: tuple[Shape, ...], packed: Var) -> list[Var]:
    if len(parts) == 1:
        return [reshape_var(packed, (*batch, *parts[0]))]
    found, start, loops = [], 0, [("i", k) for k in range(len(batch))]
    for part in parts:
        at = (*loops, ("add", ("i", len(batch)), start))
        piece = Reindex((*batch, size_of(part)), (Piece(0, at),), packed._node)
        found.append(Var._of(reshape(piece, (*batch, *part))))
        start = start + size_of(part)
    return found


def _t(x: Var) -> Var:
    return matrix_transpose(x)


def _columns(vector: Var) -> Var:
    """A row of numbers as factors of columns: […, None, :]."""
    return reshape_var(vector, (*vector.shape[:-1], 1, vector.shape[-1]))


def _symmetric(x: Var) -> Var:
    return el.multiply(el.add(x, _t(x)), 0.5)


# ----------------------------------------------------------------------- inverses and determinants


@remembered
def inv(x: Any, /) -> Var:
    """The inverse of square matrices.  Gradient: -x⁻ᵀ g x⁻ᵀ."""
    node = _matrix("inv", x, square=True)

    def rule(results: list[Var], gradients: list[Var], a: Var) -> tuple[Var]:
        back = _t(results[0])
        return (el.negative(matmul(back, matmul(gradients[0], back))),)

    (result,) = _factorised("inv", np.linalg.inv, _same, rule, node)
    return _restored(result, floating(node_of(x).dtype))


@remembered
def det(x: Any, /) -> Var:
    """The determinant of square matrices.  Gradient: g det x⁻ᵀ (x must be invertible)."""
    node = _matrix("det", x, square=True)

    def rule(results: list[Var], gradients: list[Var], a: Var) -> tuple[Var]:
        factor = el.multiply(gradients[0], results[0])
        return (el.multiply(_spread(factor), _t(inv(a))),)

    (result,) = _factorised("det", np.linalg.det, lambda a: [()], rule, node)
    return _restored(result, floating(node_of(x).dtype))


def _spread(number: Var) -> Var:
    """One number per matrix, with the matrix's axes."""
    return reshape_var(number, (*number.shape, 1, 1))


class SlogdetResult(NamedTuple):
    """What slogdet returns."""

    sign: Var
    logabsdet: Var


@remembered
def slogdet(x: Any, /) -> SlogdetResult:
    """The sign of the determinant and the logarithm of its size.  Gradient of that: g x⁻ᵀ."""
    node = _matrix("slogdet", x, square=True)

    def rule(results: list[Var], gradients: list[Var], a: Var) -> tuple[Var]:
        return (el.multiply(_spread(gradients[1]), _t(inv(a))),)

    found = _factorised("slogdet", _slogdet, lambda a: [(), ()], rule, node)
    dtype = floating(node_of(x).dtype)
    return SlogdetResult(*(_restored(v, dtype) for v in found))


def _slogdet(a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    sign, size = np.linalg.slogdet(a)
    return sign, size


@remembered
def logdet(x: Any) -> Var:
    """log(det(x)), NaN for a negative determinant."""
    sign, size = slogdet(x)
    return el.where(el.less(sign, 0), math.nan, size)


@remembered
def solve(x1: Any, x2: Any, /) -> Var:
    """The X with x1 @ X = x2; a 1-d x2 is a vector.  Gradients: gB = x1⁻ᵀ g, gA = -gB Xᵀ."""
    vector = len(node_of(x2).shape) == 1
    second = reshape_var(x2, (-1, 1)) if vector else x2
    a, b = _operands("solve", x1, second)
    result = _solved("solve", a, b, np.linalg.solve, (), _solve_rule)
    result = _restored(result, floating(promote(node_of(x1).dtype, node_of(x2).dtype)))
    return reshape_var(result, result.shape[:-1]) if vector else result


def _operands(name: str, x1: Any, x2: Any) -> tuple[Node, Node]:
    """Square matrices and right-hand sides, of one dtype and one batch."""
    a, b = _matrix(name, x1, square=True), _matrix(name, x2)
    if a.shape[-1] != b.shape[-2]:
        raise ShapeError(
            f"{name}(a, b): sizes must agree, a is {describe(a)}, b is {describe(b)} "
            f"({a.shape[-1]} != {b.shape[-2]})"
        )
    dtype = promote(a.dtype, b.dtype)
    a, b = cast(a, dtype), cast(b, dtype)
    try:
        batch = broadcast_shapes(a.shape[:-2], b.shape[:-2])
    except ValueError:
        raise ShapeError(
            f"{name}(a, b): leading axes must broadcast, a is {describe(a)}, b is {describe(b)}"
        ) from None
    return tuple(broadcast_to(n, (*batch, *n.shape[-2:])) for n in (a, b))  # type: ignore


def _solved(
    name: str, a: Node, b: Node, function: Callable[..., Any], options: tuple[Any, ...], rule: Rule
) -> Var:
    (result,) = _factorised(name, function, lambda a, b: [b], rule, a, b, options=options)
    return result


def _solve_rule(results: list[Var], gradients: list[Var], a: Var, b: Var) -> tuple[Var, Var]:
    back = solve(_t(a), gradients[0])
    return el.negative(matmul(back, _t(results[0]))), back


@remembered
def solve_triangular(
    a: Any, b: Any, *, upper: bool, left: bool = True, unitriangular: bool = False
) -> Var:
    """The X with a @ X = b (X @ a = b with left=False) for triangular a: its other half is not
    read, with unitriangular neither is its diagonal, which counts as ones."""
    if not left:
        turned = solve_triangular(
            matrix_transpose(a), matrix_transpose(b), upper=not upper, unitriangular=unitriangular
        )
        return matrix_transpose(turned)
    x, y = _operands("solve_triangular", a, b)

    def rule(results: list[Var], gradients: list[Var], m: Var, n: Var) -> tuple[Var, Var]:
        back = solve_triangular(_t(m), gradients[0], upper=not upper, unitriangular=unitriangular)
        whole = el.negative(matmul(back, _t(results[0])))
        half = triu if upper else tril
        return half(whole, (1 if upper else -1) if unitriangular else 0), back

    options = (upper, unitriangular)
    result = _solved("solve_triangular", x, y, _solve_triangular, options, rule)
    return _restored(result, floating(promote(node_of(a).dtype, node_of(b).dtype)))


def _solve_triangular(a: np.ndarray, b: np.ndarray, upper: bool, unitriangular: bool) -> np.ndarray:
    """By substitution, all batches and columns at once."""
    n = a.shape[-1]
    result = np.array(b)
    order = range(n - 1, -1, -1) if upper else range(n)
    for i in order:
        known = slice(i + 1, None) if upper else slice(0, i)
        result[..., i, :] -= np.matmul(a[..., i, None, known], result[..., known, :])[..., 0, :]
        if not unitriangular:
            result[..., i, :] /= a[..., i, i, None]
    return result


# ---------------------------------------------------------------------------------- factorisations


@remembered
def cholesky(x: Any, /, *, upper: bool = False) -> Var:
    """The lower triangular L with L Lᵀ = x (the upper one Lᵀ with upper=True) for positive definite
    x, of which the lower half is read.  Source of the gradient: Murray 2016, eq. 8."""
    node = _matrix("cholesky", x, square=True)

    def rule(results: list[Var], gradients: list[Var], a: Var) -> tuple[Var]:
        factor = results[0]
        inner = tril(matmul(_t(factor), tril(gradients[0])))
        phi = el.subtract(inner, el.multiply(0.5, diag_embed(_diagonal(inner, 0, -2, -1))))
        first = solve_triangular(_t(factor), phi, upper=True)
        return (_symmetric(solve_triangular(factor, first, upper=False, left=False)),)

    (result,) = _factorised("cholesky", np.linalg.cholesky, _same, rule, node)
    result = _restored(result, floating(node_of(x).dtype))
    return matrix_transpose(result) if upper else result


class QRResult(NamedTuple):
    """What qr returns."""

    Q: Var
    R: Var


@remembered
def qr(x: Any, /, *, mode: str = "reduced") -> QRResult:
    """Orthonormal Q and upper triangular R with Q R = x; mode: reduced or complete.

    Gradient: not of a complete one of x with more rows than columns (DTypeError): any basis of the
    rest of the space would do for the last columns of Q.
    """
    if mode not in ("reduced", "complete"):
        raise ValueError(f"qr(x, mode): 'reduced' or 'complete', not {mode!r}")
    node = _matrix("qr", x)

    def parts_of(matrix: Shape) -> list[Shape]:
        m, n = matrix
        k = m if mode == "complete" else min(m, n)
        return [(m, k), (k, n)]

    m, n = node.shape[-2:]
    rule = _no_qr_rule if mode == "complete" and m > n else _qr_rule
    found = _factorised("qr", _qr, parts_of, rule, node, options=(mode,))
    dtype = floating(node_of(x).dtype)
    return QRResult(*(_restored(v, dtype) for v in found))


def _no_qr_rule(results: list[Var], gradients: list[Var], a: Var) -> tuple[Var]:
    raise DTypeError(
        f"qr(x, mode='complete') of {describe(a)} has no gradient: the last columns of Q are not "
        "unique; write mode='reduced'"
    )


def _qr(a: np.ndarray, mode: Any) -> tuple[np.ndarray, np.ndarray]:
    q, r = np.linalg.qr(a, mode)
    return q, r


def _qr_rule(results: list[Var], gradients: list[Var], a: Var) -> tuple[Var]:
    """For a tall or square x; of a wide one the first square part is factorised, the rest of R is
    Qᵀ times the rest of x."""
    (q, r), (gq, gr) = results, gradients
    m, n = a.shape[-2], a.shape[-1]
    if m >= n:
        return (_tall_qr_gradient(q, r, gq, gr),)
    rest, g_rest = a[..., m:], gr[..., m:]
    gq = el.add(gq, matmul(rest, _t(g_rest)))
    first = _tall_qr_gradient(q, r[..., :m], gq, gr[..., :m])
    return (concat([first, matmul(q, g_rest)], -1),)


def _tall_qr_gradient(q: Var, r: Var, gq: Var, gr: Var) -> Var:
    """(gQ + Q copyltu(R gRᵀ - gQᵀ Q)) R⁻ᵀ.  Source: Walter and Lehmann 2018, eq. 3.11."""
    inner = el.subtract(matmul(r, _t(gr)), matmul(_t(gq), q))
    lower = tril(inner, -1)
    mirrored = el.add(el.add(lower, _t(lower)), diag_embed(_diagonal(inner, 0, -2, -1)))
    return solve_triangular(_t(r), el.add(gq, matmul(q, mirrored)), upper=False, left=False)


class EighResult(NamedTuple):
    """What eigh returns."""

    eigenvalues: Var
    eigenvectors: Var


@remembered
def eigh(x: Any, /, UPLO: str = "L") -> EighResult:  # noqa: N803 - NumPy's name
    """Eigenvalues in ascending order and eigenvectors as columns, of symmetric matrices.

    UPLO: which half is read.  Gradient: of vectors of equal eigenvalues, which are not unique, it
    is taken as 0.
    """
    node = _half(_matrix("eigh", x, square=True), UPLO)
    found = _factorised("eigh", _eigh, lambda a: [a[-1:], a], _eigh_rule, node)
    dtype = floating(node_of(x).dtype)
    return EighResult(*(_restored(v, dtype) for v in found))


def _half(node: Node, uplo: str) -> Node:
    """Symmetric matrices made of one half of each, which takes the whole gradient."""
    if uplo not in ("L", "U"):
        raise ValueError(f"UPLO must be 'L' or 'U', not {uplo!r}")
    return node if uplo == "L" else matrix_transpose(Var._of(node))._node


def _eigh(a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    values, vectors = np.linalg.eigh(a)
    return values, vectors


def _inverse_differences(values: Var) -> Var:
    """1 / (w_j - w_i) in row i and column j; 0 where both are equal."""
    difference = el.subtract(_columns(values), _t(_columns(values)))
    same = el.equal(difference, 0)
    return el.where(same, 0.0, el.divide(1.0, el.where(same, 1.0, difference)))


def _eigh_rule(results: list[Var], gradients: list[Var], a: Var) -> tuple[Var]:
    (values, vectors), (g_values, g_vectors) = results, gradients
    inner = el.multiply(_inverse_differences(values), matmul(_t(vectors), g_vectors))
    inner = el.add(inner, diag_embed(g_values))
    return (_symmetric(matmul(vectors, matmul(inner, _t(vectors)))),)


@remembered
def eigvalsh(x: Any, /, UPLO: str = "L") -> Var:  # noqa: N803
    """The eigenvalues of symmetric matrices in ascending order."""
    node = _half(_matrix("eigvalsh", x, square=True), UPLO)

    def rule(results: list[Var], gradients: list[Var], a: Var) -> tuple[Var]:
        vectors = eigh(a).eigenvectors
        return (matmul(el.multiply(vectors, _columns(gradients[0])), _t(vectors)),)

    (result,) = _factorised("eigvalsh", np.linalg.eigvalsh, lambda a: [a[-1:]], rule, node)
    return _restored(result, floating(node_of(x).dtype))


class SVDResult(NamedTuple):
    """What svd returns."""

    U: Var
    S: Var
    Vh: Var


@remembered
def svd(x: Any, /, *, full_matrices: bool = True) -> SVDResult:
    """U, S, Vh with U diag(S) Vh = x and S descending; full_matrices: U and Vh are square.

    Gradient: for distinct singular values.  What flows into the columns of U and the rows of Vh
    beyond the singular values is ignored, as in PyTorch: any basis there would do.
    """
    node = _matrix("svd", x)

    def parts_of(matrix: Shape) -> list[Shape]:
        (m, n), k = matrix, min(matrix)
        rows, columns = (m, n) if full_matrices else (k, k)
        return [(m, rows), (k,), (columns, n)]

    found = _factorised("svd", _svd, parts_of, _svd_rule, node, options=(full_matrices,))
    dtype = floating(node_of(x).dtype)
    return SVDResult(*(_restored(v, dtype) for v in found))


def _svd(a: np.ndarray, full_matrices: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    u, s, vh = np.linalg.svd(a, full_matrices)
    return u, s, vh


def _svd_rule(results: list[Var], gradients: list[Var], a: Var) -> tuple[Var]:
    """Source: Townsend 2016, "Differentiating the singular value decomposition"."""
    (u, s, vh), (gu, gs, gvh) = results, gradients
    k = s.shape[-1]
    u, gu = u[..., :k], gu[..., :k]
    v, gv = _t(vh[..., :k, :]), _t(gvh[..., :k, :])
    vh = _t(v)
    inverse = _inverse_differences(el.square(s))
    left = el.multiply(_skew(matmul(_t(u), gu)), inverse)
    right = el.multiply(_skew(matmul(_t(v), gv)), inverse)
    row, column = _columns(s), _t(_columns(s))
    middle = el.add(el.multiply(left, row), el.multiply(right, column))
    total = matmul(u, matmul(el.add(middle, diag_embed(gs)), vh))
    m, n = a.shape[-2:]
    reciprocal = el.divide(1.0, row)
    if m > k:
        outside = el.subtract(gu, matmul(u, matmul(_t(u), gu)))
        total = el.add(total, matmul(el.multiply(outside, reciprocal), vh))
    if n > k:
        outside = el.subtract(gv, matmul(v, matmul(vh, gv)))
        total = el.add(total, matmul(u, _t(el.multiply(outside, reciprocal))))
    return (total,)


def _skew(x: Var) -> Var:
    return el.subtract(x, _t(x))


@remembered
def svdvals(x: Any, /) -> Var:
    """The singular values in descending order."""
    node = _matrix("svdvals", x)

    def rule(results: list[Var], gradients: list[Var], a: Var) -> tuple[Var]:
        u, _, vh = svd(a, full_matrices=False)
        return (matmul(el.multiply(u, _columns(gradients[0])), vh),)

    (result,) = _factorised("svdvals", _svdvals, lambda a: [(min(a),)], rule, node)
    return _restored(result, floating(node_of(x).dtype))


def _svdvals(a: np.ndarray) -> np.ndarray:
    return np.linalg.svd(a, compute_uv=False)


@remembered
def pinv(x: Any, /, *, rtol: float | None = None) -> Var:
    """The pseudo-inverse: singular values up to rtol times the largest count as 0 (default: the
    larger extent times the precision of the dtype).  Source of the gradient: Golub and Pereyra
    1973, eq. 4.12."""
    node = _matrix("pinv", x)
    m, n = node.shape[-2], node.shape[-1]
    limit = max(m, n) * _EPSILON[node.dtype] if rtol is None else float(rtol)

    def rule(results: list[Var], gradients: list[Var], a: Var) -> tuple[Var]:
        p, g = results[0], gradients[0]
        pt, gt = _t(p), _t(g)
        first = el.negative(matmul(pt, matmul(g, pt)))
        column = matmul(gt, matmul(p, pt))
        second = el.subtract(column, matmul(a, matmul(p, column)))
        row = matmul(matmul(pt, p), gt)
        third = el.subtract(row, matmul(matmul(row, p), a))
        return (el.add(el.add(first, second), third),)

    (result,) = _factorised("pinv", _pinv, lambda a: [a[::-1]], rule, node, options=(limit,))
    return _restored(result, floating(node_of(x).dtype))


_EPSILON = {dt.float32: 2.0**-23, dt.float64: 2.0**-52}


def _pinv(a: np.ndarray, limit: float) -> np.ndarray:
    return np.linalg.pinv(a, limit)


class LstsqResult(NamedTuple):
    """What lstsq returns."""

    solution: Var
    residuals: Var
    rank: Var
    singular_values: Var


@remembered
def lstsq(a: Any, b: Any, rcond: float | None = None) -> LstsqResult:
    """The X that makes |a @ X - b|² least, by the pseudo-inverse; the squared residuals, the rank
    of a and its singular values."""
    vector = len(node_of(b).shape) == 1
    right = reshape_var(b, (-1, 1)) if vector else b
    solution = matmul(pinv(a, rtol=rcond), right)
    residuals = reduction.sum(el.square(el.subtract(matmul(a, solution), right)), -2)
    if vector:
        solution = reshape_var(solution, solution.shape[:-1])
    return LstsqResult(solution, residuals, matrix_rank(a, rtol=rcond), svdvals(a))


# ---------------------------------------------------------------------------- norms, rank, powers


@remembered
def matrix_rank(x: Any, /, *, rtol: float | None = None) -> Var:
    """How many singular values exceed rtol times the largest (int64)."""
    node = _matrix("matrix_rank", x)
    values = svdvals(x)
    limit = max(node.shape[-2:]) * _EPSILON[node.dtype] if rtol is None else rtol
    bound = el.multiply(reduction.max(values, -1, True), limit)
    return reduction.count_nonzero(el.greater(values, bound), -1)


@remembered
def vector_norm(x: Any, /, *, axis: Any = None, keepdims: bool = False, ord: float = 2) -> Var:
    """sum(|x|**ord)**(1/ord) over axes; inf: the largest |x|, -inf: the smallest, 0: how many are
    not 0.  The gradient at 0 is 0."""
    return reduction.norm(x, axis, keepdims, ord=ord)


@remembered
def matrix_norm(x: Any, /, *, keepdims: bool = False, ord: Any = "fro") -> Var:
    """Of the last two axes: "fro" the root of the sum of squares, "nuc" the sum of the singular
    values, 2 and -2 the largest and smallest of them, 1 and -1 the largest and smallest column sum
    of |x|, inf and -inf of row sums."""
    node = _matrix("matrix_norm", x)
    if ord == "fro":
        return reduction.norm(x, (-2, -1), keepdims)
    if ord in ("nuc", 2, -2):
        values = svdvals(x)
        pick = {"nuc": reduction.sum, 2: reduction.amax, -2: reduction.amin}[ord]
        result = pick(values, -1)
    elif ord in (1, -1, math.inf, -math.inf):
        sums = reduction.sum(el.abs(Var._of(node)), -2 if abs(ord) == 1 else -1)
        result = (reduction.amax if ord > 0 else reduction.amin)(sums, -1)
    else:
        raise ValueError(f"matrix_norm(x, ord): no such norm: {ord!r}")
    return _spread(result) if keepdims else result


@remembered
def norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Var:
    """A vector norm of one axis (or of the flat x), a matrix norm of two (as numpy.linalg.norm)."""
    rank = len(node_of(x).shape)
    if axis is None and ord is None:
        return reduction.norm(x, None, keepdims)
    if axis is None and rank > 2:
        raise ShapeError(
            f"norm(x, ord={ord!r}): the norm of a vector or a matrix, x is {describe(node_of(x))}; "
            "give axis="
        )
    axes = normal_axes(axis, rank, "norm")
    if len(axes) == 2 and ord is not None:
        return _norm_of_two(x, ord, axis, keepdims)
    return reduction.norm(x, axis, keepdims, ord=2 if ord is None else ord)


def _norm_of_two(x: Any, ord: Any, axis: Any, keepdims: bool) -> Var:
    pair = (-2, -1) if axis is None else tuple(axis)
    result = matrix_norm(moveaxis(x, pair, (-2, -1)), ord=ord)
    if not keepdims:
        return result
    return expand_dims(result, normal_axes(pair, len(node_of(x).shape), "norm"))


@remembered
def cond(x: Any, p: Any = None) -> Var:
    """The norm of x times that of its inverse; without p the ratio of the extreme singular
    values."""
    if p in (None, 2):
        values = svdvals(x)
        most, least = values[..., 0], values[..., -1]
        return el.where(el.equal(most, 0), math.inf, el.divide(most, least))
    return el.multiply(matrix_norm(x, ord=p), matrix_norm(inv(x), ord=p))


@remembered
def matrix_power(x: Any, n: int, /) -> Var:
    """x @ x @ …, n times; of the inverse if n is negative."""
    node = node_of(x)
    if len(node.shape) < 2 or node.shape[-1] != node.shape[-2]:
        raise ShapeError(f"matrix_power(x, n): x must be square matrices, it is {describe(node)}")
    n = operator.index(n)
    base = inv(x) if n < 0 else el.positive(x)
    n = abs(n)
    if n == 0:
        one = eye(node.shape[-1], dtype=node.dtype)
        return el.add(one, Var._of(full(0, node.shape, node.dtype)))
    result: Var | None = None
    while n:
        if n & 1:
            result = base if result is None else matmul(result, base)
        n >>= 1
        base = matmul(base, base) if n else base
    assert result is not None
    return result


@remembered
def multi_dot(arrays: Sequence[Any]) -> Var:
    """The product of matrices in the order that needs the fewest multiplications; the first and
    last may be vectors."""
    if len(arrays) < 2:
        raise ShapeError("multi_dot(arrays): at least two arrays")
    letters = "abcdefghijklmnopqrstuvwxyz"
    parts = [letters[k : k + 2] for k in range(len(arrays))]
    if len(node_of(arrays[0]).shape) == 1:
        parts[0] = parts[0][1:]
    if len(node_of(arrays[-1]).shape) == 1:
        parts[-1] = parts[-1][:1]
    ends = parts[0][:-1] + parts[-1][1:]
    return einsum(f"{','.join(parts)}->{ends}", *arrays)


@remembered
def diagonal(x: Any, /, *, offset: int = 0) -> Var:
    """The diagonals of the last two axes."""
    return _diagonal(x, offset, -2, -1)


@remembered
def outer(x1: Any, x2: Any, /) -> Var:
    """out[i, j] = x1[i] * x2[j] of two vectors."""
    for v in (x1, x2):
        if len(node_of(v).shape) != 1:
            raise ShapeError(f"outer(a, b): two vectors, not {describe(node_of(v))}")
    return _outer(x1, x2)
