"""Element types, their promotion, and what arithmetic on each of them returns.

A `DType` is a singleton: compare with `is`.  NumPy's promotion rules hold, except that metaop
never *creates* float64: what NumPy would widen from integers to float64 becomes float32.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

import numpy as np

from .errors import DTypeError


class DType:
    """One element type.

    name: as in NumPy ("float32"); short: as printed in graphs ("f32"); kind: "f", "i", "u" or "b";
    itemsize in bytes; storage: the NumPy dtype of the bytes in memory (bfloat16 is stored as
    uint16); compute: the DType in which arithmetic on it is done; is_float, is_integer: which
    kinds it is of, bool being neither; operations: the signatures of elementwise operators that
    return it.
    """

    __slots__ = (
        "name", "short", "kind", "itemsize", "storage", "rank", "is_float", "is_integer",
        "operations",
    )  # fmt: skip

    def __init__(self, name: str, short: str, kind: str, itemsize: int, storage: str, rank: int):
        self.name, self.short, self.kind = name, short, kind
        self.itemsize, self.storage, self.rank = itemsize, np.dtype(storage), rank
        self.is_float, self.is_integer = kind == "f", kind in "iu"
        self.operations: dict[str, int] = {}

    @property
    def compute(self) -> DType:
        """The type arithmetic runs in: float32 for the 16-bit floats, else the type itself."""
        return float32 if self in (float16, bfloat16) else self

    @property
    def lowest(self) -> float | int:
        """The identity of maximum: -inf, the smallest integer, or False."""
        if self.kind == "f":
            return float("-inf")
        return -(1 << (8 * self.itemsize - 1)) if self.kind == "i" else 0

    @property
    def highest(self) -> float | int:
        """The identity of minimum: inf, the largest integer, or True."""
        if self.kind == "f":
            return float("inf")
        if self.kind == "b":
            return 1
        return (1 << (8 * self.itemsize - (self.kind == "i"))) - 1

    def __repr__(self) -> str:
        return f"metaop.{self.name}"

    def __str__(self) -> str:
        return self.name

    def __reduce__(self) -> Any:
        return (as_dtype, (self.name,))


bool_ = DType("bool", "bool", "b", 1, "bool", 0)
uint8 = DType("uint8", "u8", "u", 1, "uint8", 1)
uint16 = DType("uint16", "u16", "u", 2, "uint16", 2)
uint32 = DType("uint32", "u32", "u", 4, "uint32", 3)
uint64 = DType("uint64", "u64", "u", 8, "uint64", 4)
int8 = DType("int8", "i8", "i", 1, "int8", 5)
int16 = DType("int16", "i16", "i", 2, "int16", 6)
int32 = DType("int32", "i32", "i", 4, "int32", 7)
int64 = DType("int64", "i64", "i", 8, "int64", 8)
bfloat16 = DType("bfloat16", "bf16", "f", 2, "uint16", 9)
float16 = DType("float16", "f16", "f", 2, "float16", 10)
float32 = DType("float32", "f32", "f", 4, "float32", 11)
float64 = DType("float64", "f64", "f", 8, "float64", 12)

ALL = (bool_, uint8, uint16, uint32, uint64, int8, int16, int32, int64,
       bfloat16, float16, float32, float64)  # fmt: skip
BY_NAME = {d.name: d for d in ALL} | {d.short: d for d in ALL}
PYTHON_TYPES = {bool: bool_, int: int64, float: float32}
_BY_NUMPY = {d.storage: d for d in ALL if d is not bfloat16}
_NUMPY_CLASSES = {type(d.storage) for d in ALL}


def as_dtype(dtype: Any) -> DType:
    """The DType named by a DType, a string ("float32", "f32"), a Python type or a NumPy dtype.

    Raises DTypeError for anything else (complex numbers among it).
    """
    if isinstance(dtype, DType):
        return dtype
    if type(dtype) in _NUMPY_CLASSES and dtype in _BY_NUMPY:
        return _BY_NUMPY[dtype]
    if isinstance(dtype, str) and dtype in BY_NAME:
        return BY_NAME[dtype]
    if isinstance(dtype, type) and dtype in PYTHON_TYPES:
        return PYTHON_TYPES[dtype]
    try:
        if dtype is not None:  # which is float64 to NumPy
            return _BY_NUMPY[np.dtype(dtype).newbyteorder("=")]
    except (TypeError, KeyError):
        pass
    raise DTypeError(f"no such dtype: {dtype!r}; metaop has {', '.join(BY_NAME)}")


def _numpy_promote(a: DType, b: DType) -> DType:
    result = np.promote_types(a.storage, b.storage)
    if result == np.float64 and float64 not in (a, b):
        return float32
    return _BY_NUMPY[result]


def _promote(a: DType, b: DType) -> DType:
    if a is b:
        return a
    if bfloat16 in (a, b):
        other = b if a is bfloat16 else a
        if not other.is_float:
            return bfloat16
        return float32 if other is float16 else other
    return _numpy_promote(a, b)


_PROMOTED = {(a, b): _promote(a, b) for a in ALL for b in ALL}


def promote(a: DType, b: DType) -> DType:
    """The dtype of `x + y` for arrays of dtypes a and b (NumPy's, but never a new float64)."""
    return _PROMOTED[a, b]


def promote_all(dtypes: Iterable[DType]) -> DType:
    """The dtype of arrays joined, in any order (NumPy's result_type): floats first, so that int8,
    uint8 and float16 give float16."""
    return functools.reduce(promote, sorted(dtypes, key=lambda d: -d.rank))


def promote_scalar(array: DType, value: bool | int | float) -> DType:
    """The dtype of `x + value` for a Python number: weak, so that f16 + 1.0 is f16.

    An integer array and a float give float32; a bool array and an int give int64.
    """
    if isinstance(value, bool):
        return array
    if isinstance(value, int):
        return int64 if array is bool_ else array
    return array if array.is_float else float32


def floating(dtype: DType) -> DType:
    """The dtype of exp, mean, `/` …: the float type itself, float32 for integers and bool."""
    return dtype if dtype.is_float else float32
