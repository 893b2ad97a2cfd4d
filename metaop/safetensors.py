"""Reading and writing checkpoints in the safetensors format.

A file is an 8-byte little-endian length, a JSON header of that length, and the raw bytes of the
tensors.  The header maps each name to `{"dtype", "shape", "data_offsets"}`; `__metadata__` maps
strings to strings.  Two levels:

    read, write               a flat dict, name -> Tensor(dtype, shape, data)
    load_tree, save_tree      nested dicts, lists and tuples of ndarrays and plain Python values

A tree is stored as tensors with dotted names ("model.0.weight"), so any safetensors reader can
use the file, and its structure as JSON in `__metadata__["metaop"]`.  Reading never runs code, and
trusts nothing in the file: what is wrong in it is a CheckpointError that names the file.

Source: the format's description in the README of huggingface/safetensors.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from .errors import CheckpointError

# name in the file -> (bytes per element, NumPy's name on disk)
_DTYPES = {
    "BOOL": (1, "|b1"),
    "U8": (1, "|u1"),
    "I8": (1, "|i1"),
    "U16": (2, "<u2"),
    "I16": (2, "<i2"),
    "F16": (2, "<f2"),
    "BF16": (2, "<u2"),
    "U32": (4, "<u4"),
    "I32": (4, "<i4"),
    "F32": (4, "<f4"),
    "U64": (8, "<u8"),
    "I64": (8, "<i8"),
    "F64": (8, "<f8"),
}
_NAMES = {numpy_name[1:]: name for name, (_, numpy_name) in _DTYPES.items() if name != "BF16"}

_HEADER_LIMIT = 100_000_000  # the limit of the reference implementation
_METADATA = "__metadata__"
_TREE = "metaop"
_TREE_FORMAT = 1
_DEPTH_LIMIT = 100


class Tensor(NamedTuple):
    """One tensor of a file: its dtype's name there, its shape, and its little-endian bytes."""

    dtype: str
    shape: tuple[int, ...]
    data: Any


class BFloat16(NamedTuple):
    """A bfloat16 tensor as NumPy can hold it: the upper halves of float32s, as uint16."""

    bits: np.ndarray


ToArray = Callable[[Any], Any]
FromArray = Callable[[np.ndarray, str], Any]


# --- writing ----------------------------------------------------------------------------------


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A new binary file that takes the place of `path` when the block ends without an error.

    Until then, and after any failure, an old file at `path` is as it was.  The new file lies in
    the same folder meanwhile (a rename is atomic only within one file system).
    """
    target = Path(os.path.realpath(path))  # through a link: the link stays, its target is replaced
    temporary = target.with_name(f".metaop-{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            shutil.copymode(target, temporary)
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    """Makes a rename in `folder` outlive a power cut, where the system offers that."""
    if os.name != "posix":
        return
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write(
    path: str | os.PathLike[str],
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes `tensors` (and a map of strings to strings) to `path`, atomically.

    Data are laid out by falling element size, so that every tensor is aligned in the file.

    Raises: ValueError for an unknown dtype name, a shape that does not fit the bytes, or a name
    that cannot be stored.
    """
    order = sorted(tensors, key=lambda name: -_checked_itemsize(name, tensors[name]))
    offsets, end = {}, 0
    for name in order:
        begin, end = end, end + memoryview(tensors[name].data).nbytes
        offsets[name] = [begin, end]
    header: dict[str, Any] = {_METADATA: dict(metadata)} if metadata else {}
    for name, tensor in tensors.items():
        shape = [int(extent) for extent in tensor.shape]
        header[name] = {"dtype": tensor.dtype, "shape": shape, "data_offsets": offsets[name]}
    text = _dump_json(header)
    text += b" " * (-len(text) % 8)
    if len(text) > _HEADER_LIMIT:
        raise ValueError(f"the header of {os.fspath(path)!r} has {len(text)} bytes, limit 10^8")
    with atomic_write(path) as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for name in order:
            file.write(tensors[name].data)


