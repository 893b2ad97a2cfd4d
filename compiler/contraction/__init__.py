"""contraction: a sum of products as one kernel of register tiles over packed panels.

    out[b, m, n] = sum over k of A(b, m, k) * B(b, n, k)

 -> grid b, block of m, block of n:
      serial block of k:
        pack A, pack B                      into scratch, by evaluating their index maps
        serial tile of n, tile of m:
          vector lane:
            acc[i][j] = 0
            serial k:  acc[i][j] fma= A[i], B[j]
            out[…] = acc[i][j]              or partial sums, if there are more blocks of k

Every loop of a contraction is of one class: batch (both factors and the result), M (one factor and
the result), N (the other and the result) or K (summed).  N is the class with the loop along which
the result lies contiguous in memory.  A class may have several loops or none; nothing here knows
what they stand for.  A factor is any expression over its loops: it is evaluated once per element of
a panel, and 0 where the nest's guard does not hold, so windows, strides, borders and residue
classes are matters of packing alone.

Three forms.  *outer*: vectors along N, panel B as rows of n for each k.  *dot*: vectors along K,
both panels as rows of k; for factors that lie contiguous along K, which to turn around would cost
more.  *direct* (direct.py): windows with few rows of M or none, taps unrolled.

Where the taps of a window would repeat the elements of a factor, its panel can hold them once, as
they lie: of B in blocks of N (blocks.Windows), of A in blocks of K (taps.py).  Taps that see only
the border from a tile of columns are left out (borders.py).

Rows of a block that the second cache has no room for are passed by all columns in groups.  Where
the kernel learns how many rows there are, the last few of a block are computed in lower tiles, and
blocks have a round number of them.

A few loops of the batch may be *layers*: where what follows makes its results of those of several
batches, a block is computed for all of them before that is done.

A contraction may be turned: M and N in each other's place, vectors across the rows of the result.
A panel whose memory runs along the other of its axes, and results that do, are turned in squares of
16 x 16 in registers, results run by run, so that no vector has some of two.

The order of additions depends on extents, index maps, the target's registers and, where its
processors decide for *outer* or *dot*, on how many there are, but on no number of threads: k in
order (dot: 16 sums side by side, added up in a fixed tree at the end) within a chain of at most
LONGEST_CHAIN products, then chain after chain, block after block.
"""

from __future__ import annotations

from metaop.extent import recording_guards
from metaop.index import loops_of

from ..nest import Nest, Tree
from ..schedule import distinct_names
from .blocks import choose
from .build import Builder, Plan
from .classify import Contraction, classify, pays, prepared
from .direct import FEW_ROWS, SOME_ROWS, Direct, choose_direct, rows_of

__all__ = ["Plan", "plan"]


def plan(work: Tree | Nest, name: str) -> Plan | None:
    """The kernels of a contraction and of maps that read its result where they write their own;
    None where loops without packing serve it better."""
    tree = distinct_names(work if isinstance(work, Tree) else Tree(work.rank, [work]))
    nest, after = tree.nests[0], tree.nests[1:]
    if not nest.contraction or tree.last:
        return None
    if any(other.op is not None or other.named or other.checks for other in after):
        return None
    nest = nest.having(carried=tuple(("i", k) for k in range(nest.rank)))
    ready, exists = prepared(nest)
    divided = len(ready.extents) > sum(n != 1 for n in nest.extents)
    found = classify(ready, exists)
    if found is None or not _layered(found, ready, tree):
        return None
    direct = None if found.layers else choose_direct(found)
    blocks = None
    with recording_guards():  # what only costs are decided by restricts no sizes
        if found.m and not (direct and rows_of(direct[0]) <= FEW_ROWS) and pays(found, divided):
            blocks = choose(found)
        unfolds = blocks is not None and blocks[1].windows is None  # panels repeat B for every tap
    if direct is not None and (blocks is None or (unfolds and rows_of(direct[0]) <= SOME_ROWS)):
        return Direct(*direct, name, tree, after).plan()
    return None if blocks is None else Builder(*blocks, name, tree, after).plan()


def _layered(c: Contraction, nest: Nest, tree: Tree) -> bool:
    """Notes which loops are layers, those inside the root loops; False if some cannot be."""
    inner = [e for e in nest.carried[tree.root :] if e != 0]
    c.layers = [e[1] for e in inner if e[0] == "i" and e[1] in c.batch]
    conditions = (c.exists, c.whole, *(end for end, _ in c.ends.values()))
    varying = set().union(*map(loops_of, conditions))
    plain = len(c.layers) == len(inner) and not varying & set(c.layers)
    return plain and (not inner or nest.target.role == "local")
