"""The loop IR: its text is its key, and `verify` rejects what means nothing."""

from __future__ import annotations

from typing import Any

import pytest

import metaop as mo
from metaop.compiler.loops import (
    Check,
    Condition,
    Const,
    For,
    Grid,
    IndexValue,
    Init,
    Kernel,
    Let,
    Load,
    Op,
    Parameter,
    Ref,
    Stmt,
    Store,
    Update,
    rewrite,
    show_kernel,
    show_value,
    verify,
    walk,
)
from metaop.compiler.pipeline import kernel_key
from metaop.errors import CompilerBug
from metaop.index import TRUE
from tests.golden import assert_golden

F = mo.float32
I0, I1, I2, I3 = (("i", k) for k in range(4))


def load(offset: Any = I0, buffer: str = "a", dtype: Any = F) -> Load:
    return Load(buffer, offset, TRUE, 0, dtype)


def kernel(*body: Stmt, extents: dict[int, int] | None = None) -> Kernel:
    buffers = [Parameter("a", F, False), Parameter("n", mo.int64, False), Parameter("v", F, True)]
    return Kernel("k0", buffers, ["n0", "check0"], extents or {}, list(body))


def grid(*body: Stmt) -> Grid:
    return Grid((0,), (8,), list(body))


def serial(loop: int, *body: Stmt) -> For:
    return For(loop, 0, 8, "serial", list(body))


def vector(loop: int, *body: Stmt) -> For:
    return For(loop, 0, 8, "vector", list(body))


def unroll(loop: int, *body: Stmt) -> For:
    return For(loop, 0, 4, "unroll", list(body))


def store(value: Any, offset: Any = I0, **options: Any) -> Store:
    return Store("v", offset, value, **options)


def add(name: str, *values: Any, dims: tuple[int, ...] = (), **options: Any) -> Update:
    return Update(name, dims, "add", values, **options)


def tiled_product() -> Kernel:
    tile = ("val", "s0", (0, 5))
    return kernel(
        grid(
            Let("s0", (), IndexValue(("min", ("mul", I0, 4), ("val", "n0")))),
            vector(
                1,
                unroll(3, Init("acc", (3,), "add", F)),
                serial(
                    2,
                    unroll(3, Let("x0", (3,), load(("add", tile, I3)))),
                    Let("x1", (), load(I1)),
                    unroll(
                        3,
                        Update(
                            "acc", (3,), "fma", (Ref("x0", (3,), F), Ref("x1", (), F)),
                            ("lt", I2, 5),
                        ),
                    ),
                ),
                unroll(3, store(Ref("acc", (3,), F), ("add", ("mul", tile, 8), I1))),
            ),
        ),
        extents={3: 4},
    )  # fmt: skip


def test_text_golden():
    assert_golden(show_kernel(tiled_product()))


def test_a_tiled_product_is_valid():
    verify(tiled_product())


def index(e: Any) -> Store:
    return store(load(e))


REJECTED = {
    "uses i2 outside its loop": [grid(index(("add", I0, I2)))],
    "uses i1 outside its loop": [grid(serial(1, index(I1)), index(I1))],
    "uses i3 outside its loop": [grid(unroll(3, index(I3)), index(I3))],
    "a loop in a guard": [grid(store(load(), guard=("lt", I1, 4)))],
    "a loop in a load's guard": [grid(store(Load("a", I0, ("lt", I2, 4), 0, F)))],
    "a loop in the guard of an update": [
        grid(Init("acc", (), "add", F), add("acc", load(), guard=("lt", I2, 4)))
    ],
    "a loop in a bound": [grid(For(1, 0, I2, "serial", [index(I1)]))],
    "a loop in an extent": [Grid((0,), (I0,), [index(I0)])],
    "a loop in a condition": [
        grid(store(Op("where", (Condition(("lt", I1, 2)), load(), load()), F)))
    ],
    "uses n1 before it exists": [grid(index(("add", I0, ("val", "n1"))))],
    "uses t0 before it exists": [
        grid(index(("val", "t0")), Let("t0", (), load(I0, "n", mo.int64)))
    ],
    "a name of an inner loop": [
        grid(serial(1, Let("t0", (), load(I1, "n", mo.int64))), index(("val", "t0")))
    ],
    "t0, which is not one integer": [
        grid(
            unroll(3, Let("t0", (3,), load(I3, "n", mo.int64))),
            unroll(3, index(("val", "t0"))),
        )
    ],
    "x0 is read before it exists": [grid(store(Ref("x0", (), F)))],
    "x0 is read over other dims": [
        grid(unroll(3, Let("x0", (3,), load(I3))), store(Ref("x0", (), F)))
    ],
    "the dims of x0 are not unrolled loops around it": [
        grid(serial(1, Let("x0", (1,), load(I1))))
    ],
    "accumulator acc is updated before it exists": [grid(add("acc", load()))],
    "acc is an accumulator of maximum, not of add": [
        grid(Init("acc", (), "maximum", F), add("acc", load()))
    ],
    "acc is an accumulator of multiply, not of add": [
        grid(Init("acc", (), "multiply", F), Update("acc", (), "fma", (load(), load())))
    ],
    "fma= takes 2 values": [grid(Init("acc", (), "add", F), Update("acc", (), "fma", (load(),)))],
    "acc is not of type int64": [
        grid(Init("acc", (), "add", F), add("acc", load(I0, "n", mo.int64)))
    ],
    "acc is updated over other dims": [
        grid(unroll(3, Init("acc", (3,), "add", F)), add("acc", load()))
    ],
    "store into the input a": [grid(Store("a", I0, load()))],
    "store into unknown buffer w": [grid(Store("w", I0, load()))],
    "store of int64 into v": [grid(store(load(I0, "n", mo.int64)))],
    "load from unknown buffer w": [grid(store(load(I0, "w")))],
    "load of float64 from a": [grid(store(Op("cast", (load(I0, "a", mo.float64),), F)))],
    "vector loop i2 inside a vector loop": [grid(vector(1, vector(2, index(I2))))],
    "the bounds of serial loop i2 vary by lane": [
        grid(vector(1, For(2, 0, I1, "serial", [index(I2)])))
    ],
    "serial loop i1 inside itself": [grid(serial(1, serial(1, index(I1))))],
    "a grid inside a loop": [serial(1, grid(index(I0)))],
    "a grid of more loops than extents": [Grid((0, 1), (8,), [index(I0)])],
    "unknown kind of loop": [grid(For(1, 0, 8, "sideways", [index(I1)]))],
    "unroll loop i3 ends at 5, not at 4": [grid(For(3, 0, 5, "unroll", [index(I3)]))],
    "divides by something other than a constant": [
        grid(serial(1, index(("floordiv", I0, ("add", I1, 1)))))
    ],
    "uses check1 before it exists": [
        grid(store(Check(load(), 0, 4, ("val", "check1"), TRUE)))
    ],
}  # fmt: skip