def _checked_itemsize(name: str, tensor: Tensor) -> int:
    if name == _METADATA or not isinstance(name, str):
        raise ValueError(f"a tensor cannot be stored under the name {name!r}")
    if tensor.dtype not in _DTYPES:
        raise ValueError(f"tensor {name!r}: unknown dtype {tensor.dtype!r}, known: {_known()}")
    itemsize = _DTYPES[tensor.dtype][0]
    need, have = math.prod(tensor.shape) * itemsize, memoryview(tensor.data).nbytes
    if need != have:
        shape = list(tensor.shape)
        raise ValueError(f"tensor {name!r}: {tensor.dtype}{shape} is {need} bytes, got {have}")
    return itemsize


def _dump_json(value: Any) -> bytes:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode("utf-8")


def _known() -> str:
    return " ".join(_DTYPES)


# --- reading ----------------------------------------------------------------------------------


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of the file and its metadata; `data` of each is a view of one buffer.

    Raises: CheckpointError for a malformed file, OSError where it cannot be read.
    """
    return _parse(memoryview(Path(path).read_bytes()), os.fspath(path))


def _parse(content: memoryview, path: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    header, data = _split_header(content, path)
    metadata = header.pop(_METADATA, None) or {}
    if not _is_string_map(metadata):
        raise _fault(path, f"{_METADATA} is not a map of strings to strings")
    entries = {name: _checked_entry(name, entry, path) for name, entry in header.items()}
    _check_layout(entries, len(data), path)
    tensors = {}
    for name, (dtype, shape, begin, end) in entries.items():
        tensors[name] = Tensor(dtype, shape, data[begin:end])
    return tensors, metadata


def _split_header(content: memoryview, path: str) -> tuple[dict[str, Any], memoryview]:
    if len(content) < 8:
        raise _fault(path, f"{len(content)} bytes are too few for a safetensors file")
    length = int.from_bytes(content[:8], "little")
    limit = min(_HEADER_LIMIT, len(content) - 8)
    if length > limit:
        raise _fault(path, f"the header claims {length} bytes, at most {limit} are possible")
    try:
        text = bytes(content[8 : 8 + length]).decode("utf-8")
        header = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise _fault(path, f"the header is not valid JSON ({error})") from None
    if not isinstance(header, dict):
        raise _fault(path, "the header is not a JSON object")
    return header, content[8 + length :]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object as a dict; two equal names would hide one of two tensors."""
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a name occurs twice")
    return result


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _is_string_map(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(item, str) for item in value.values())


def _checked_entry(name: str, entry: Any, path: str) -> tuple[str, tuple[int, ...], int, int]:
    """The entry's (dtype, shape, begin, end), each of the right type and fitting the others."""
    if not isinstance(entry, dict) or not entry.keys() >= {"dtype", "shape", "data_offsets"}:
        raise _fault(path, f"tensor {name!r} must have dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise _fault(path, f"tensor {name!r} has unknown dtype {dtype!r}, known: {_known()}")
    if not _is_sizes(shape):
        raise _fault(path, f"tensor {name!r} has shape {shape!r}, not a list of sizes")
    if not _is_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _fault(path, f"tensor {name!r} has data_offsets {offsets!r}, not [begin, end]")
    begin, end = offsets
    need = math.prod(shape) * _DTYPES[dtype][0]
    if need != end - begin:
        raise _fault(path, f"tensor {name!r}: {dtype}{shape} is {need} bytes, not {end - begin}")
    return dtype, tuple(shape), begin, end


def _is_sizes(value: Any) -> bool:
    # type() and not isinstance(): True is an int to Python, not a size
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)


def _check_layout(entries: dict[str, tuple[str, Any, int, int]], size: int, path: str) -> None:
    """The tensors cover the data exactly: no overlap, no hole, nothing past the end.

    A tensor need not begin at a multiple of its element size: the format does not ask for it.
    """
    position = 0
    for name, (_, _, begin, end) in sorted(entries.items(), key=lambda item: item[1][2:]):
        if end > size:
            raise _fault(path, f"tensor {name!r} ends at byte {end} of {size}: truncated file?")
        if begin != position:
            what = "overlaps another" if begin < position else "leaves a hole before it"
            raise _fault(path, f"tensor {name!r} {what} (begins at {begin}, expected {position})")
        position = end
    if position != size:
        raise _fault(path, f"{size - position} bytes after the last tensor")


def _fault(path: str, what: str) -> CheckpointError:
    return CheckpointError(f"{path}: {what}")


