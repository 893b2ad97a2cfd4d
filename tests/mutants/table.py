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
        "compiler/schedule/scheduler.py",
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
        "compiler/schedule/body.py",
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

MUTANTS.append(
    Mutant(
        "contraction: taps over a border are left out of any filter",
        "compiler/contraction/build.py",
        'is_plain = ("eq", ("val", "strange", (0, 2)), 0)',
        'is_plain = ("le", ("val", "strange", (0, 2)), 1)',
        f"{COMPILER}/test_contraction.py -k not_finite",
    )
)

# The traps of other frameworks, each planted: what users of Jittor know from it.
TRAPS = [
    Mutant(
        "trap: dropout is off when training",
        "nn/module.py",
        "    training: bool = True\n",
        "    training: bool = False\n",
        "tests/nn/test_layers.py -k dropout",
    ),
    Mutant(
        "trap: dropout as a function is off",
        "nn/functional/dropout.py",
        "def dropout(input: Var, p: float = 0.5, training: bool = True,",
        "def dropout(input: Var, p: float = 0.5, training: bool = False,",
        "tests/nn/test_layers.py -k dropout",
    ),
    Mutant(
        "trap: the variance of a normalisation is E[x²] - E[x]²",
        "nn/functional/norm.py",
        "(centered * centered).mean(axis=axes, keepdims=True)",
        "(x * x).mean(axis=axes, keepdims=True) - mean * mean",
        "tests/nn/test_batch_norm.py -k 1e4",
    ),
    Mutant(
        "trap: var is E[x²] - E[x]²",
        "metaop/reduction.py",
        "    total = sum(centred, axes, keepdims)\n",
        "    mean_ = mean(wide, axes, keepdims)\n"
        "    total = count * (mean(wide * wide, axes, keepdims) - mean_ * mean_)\n",
        "tests/test_reductions.py -k mean_is_large",
    ),
    Mutant(
        "trap: Adam counts calls of backward",
        "nn/optim/optimizer.py",
        '        coming["step"] += 1\n',
        '        coming["step"] += 3\n',
        "tests/test_semantics.py -k adam",
    ),
    Mutant(
        "trap: no pooling of a window as large as its input",
        "metaop/convolution.py",
        "        room = size + before + after - span\n        if room < 0:\n",
        "        room = size + before + after - span\n        if room <= 0:\n",
        "tests/test_semantics.py -k as_large",
    ),
    Mutant(
        "trap: bins of adaptive pooling all have the size of the first",
        "nn/functional/pooling.py",
        "        starts = [i[2 + k] * space[k] // out[k] for k in range(rank)]\n",
        "        starts = [i[2 + k] * (space[k] // out[k]) for k in range(rank)]\n",
        "tests/nn/test_torch_functions.py -k adaptive",
    ),
    Mutant(
        "trap: bins of adaptive pooling end where the next begins",
        "nn/functional/pooling.py",
        "            end = ((i[2 + k] + 1) * n + size - 1) // size\n",
        "            end = ((i[2 + k] + 1) * n) // size\n",
        "tests/nn/test_torch_functions.py -k adaptive",
    ),
    Mutant(
        "trap: // and % of integers have C's signs",
        "compiler/llvm_ops.py",
        '    differ = raw.icmp_signed("<", raw.xor(rest, b), zero)\n',
        '    differ = raw.icmp_signed("<", raw.xor(rest, rest), zero)\n',
        "tests/test_operators.py",
    ),
    Mutant(
        "trap: % of floats has C's signs",
        "compiler/llvm_ops.py",
        "    moved = raw.select(differ, raw.fadd(rest, b), rest)\n",
        "    moved = raw.select(differ, rest, rest)\n",
        "tests/test_operators.py",
    ),
    Mutant(
        "trap: the gradient of % is right for an upstream gradient of 1 alone",
        "metaop/grad.py",
        'return g, neg(mul(g, Elementwise("floordiv", a, b)))',
        'return g, neg(Elementwise("floordiv", a, b))',
        "tests/test_grad.py -k mod",
    ),
    Mutant(
        "trap: a sum runs through all numbers",
        "compiler/passes/split.py",
        "    wanted = min(max(shared, accurate), hint(extent))\n",
        "    wanted = 1\n",
        "tests/test_semantics.py -k ten_million",
    ),
    Mutant(
        "trap: a bool mask of attention is added",
        "nn/functional/attention.py",
        "    if forbidden.dtype.is_float:\n        return scores + forbidden\n"
        "    return mo.where(forbidden, -math.inf, scores)\n",
        "    return scores + forbidden\n",
        "tests/nn/test_attention.py -k any_mask",
    ),
    Mutant(
        "trap: a sum of everything has one axis",
        "metaop/reduction.py",
        "    return Var._of(expand(node, axes) if keepdims else node)\n",
        "    return Var._of(expand(node, axes if keepdims else axes[: not node.shape]))\n",
        "tests/test_reductions.py",
    ),
    Mutant(
        "trap: float64 becomes float32",
        "metaop/var.py",
        "    if dtype is None or dtype is own:\n        return node\n",
        "    dtype = dt.float32 if dtype is None and own is dt.float64 else dtype\n"
        "    if dtype is None or dtype is own:\n        return node\n",
        "tests/test_dtype.py",
    ),
    Mutant(
        "trap: a checkpoint with wrong keys is loaded",
        "nn/module.py",
        "        if misshapen or (strict and (missing or unexpected)):\n",
        "        if misshapen:\n",
        "tests/nn/test_module.py -k load_state_dict",
    ),
    Mutant(
        "trap: another batch size compiles anew",
        "metaop/var.py",
        "    shape = dynamic_shape(array.shape)\n    node = Buffer(",
        "    shape = array.shape\n    node = Buffer(",
        "tests/test_extent.py tests/compiler/test_program.py",
    ),
    Mutant(
        "trap: a stride of 0 is taken",
        "metaop/convolution.py",
        "    if min(sizes) < least:\n",
        "    if min(sizes) < -9:\n",
        "tests/test_semantics.py -k bad_windows",
    ),
    Mutant(
        "trap: the largest of nothing",
        "metaop/reduction.py",
        "    if 0 in (node.shape[k] for k in axes) and 0 not in (\n",
        "    if False and 0 not in (\n",
        "tests/test_semantics.py -k empty",
    ),
    Mutant(
        "trap: a returned value lies where the next step writes",
        "compiler/program.py",
        "        storages = [Storage(nbytes) for _, nbytes in program.outputs]\n",
        "        kept = program.__dict__.setdefault('kept', [])\n"
        "        kept += [Storage(n) for _, n in program.outputs[len(kept):]]\n"
        "        storages = list(kept)\n",
        "tests/test_var.py -k hundred_losses",
    ),
    Mutant(
        "trap: a replay returns memory of the replay before",
        "metaop/jitted.py",
        "        storages = [Storage(nbytes) for nbytes in self.new_bytes]\n",
        "        kept = self.__dict__.setdefault('kept_new', [])\n"
        "        kept += [Storage(n) for n in self.new_bytes[len(kept):]]\n"
        "        storages = list(kept)\n",
        "tests/test_jit.py -k memory_that_a_later",
    ),
    Mutant(
        "trap: a trace is not guarded by train and eval",
        "metaop/tracing.py",
        "        name = self.name_for(value)\n        if isinstance(value, SIMPLE + (tuple,)):\n",
        "        name = self.name_for(value)\n        if label.endswith('.training'):\n"
        "            return\n        if isinstance(value, SIMPLE + (tuple,)):\n",
        "tests/test_jit.py -k final_state",
    ),
    Mutant(
        "trap: a trace holds the rate of its first call",
        "metaop/tracing.py",
        "        if type(value) is float or (counts and type(value) is int):\n"
        "            number = Tr",
        "        if type(value) is float:\n            return value\n"
        "        if counts and type(value) is int:\n            number = Tr",
        "tests/test_jit.py -k final_state",
    ),
    Mutant(
        "trap: an accumulator that nobody reads grows",
        "metaop/life.py",
        "old.depth >= config.pending_update_depth and old.error is None:",
        "old.depth >= 10**9 and old.error is None:",
        "tests/test_life.py -k unread or accumulator or correct_ones",
    ),
    Mutant(
        "trap: ndarray * Var is an ndarray",
        "metaop/var.py",
        "    __array_ufunc__ = None  # ndarray * Var is left to Var\n",
        "",
        "tests/test_var.py -k on_the_left",
    ),
    Mutant(
        "trap: a Var shares the memory of the array that it was made of",
        "metaop/var.py",
        "    node = Buffer(Storage.of_array(np.asarray(array, own.storage)), shape, own)\n",
        "    array = np.ascontiguousarray(array, own.storage)\n"
        "    node = Buffer(Storage.borrowed(array), shape, own)\n",
        "tests/test_creation.py -k copies",
    ),
    Mutant(
        "trap: a label out of range is trained on",
        "nn/functional/loss.py",
        "    return mo.take_along_axis(x, index, axis=1, negative=False).reshape(label.shape)\n",
        "    index = mo.clip(index, 0, x.shape[1] - 1)\n"
        "    return mo.take_along_axis(x, index, axis=1, negative=False).reshape(label.shape)\n",
        "tests/nn/test_layers.py -k out_of_range",
    ),
    Mutant(
        "trap: a label of -1 is the last class",
        "nn/functional/loss.py",
        "    return mo.take_along_axis(x, index, axis=1, negative=False).reshape(label.shape)\n",
        "    return mo.take_along_axis(x, index, axis=1).reshape(label.shape)\n",
        "tests/nn/test_layers.py -k out_of_range",
    ),
    Mutant(
        "trap: an index of -1 is the last row of an embedding",
        "nn/functional/embedding.py",
        "    rows = mo.take(weight, input, axis=0, negative=False)\n    if padding_idx",
        "    rows = mo.take(weight, input, axis=0)\n    if padding_idx",
        "tests/nn/test_layers.py -k torch_refuses",
    ),
    Mutant(
        "trap: one_hot of what is no class is zeros",
        "nn/functional/shape.py",
        "    return mo.take(mo.eye(classes, dtype=mo.int64), tensor, axis=0, negative=False)\n",
        "    return mo.one_hot(tensor, classes, dtype=mo.int64)\n",
        "tests/nn/test_layers.py -k torch_refuses",
    ),
    Mutant(
        "trap: sums depend on the number of threads",
        "compiler/passes/split.py",
        "        shared = min(MOST_PIECES, -(-ENOUGH_RESULTS // results), terms // PIECE)\n",
        "        from ..executor import executor\n\n"
        "        shared = min(8 * executor().threads, terms // 64)\n",
        "tests/test_same_bits.py -k threads_layers",
    ),
    Mutant(
        "trap: a forked child waits for the threads of its parent",
        "compiler/executor.py",
        "            os.register_at_fork(after_in_child=self._after_fork)\n",
        "            pass\n",
        "tests/test_same_bits.py -k fork",
    ),
    Mutant(
        "trap: every batch size has an arena of its own",
        "compiler/program.py",
        "        if nbytes > self.nbytes or self._block is None:\n",
        "        known = self.__dict__.setdefault('known', {})\n"
        "        if nbytes not in known:\n"
        "            known[nbytes] = aligned_bytes(max(nbytes, ALIGNMENT))\n"
        "            self.nbytes += nbytes\n"
        "        return known[nbytes][1]\n"
        "        if nbytes > self.nbytes or self._block is None:\n",
        "tests/test_memory.py",
    ),
]
MUTANTS += TRAPS
