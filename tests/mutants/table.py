"""Planted faults: one replacement of source text each, and the tests that must turn red."""

from __future__ import annotations

from typing import NamedTuple

COMPILER = "tests/compiler"


class Mutant(NamedTuple):
    """`old`, which occurs once in `path`, becomes `new`; `tests` are arguments of pytest."""

    name: str
    path: str
    old: str
    new: str
    tests: str


MUTANTS = [
    Mutant(
        "compose: two swapped indices",
        "compiler/passes/compose.py",
        "for e in below.indices\n",
        "for e in below.indices[::-1]\n",
        f"{COMPILER}/test_passes.py -k compose",
    ),
    Mutant(
        "graph: a maximum that starts from 0",
        "metaop/graph.py",
        "return dtype.lowest\n",
        "return 0\n",
        f"{COMPILER}/test_schedule.py -k every_schedule",
    ),
    Mutant(
        "index: < for <= at the lower edge of a source",
        "metaop/index.py",
        'conjunction(("le", 0, e), ("lt", e, size))',
        'conjunction(("lt", 0, e), ("lt", e, size))',
        f"{COMPILER}/test_fuse.py -k mask",
    ),
    Mutant(
        "index: <= for < at the upper edge of a source",
        "metaop/index.py",
        'conjunction(("le", 0, e), ("lt", e, size))',
        'conjunction(("le", 0, e), ("le", e, size))',
        f"{COMPILER}/test_fuse.py -k mask",
    ),
    Mutant(
        "invert: every window position takes the residue of the first",
        "compiler/passes/invert.py",
        '("mod", difference, s), ("mul", q, s)))',
        '("mod", difference, s), q))',
        f"{COMPILER}/test_passes.py -k affine_write or strided_windows",
    ),
    Mutant(
        "split: the last, shorter piece is dropped",
        "compiler/passes/split.py",
        "return _in_pieces(node, kept, axis, pieces, -(-extent // pieces))",
        "return _in_pieces(node, kept, axis, pieces, extent // pieces)",
        f"{COMPILER}/test_passes.py -k split",
    ),
    Mutant(
        "share: a key without the fill",
        "metaop/graph.py",
        'return ("reindex", self.shape, self.pieces, text)',
        'return ("reindex", self.shape, self.pieces)',
        f"{COMPILER}/test_program.py -k share_a_key",
    ),
    Mutant(
        "algebra: x + 0.0 is x",
        "compiler/passes/algebra.py",
        "    if node.dtype.is_float:\n        return None\n",
        "",
        f"{COMPILER}/test_passes.py -k algebra",
    ),
    Mutant(
        "fuse: an outer mask replaces an inner one",
        "compiler/fuse.py",
        "if isinstance(value, Load) and source in self.place:",
        "if isinstance(value, Load):",
        f"{COMPILER}/test_fuse.py -k mask",
    ),
    Mutant(
        "merge: the box is not asked whether it reads what it overwrites",
        "compiler/merge.py",
        "if any(first <= high and low <= last for low, high in filled):",
        "if False:",
        f"{COMPILER}/test_fuse.py -k overwrites",
    ),
    Mutant(
        "arena: a buffer's memory is given away in the phase that reads it",
        "compiler/arena.py",
        "born <= last and first <= died",
        "born < last and first < died",
        f"{COMPILER}/test_arena.py",
    ),
    Mutant(
        "llvm: one lane too many in the tail of a vector loop",
        "compiler/emit_llvm.py",
        'return self.raw.icmp_signed("<", self.lane_numbers(I32, 1), self.b.splat(left))',
        'return self.raw.icmp_signed("<=", self.lane_numbers(I32, 1), self.b.splat(left))',
        f"{COMPILER}/test_printers.py -k tail",
    ),
    Mutant(
        "llvm: an update ignores its guard",
        "compiler/emit_llvm.py",
        "guard = None if stmt.guard == TRUE else self.condition(stmt.guard)\n"
        "        if accumulator.lanes:",
        "guard = None\n        if accumulator.lanes:",
        f"{COMPILER}/test_printers.py -k guard",
    ),
    Mutant(
        "python: minus is printed as plus",
        "compiler/emit_python.py",
        '"sub": "-"',
        '"sub": "+"',
        f"{COMPILER}/test_printers.py -k sign",
    ),
    Mutant(
        "loops: a key without the guard of a load",
        "compiler/loops.py",
        "if value.guard == TRUE",
        "if value.guard",
        f"{COMPILER}/test_loops.py -k keys",
    ),
    Mutant(
        "schedule: the last tile starts behind the end",
        "compiler/schedule.py",
        'IndexValue(("min", start, n - tile.size))',
        'IndexValue(("min", start, n))',
        f"{COMPILER}/test_schedule.py -k overlaps",
    ),
    Mutant(
        "program: two phases run as one",
        "compiler/assemble.py",
        "needs = [written[b] for b in (*reads, *writes) if b in written]",
        "needs = [written[b] for b in writes if b in written]",
        f"{COMPILER}/test_program.py -k phase",
    ),
    Mutant(
        "grad: subtraction adds",
        "metaop/grad.py",
        '"sub": (lambda g, y, a, b: g, lambda g, y, a, b: neg(g)),',
        '"sub": (lambda g, y, a, b: g, lambda g, y, a, b: g),',
        "tests/test_grad.py",
    ),
    Mutant(
        "grad: a product forgets its second factor (gamma of batch norm)",
        "metaop/grad.py",
        '"mul": (lambda g, y, a, b: mul(g, b), lambda g, y, a, b: mul(g, a)),',
        '"mul": (lambda g, y, a, b: mul(g, b), lambda g, y, a, b: None),',
        "tests/nn/test_layers.py -k norm",
    ),
    Mutant(
        "batch norm: the running variance is the biased one",
        "nn/functional/norm.py",
        "var * (count / max(count - 1, 1))",
        "var * 1.0",
        "tests/nn/test_layers.py -k norm",
    ),
    Mutant(
        "sgd: momentum pulls back",
        "nn/optim/sgd.py",
        'buffer = momentum * state["momentum_buffer"] +',
        'buffer = -momentum * state["momentum_buffer"] +',
        "tests/nn/test_optim.py -k SGD",
    ),
    Mutant(
        "random: a rotation of the cipher",
        "compiler/llvm_ops.py",
        "_ROTATIONS = (13, 15, 26, 6, 17, 29, 16, 24)",
        "_ROTATIONS = (13, 15, 26, 6, 17, 29, 24, 16)",
        "tests/test_random.py",
    ),
    Mutant(
        "emit_llvm: a user's function is called in lanes past the end",
        "compiler/emit_llvm.py",
        "        active = self.active(guard)\n        bits =",
        "        active = guard\n        bits =",
        "tests/test_kernels.py -k only_where",
    ),
    Mutant(
        "schedule: a piece of a buffer is taken for all of it",
        "compiler/schedule.py",
        "return self.nest.piece or sum(",
        "return sum(",
        f"{COMPILER}/test_schedule.py -k piece_is_read",
    ),
    Mutant(
        "scalar_gradient: the derivative takes the new value",
        "metaop/scalar_gradient.py",
        "return _assign(names, [*values, *(_or_zero(self.of(values[k])) for k in more)])",
        "return _assign(names, [*values, *(_or_zero(self.of(values[0])) for k in more)])",
        "tests/test_kernels.py -k derivative_of_a_root or are_differentiated",
    ),
]