# --- trees ------------------------------------------------------------------------------------
#
# The structure is JSON.  None, bools, strings, integers and finite floats stand for themselves;
# everything else is an object with one key:
#     {"tensor": name}  {"float": "nan"}
#     {"dict": [[key, node], ...]}  {"list": [node, ...]}  {"tuple": [node, ...]}


def save_tree(path: str | os.PathLike[str], tree: Any, to_array: ToArray | None = None) -> None:
    """Writes nested dicts, lists and tuples of arrays and plain Python values, atomically.

    tree: leaves are ndarrays, NumPy scalars (stored as 0-d arrays), `BFloat16`, int, float, bool,
    str, None; keys of dicts are str or int.
    to_array: called with every other leaf; returns its ndarray or `BFloat16`, or None.

    Raises: TypeError for a leaf or key that cannot be stored, naming its place in the tree.
    """
    writer = _TreeWriter(to_array)
    structure = writer.node(tree, ())
    description = {"format": _TREE_FORMAT, "tree": structure}
    write(path, writer.tensors, {_TREE: _dump_json(description).decode("utf-8")})


def load_tree(path: str | os.PathLike[str], from_array: FromArray | None = None) -> Any:
    """What `save_tree` wrote; of any other safetensors file, the flat dict of its tensors.

    from_array: called as `from_array(array, dtype_name)` for every tensor, with dtype_name as in
    the file ("F32", "I64", ...; bfloat16, "BF16", comes as uint16); its result is the leaf.
    Without it leaves are ndarrays (and `BFloat16`), writable and independent of each other.

    Raises: CheckpointError for a malformed file, OSError where it cannot be read.
    """
    name = os.fspath(path)
    tensors, metadata = read(path)
    if _TREE not in metadata:
        return {key: _leaf(key, tensor, from_array, name) for key, tensor in tensors.items()}
    reader = _TreeReader(name, tensors, from_array)
    tree = reader.node(_parse_structure(metadata[_TREE], name), 0)
    if tensors:
        raise _fault(name, f"the stored structure does not mention {sorted(tensors)[:5]}")
    return tree


class _TreeWriter:
    """Collects a tree's tensors under dotted names while it describes the structure."""

    def __init__(self, to_array: ToArray | None):
        self.to_array = to_array
        self.tensors: dict[str, Tensor] = {}

    def node(self, value: Any, place: tuple[Any, ...]) -> Any:
        if len(place) > _DEPTH_LIMIT:
            raise ValueError(f"nested deeper than {_DEPTH_LIMIT} (does the tree hold itself?)")
        if value is None or isinstance(value, (bool, str)):
            return value
        if isinstance(value, np.generic):  # before float: np.float64 is a float
            return self.tensor(np.asarray(value), place)
        if isinstance(value, int):
            return int(value)
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else {"float": repr(float(value))}
        if isinstance(value, Mapping):
            return {"dict": [self.pair(key, item, place) for key, item in value.items()]}
        if isinstance(value, (list, tuple)) and not isinstance(value, BFloat16):
            kind = "list" if isinstance(value, list) else "tuple"
            return {kind: [self.node(item, (*place, i)) for i, item in enumerate(value)]}
        return self.tensor(self.array(value, place), place)

    def pair(self, key: Any, item: Any, place: tuple[Any, ...]) -> list[Any]:
        if isinstance(key, bool) or not isinstance(key, (str, int)):
            raise TypeError(f"save: the key {key!r} at {_dotted(place)!r} is neither str nor int")
        return [key, self.node(item, (*place, key))]

    def array(self, value: Any, place: tuple[Any, ...]) -> Any:
        if isinstance(value, (np.ndarray, BFloat16)):
            return value
        array = self.to_array(value) if self.to_array else None
        if not isinstance(array, (np.ndarray, BFloat16)):
            what = type(value).__name__
            raise TypeError(f"save: a {what} at {_dotted(place)!r} cannot be stored")
        return array

    def tensor(self, array: Any, place: tuple[Any, ...]) -> dict[str, str]:
        name = _dotted(place)
        while name in self.tensors or name == _METADATA:  # {"a": {"b": x}, "a.b": y}
            name += "~"
        self.tensors[name] = _to_tensor(array, name)
        return {"tensor": name}


