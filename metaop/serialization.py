"""save and load: nested dicts and lists of Vars, arrays, numbers and strings in one safetensors
file, written atomically, read without running code."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from . import safetensors
from .dtype import bfloat16
from .var import Var


def save(tree: Any, path: str | os.PathLike[str]) -> None:
    """Writes a tree of Vars to a file; the old file stays intact if anything fails."""
    safetensors.save_tree(path, tree, to_array=_to_array)


def load(path: str | os.PathLike[str]) -> Any:
    """The tree that `save` wrote, or a dict of Vars for any other safetensors file.

    Raises CheckpointError for a broken file; never runs code.
    """
    return safetensors.load_tree(path, from_array=_from_array)


def _to_array(value: Any) -> Any:
    if not isinstance(value, Var):
        return value
    if value.dtype is bfloat16:
        return safetensors.BFloat16((value.numpy().view(np.uint32) >> 16).astype(np.uint16))
    return value.numpy()


def _from_array(array: np.ndarray, dtype_name: str) -> Var:
    if dtype_name in ("BF16", "bfloat16"):
        return Var((array.astype(np.uint32) << 16).view(np.float32), bfloat16)
    return Var(array)
