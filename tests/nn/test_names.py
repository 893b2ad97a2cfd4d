"""Every public name of torch.nn and its neighbours is here, or an error says what to write."""

from __future__ import annotations

import inspect
import re
import typing
from typing import Any

import pytest

import metaop as mo
from metaop.nn.hints import INSTEAD

torch = pytest.importorskip("torch")

PLACES = {
    "torch.nn": "nn",
    "torch.nn.functional": "nn.functional",
    "torch.nn.init": "nn.init",
    "torch.nn.utils": "nn.utils",
    "torch.optim": "nn.optim",
    "torch.optim.lr_scheduler": "nn.optim.lr_scheduler",
    "torch.utils.data": "nn.data",
}


def found(path: str, start: Any) -> Any:
    for part in path.split(".")[start is torch :]:
        start = getattr(start, part)
    return start


def names_of(module: Any) -> list[str]:
    """The public names that are torch's own: no modules, and nothing that it only imports."""
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and not inspect.ismodule(value)
        and not hasattr(typing, name)
        and str(getattr(value, "__module__", "torch")).startswith("torch")
        and not isinstance(value, int | float)
    ]


@pytest.mark.parametrize("place", PLACES)
def test_a_name_of_torch_is_here_or_says_what_to_write(place: str) -> None:
    import torch.utils.data

    here = found(PLACES[place], mo)
    silent = []
    for name in names_of(found(place, torch)):
        try:
            getattr(here, name)
        except AttributeError as error:
            if not re.search(r"; |: ", str(error)):
                silent.append(name)
    assert silent == []


def test_hints_name_only_what_is_missing() -> None:
    for name in INSTEAD:
        for place in PLACES.values():
            assert name not in vars(found(place, mo)), (place, name)


@pytest.mark.parametrize("place, name, hint", [
    ("nn", "UninitializedParameter", "what is not known is not there"),
    ("nn", "Lnear", "did you mean Linear"),
    ("nn.functional", "relu_", r"write x.assign\(relu\(x\)\)"),
    ("nn.init", "xavier_uniform", "write xavier_uniform_"),
    ("nn.optim", "SparseAdam", "no sparse storage"),
    ("nn.data", "RandmSampler", "did you mean RandomSampler"),
])  # fmt: skip
def test_a_missing_name_is_an_attribute_error_with_a_hint(place: str, name: str, hint: str) -> None:
    with pytest.raises(AttributeError, match=hint):
        getattr(found(place, mo), name)
    assert not hasattr(found(place, mo), "__unknown__")