def _dotted(place: tuple[Any, ...]) -> str:
    return ".".join(map(str, place)) or "tensor"


def _to_tensor(array: Any, name: str) -> Tensor:
    is_bfloat = isinstance(array, BFloat16)
    values = np.asarray(array.bits if is_bfloat else array)
    if is_bfloat and values.dtype != np.uint16:
        raise TypeError(f"save: the bits of {name!r} must be uint16, are {values.dtype}")
    code = f"{values.dtype.kind}{values.dtype.itemsize}"
    if code not in _NAMES:
        raise TypeError(f"save: {name!r} has dtype {values.dtype}, which cannot be stored")
    dtype = "BF16" if is_bfloat else _NAMES[code]
    flat = np.ascontiguousarray(values, dtype=_DTYPES[dtype][1]).reshape(-1)
    return Tensor(dtype, values.shape, flat.view(np.uint8).data)


def _parse_structure(text: str, path: str) -> Any:
    try:
        description = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise _fault(path, f"the stored structure is not valid JSON ({error})") from None
    if not isinstance(description, dict) or set(description) != {"format", "tree"}:
        raise _fault(path, "the stored structure must have format and tree")
    if description["format"] != _TREE_FORMAT:
        found = description["format"]
        raise _fault(path, f"structure format {found!r}, this metaop reads {_TREE_FORMAT}")
    return description["tree"]


class _TreeReader:
    """Rebuilds a tree from its structure; each tensor is taken out of `tensors` once."""

    def __init__(self, path: str, tensors: dict[str, Tensor], from_array: FromArray | None):
        self.path, self.tensors, self.from_array = path, tensors, from_array

    def node(self, node: Any, depth: int) -> Any:
        if depth > _DEPTH_LIMIT + 1:
            raise _fault(self.path, f"the stored structure is nested deeper than {_DEPTH_LIMIT}")
        if node is None or isinstance(node, (bool, str, int, float)):
            return node
        if not isinstance(node, dict) or len(node) != 1:
            raise self.unknown(node)
        [(kind, content)] = node.items()
        if kind == "tensor" and isinstance(content, str):
            return self.tensor(content)
        if kind == "float" and content in ("nan", "inf", "-inf"):
            return float(content)
        if kind in ("list", "tuple") and isinstance(content, list):
            items = [self.node(item, depth + 1) for item in content]
            return items if kind == "list" else tuple(items)
        if kind == "dict" and isinstance(content, list):
            return self.mapping(content, depth)
        raise self.unknown(node)

    def mapping(self, pairs: list[Any], depth: int) -> dict[Any, Any]:
        result: dict[Any, Any] = {}
        for pair in pairs:
            if not isinstance(pair, list) or len(pair) != 2 or type(pair[0]) not in (str, int):
                raise self.unknown(pair)
            key, item = pair
            if key in result:
                raise _fault(self.path, f"the stored structure has the key {key!r} twice")
            result[key] = self.node(item, depth + 1)
        return result

    def tensor(self, name: str) -> Any:
        if name not in self.tensors:
            raise _fault(self.path, f"the stored structure asks for tensor {name!r}, not there")
        return _leaf(name, self.tensors.pop(name), self.from_array, self.path)

    def unknown(self, node: Any) -> CheckpointError:
        return _fault(self.path, f"the stored structure has an unknown part {repr(node)[:60]}")


def _leaf(name: str, tensor: Tensor, from_array: FromArray | None, path: str) -> Any:
    stored = np.dtype(_DTYPES[tensor.dtype][1])
    flat = np.frombuffer(tensor.data, np.uint8)
    if tensor.dtype == "BOOL" and flat.max(initial=0) > 1:
        raise _fault(path, f"tensor {name!r} is BOOL and has a byte that is neither 0 nor 1")
    try:
        # astype copies: writable, aligned, in the machine's byte order
        array = flat.view(stored).reshape(tensor.shape).astype(stored.newbyteorder("="))
    except (ValueError, OverflowError) as error:
        shape = list(tensor.shape)
        raise _fault(path, f"tensor {name!r}: shape {shape} is not possible ({error})") from None
    if from_array is not None:
        return from_array(array, tensor.dtype)
    return BFloat16(array) if tensor.dtype == "BF16" else array
