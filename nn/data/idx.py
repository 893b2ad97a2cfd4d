"""The IDX format of the MNIST family: a magic number, the sizes, the elements, nothing else.

Source: the description on the MNIST data base's page (Y. LeCun, C. Cortes, C. Burges).
"""

from __future__ import annotations

import gzip
import io
import math
import os
import zlib
from pathlib import Path

import numpy as np

_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_GZIP_MAGIC = b"\x1f\x8b"
_SIZE_LIMIT = 1 << 30  # what no data set here comes near: a gzip bomb stops there


def read_idx(path: str | os.PathLike[str]) -> np.ndarray:
    """The array in an IDX file, compressed by gzip or not, in the machine's byte order.

    Raises: ValueError naming the file if it is not a whole IDX file.
    """
    name = os.fspath(path)
    return parse_idx(decompress(Path(path).read_bytes(), name), name)


def decompress(content: bytes, name: str) -> bytes:
    """`content` without its gzip compression, if it has one (its name does not matter).

    Raises: ValueError naming the file for a broken or truncated gzip stream.
    """
    if not content.startswith(_GZIP_MAGIC):
        return content
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
            plain = file.read(_SIZE_LIMIT + 1)
            # read() to the end also checks gzip's own check sum
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{name}: broken or truncated gzip file ({error})") from None
    if len(plain) > _SIZE_LIMIT:
        raise ValueError(f"{name}: expands to more than {_SIZE_LIMIT} bytes")
    return plain


def parse_idx(content: bytes, name: str) -> np.ndarray:
    """The array in the bytes of an uncompressed IDX file; `name` is for messages.

    Raises: ValueError naming the file.
    """
    if len(content) < 4:
        raise ValueError(f"{name}: truncated, {len(content)} bytes do not hold an IDX header")
    zeros, code, rank = content[:2], content[2], content[3]
    if zeros != b"\0\0" or code not in _TYPES:
        raise ValueError(f"{name}: not an IDX file, it begins with {content[:4].hex(' ')}")
    begin = 4 + 4 * rank
    if len(content) < begin:
        raise ValueError(f"{name}: truncated within its {rank} sizes")
    shape = tuple(int.from_bytes(content[i : i + 4], "big") for i in range(4, begin, 4))
    dtype = np.dtype(_TYPES[code])
    need, have = math.prod(shape) * dtype.itemsize, len(content) - begin
    if need != have:
        what = "truncated" if have < need else "too long"
        raise ValueError(f"{name}: {what}, {list(shape)} needs {need} bytes of data, has {have}")
    # astype copies: the array can be written to, and does not keep `content` alive
    return (
        np.frombuffer(content, dtype, offset=begin).reshape(shape).astype(dtype.newbyteorder("="))
    )