@pytest.mark.parametrize("message", REJECTED)
def test_verify_rejects(message):
    wanted = "outside its loop" if message.startswith("a loop in") else message
    wanted = "before it exists" if message == "a name of an inner loop" else wanted
    with pytest.raises(CompilerBug, match=wanted) as caught:
        verify(kernel(*REJECTED[message], extents={3: 4}))
    assert "kernel k0(a: f32*" in str(caught.value), "the IR is part of the message"


def test_verify_accepts_every_rejected_kernel_put_right():
    at = ("val", "t0")
    verify(
        kernel(
            grid(
                Let("t0", (), Check(load(I0, "n", mo.int64), 0, 8, ("val", "check0"), TRUE)),
                Init("acc", (), "add", F),
                vector(1, add("acc", load(("add", at, I1)), guard=("lt", I1, ("val", "n0")))),
                store(Ref("acc", (), F), guard=("lt", I0, 4)),
            )
        )
    )


# --- keys -----------------------------------------------------------------------------------------


def one(value: Any) -> Kernel:
    return kernel(grid(store(value)))


def guarded(fill: float, guard: Any = ("lt", I0, 3)) -> Load:
    return Load("a", I0, guard, fill, F)


DIFFERENT = {
    "operator": (Op("add", (load(), load()), F), Op("sub", (load(), load()), F)),
    "fill": (guarded(0.0), guarded(1.0)),
    "sign of the fill": (guarded(0.0), guarded(-0.0)),
    "guard": (guarded(0.0), guarded(0.0, ("le", I0, 3))),
    "constant": (Const(0.1, F), Const(0.10000001, F)),
    "offset": (load(("mul", I0, 2)), load(("mul", I0, 3))),
    "buffer": (load(), load(buffer="v")),
    "conversion": (
        Op("cast", (Op("cast", (load(),), mo.int32),), F),
        Op("cast", (Op("cast", (load(),), mo.uint8),), F),
    ),
    "reading of bits": (
        Op("cast", (Op("bitcast", (load(),), mo.int32),), F),
        Op("cast", (Op("bitcast", (load(),), mo.uint32),), F),
    ),
    "bound of a check": (
        Check(load(), 0, 4, ("val", "check0"), TRUE),
        Check(load(), 0, 5, ("val", "check0"), TRUE),
    ),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_kernels_that_differ_have_different_keys(name):
    first, second = DIFFERENT[name]
    assert kernel_key(one(first)) != kernel_key(one(second))


def test_loops_that_differ_have_different_keys():
    body = index(I1)
    made = [
        kernel(grid(For(1, 0, stop, how, [body])))
        for stop in (8, 9, ("val", "n0"))
        for how in ("serial", "vector")
    ]
    assert len({kernel_key(k) for k in made}) == len(made)


def test_names_are_no_part_of_the_key():
    first, second = one(load()), one(load())
    second.name = "k7"
    second.buffers = [
        Parameter("a9", F, False),
        Parameter("a10", mo.int64, False),
        Parameter("v12", F, True),
    ]
    second.body = [Grid((0,), (8,), [Store("v12", I0, load(I0, "a9"))])]
    assert kernel_key(first) == kernel_key(second)


def test_the_type_of_a_buffer_is_part_of_the_key():
    first, second = one(load()), one(load())
    second.buffers = [Parameter("a", mo.float16, False), *second.buffers[1:]]
    assert kernel_key(first) != kernel_key(second)


# --- values ---------------------------------------------------------------------------------------


def test_rewriting_keeps_shared_parts_shared():
    x = load()
    y = Op("add", (x, x), F)
    new = rewrite(y, lambda e: ("i", 5) if e == I0 else e, {})
    assert new.args[0] is new.args[1]
    assert show_value(new) == "add(a[i5], a[i5])"


def test_walking_meets_every_value_once_arguments_first():
    x = load()
    y = Op("mul", (Op("add", (x, x), F), x), F)
    assert [show_value(v) for v in walk(y)] == [
        "a[i0]", "add(a[i0], a[i0])", "mul(add(a[i0], a[i0]), a[i0])"
    ]  # fmt: skip
