"""What to write instead: hints for names that users of PyTorch, Jittor or NumPy try."""

from __future__ import annotations

from collections.abc import Iterable

INSTEAD = {
    "cuda": "metaop computes on the CPU: leave it out",
    "clone": "x.detach() is a copy: values never change once recorded",
    "stop_grad": "x.detach()",
    "fft": "metaop has no complex numbers and no FFT",
    "to_sparse": "metaop has no sparse storage",
    "is_cuda": "metaop computes on the CPU",
    "device_id": "metaop computes on the CPU",
    "getdim": "x.ndim",
    "shape_as_list": "list(x.shape)",
    "ndimension": "x.ndim",
    "new_zeros": "mo.zeros(shape, dtype=x.dtype)",
    "new_ones": "mo.ones(shape, dtype=x.dtype)",
    "zero_grad": "w.grad = None, or optimizer.zero_grad()",
    "addmm": "x @ y + z",
    "mm": "x @ y",
    "tensor": "mo.array",
    "Tensor": "mo.Var",
    "from_numpy": "mo.array (it copies)",
    "autograd": "mo.grad",
    "relu": "mo.nn.functional.relu",
    "softmax": "mo.nn.functional.softmax",
}


def hint_for(owner: str, name: str, known: Iterable[str]) -> str:
    """The text of an AttributeError: what exists under a similar name, or what to write."""
    text = f"{owner} has no attribute {name!r}"
    if name in INSTEAD:
        return (
            f"{text}; write {INSTEAD[name]}"
            if " " not in INSTEAD[name]
            else f"{text}: {INSTEAD[name]}"
        )
    import difflib  # not at the start of every program

    close = difflib.get_close_matches(name, [k for k in known if not k.startswith("_")], 3, 0.7)
    return f"{text}; did you mean {', '.join(close)}?" if close else text
