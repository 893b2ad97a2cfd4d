"""Common values of the nests of one loop: what is named once, and what is left alone."""

from __future__ import annotations

from itertools import count

from metaop import dtype as dt
from metaop.compiler.loops import (
    For,
    Grid,
    Init,
    Kernel,
    Load,
    Op,
    Parameter,
    Stmt,
    Store,
    Update,
    Value,
    show_kernel,
    verify,
)
from metaop.compiler.repeats import name_repeats
from metaop.index import TRUE


def loaded(name: str) -> Value:
    return Load(name, ("i", 1), TRUE, 0, dt.float32)


def squared(value: Value) -> Value:
    return Op("mul", (value, value), dt.float32)


def text_after(*body: Stmt) -> str:
    """The lines of the innermost body when repeats have names."""
    names = (f"x{k}" for k in count())
    inner = For(1, 0, 8, "vector", list(body))
    sums = [Init(name, (), "add", dt.float32) for name in ("s", "t")]
    whole: list[Stmt] = [Grid((0,), (4,), [*sums, inner])]
    name_repeats(whole, lambda: next(names))
    buffers = [Parameter("a", dt.float32, False), Parameter("b", dt.float32, True)]
    kernel = Kernel("k", buffers, [], {}, whole)
    verify(kernel)
    lines = show_kernel(kernel).splitlines()
    start = next(k for k, line in enumerate(lines) if "vector" in line)
    return "\n".join(line.strip() for line in lines[start + 1 :])


def test_what_two_statements_compute_is_named_once():
    first = Op("sqrt", (squared(loaded("a")),), dt.float32)
    second = Op("neg", (squared(loaded("a")),), dt.float32)
    assert text_after(Update("s", (), "add", (first,)), Update("t", (), "add", (second,))) == (
        "x0: f32 = mul(a[i1], a[i1])\ns add= sqrt(x0)\nt add= neg(x0)"
    )


def test_only_the_whole_of_what_is_repeated_has_a_name():
    value = Op("sqrt", (squared(loaded("a")),), dt.float32)
    again = Op("sqrt", (squared(loaded("a")),), dt.float32)
    assert text_after(Update("s", (), "add", (value,)), Store("b", ("i", 1), again)) == (
        "x0: f32 = sqrt(mul(a[i1], a[i1]))\ns add= x0\nb[i1] = x0"
    )


def test_a_load_of_what_the_body_stores_is_no_repeat():
    first = Update("s", (), "add", (squared(loaded("b")),))
    second = Update("t", (), "add", (squared(loaded("b")),))
    between = Store("b", ("i", 1), loaded("a"))
    assert text_after(first, between, second) == (
        "s add= mul(b[i1], b[i1])\nb[i1] = a[i1]\nt add= mul(b[i1], b[i1])"
    )
