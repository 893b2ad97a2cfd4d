"""The Python Array API standard (2024.12) beyond the functions: dtypes, inspection, DLPack.

`metaop` itself is the namespace: `x.__array_namespace__()` returns it.
"""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

import numpy as np

from . import dtype as dt
from .creation import check_device
from .dtype import DType, as_dtype, promote, promote_scalar
from .elementwise import is_number
from .graph import Buffer
from .special import largest
from .storage import Storage
from .var import Var, node_of

VERSION = "2024.12"


# ---------------------------------------------------------------------------------------- dtypes


class FInfo(NamedTuple):
    """What a float dtype can hold."""

    bits: int
    eps: float
    max: float
    min: float
    smallest_normal: float
    dtype: DType

    @property
    def tiny(self) -> float:
        """The smallest positive normal number."""
        return self.smallest_normal


class IInfo(NamedTuple):
    """What an integer dtype can hold."""

    bits: int
    max: int
    min: int
    dtype: DType


_SIGNIFICAND = {dt.float16: (10, 14), dt.bfloat16: (7, 126), dt.float32: (23, 126),
                dt.float64: (52, 1022)}  # fmt: skip


def _dtype_of(value: Any) -> DType:
    return value.dtype if isinstance(value, Var) else as_dtype(value)


def finfo(type: Any, /) -> FInfo:
    """Bits, precision, largest, smallest and smallest normal number of a float dtype."""
    dtype = _dtype_of(type)
    if not dtype.is_float:
        raise ValueError(f"finfo(dtype): a float dtype, not {dtype}")
    digits, exponent = _SIGNIFICAND[dtype]
    high = largest(dtype)
    return FInfo(8 * dtype.itemsize, 2.0**-digits, high, -high, 2.0**-exponent, dtype)


def iinfo(type: Any, /) -> IInfo:
    """Bits, largest and smallest number of an integer dtype."""
    dtype = _dtype_of(type)
    if not dtype.is_integer:
        raise ValueError(f"iinfo(dtype): an integer dtype, not {dtype}")
    return IInfo(8 * dtype.itemsize, int(dtype.highest), int(dtype.lowest), dtype)


_KINDS = {
    "bool": "b", "signed integer": "i", "unsigned integer": "u", "integral": "iu",
    "real floating": "f", "complex floating": "", "numeric": "iuf",
}  # fmt: skip


def isdtype(dtype: Any, kind: Any) -> bool:
    """True if a dtype is of a kind ("integral", "real floating", …), a dtype, or one of several."""
    if isinstance(kind, tuple):
        return any(isdtype(dtype, k) for k in kind)
    if isinstance(kind, str) and kind in _KINDS:
        return as_dtype(dtype).kind in _KINDS[kind] if _KINDS[kind] else False
    return as_dtype(dtype) is as_dtype(kind)


def result_type(*arrays_and_dtypes: Any) -> DType:
    """The dtype of an operation on these arrays, dtypes and Python numbers."""
    if not arrays_and_dtypes:
        raise ValueError("result_type(): at least one array or dtype")
    numbers = [v for v in arrays_and_dtypes if is_number(v)]
    kinds = [
        as_dtype(v) if isinstance(v, DType | str | type | np.dtype) else node_of(v).dtype
        for v in arrays_and_dtypes
        if not is_number(v)
    ]
    result = kinds[0] if kinds else dt.PYTHON_TYPES[type(numbers[0])]
    for kind in kinds[1:]:
        result = promote(result, kind)
    for number in numbers:
        result = promote_scalar(result, number)
    return result


def can_cast(from_: Any, to: Any, /) -> bool:
    """True if every value of a dtype fits another by the rules of promotion."""
    source, target = _dtype_of(from_), as_dtype(to)
    return promote(source, target) is target


# ------------------------------------------------------------------------------------ what there is


class ArrayNamespaceInfo:
    """`metaop.__array_namespace_info__()`: no complex dtypes, one device."""

    def capabilities(self) -> dict[str, Any]:
        """Boolean indexing and data-dependent shapes exist: they compute at the call."""
        return {"boolean indexing": True, "data-dependent shapes": True, "max dimensions": 64}

    def default_device(self) -> str:
        """The CPU."""
        return "cpu"

    def devices(self) -> list[str]:
        """The CPU."""
        return ["cpu"]

    def default_dtypes(self, *, device: Any = None) -> dict[str, DType]:
        """float32 for floats, int64 for integers; there are no complex numbers."""
        check_device(device)
        return {"real floating": dt.float32, "integral": dt.int64, "indexing": dt.int64}

    def dtypes(self, *, device: Any = None, kind: Any = None) -> dict[str, DType]:
        """The standard's dtypes by name, of a kind or of several if asked."""
        check_device(device)
        known = [d for d in dt.ALL if d not in (dt.float16, dt.bfloat16)]
        return {d.name: d for d in known if kind is None or isdtype(d, kind)}


def __array_namespace_info__() -> ArrayNamespaceInfo:  # noqa: N807 - the standard's name
    """What this namespace has: dtypes, devices, defaults."""
    return ArrayNamespaceInfo()


def array_namespace(self: Var, *, api_version: str | None = None) -> Any:
    """The module whose functions take this array."""
    if api_version is not None and api_version > VERSION:
        raise ValueError(f"metaop follows the Array API up to {VERSION}, not {api_version}")
    return sys.modules["metaop"]


def to_device(self: Var, device: Any, /, *, stream: Any = None) -> Var:
    """x: there is one device."""
    check_device(device)
    return self


# ---------------------------------------------------------------------------------------- DLPack


def dlpack(
    self: Var,
    *,
    stream: Any = None,
    max_version: tuple[int, int] | None = None,
    dl_device: Any = None,
    copy: bool | None = None,
) -> Any:
    """The value's own memory for another library, without copying (bfloat16 as float32, copied).

    A Var never changes: who writes into the memory changes what it was lent.
    """
    array = np.array(self._array()) if copy else self._array()
    if self.dtype is dt.bool_ or max_version is None or max_version < (1, 0):
        # before version 1 there was no flag for read-only memory
        array = array if array.flags.writeable else _writable(array)
    options: dict[str, Any] = {} if max_version is None else {"max_version": max_version}
    return array.__dlpack__(**options)


def _writable(array: np.ndarray) -> np.ndarray:
    interface = dict(array.__array_interface__)
    interface["data"] = (interface["data"][0], False)
    return np.asarray(_Interface(interface, array))


class _Interface:
    """Memory of an array, which it keeps alive."""

    def __init__(self, interface: dict[str, Any], owner: np.ndarray):
        self.__array_interface__, self.owner = interface, owner


def from_dlpack(x: Any, /, *, device: Any = None, copy: bool | None = None) -> Var:
    """A Var over the memory of another library's array, without copying if it is C-contiguous.

    The memory must not be written to while the Var lives: it would change what was recorded.
    copy: True copies, False raises BufferError where a copy would be needed.
    """
    check_device(device)
    array = np.from_dlpack(x)
    if copy or not array.flags.c_contiguous:
        if copy is False:
            raise BufferError("from_dlpack(x, copy=False): x is not C-contiguous")
        return Var(array)
    dtype = as_dtype(array.dtype)
    return Var._of(Buffer(Storage.borrowed(array), array.shape, dtype))


def from_numpy(array: Any) -> Var:
    """A Var with a copy of an ndarray."""
    return Var(array)
