"""schedule: from a tree of nests to a kernel: order of loops, tiles, the vector loops, the grid.

    out[i0, i1] = sum over i2 of a[i0*K + i2] * b[i2*N + i1]
 -> grid i0 tile, i1 block:
      vector i1:
        acc[tile] = 0
        serial i2:
          unroll tile: acc += a[…] * b[…]
        unroll tile: out[…] = acc

    m[i0] = max over i1 of x[i0*N + i1];  y[i0, i1] = x[i0*N + i1] - m[i0]     (one root loop)
 -> grid i0:
      acc = -inf;  vector i1: acc max= x[i0*N + i1];  m = acc
      vector i1: y[i0*N + i1] = x[i0*N + i1] - m

The order in which a reduction adds up depends on its nest alone, never on threads or on what
shares its kernel.
"""

from .integers import LITERAL_EXTENT
from .levels import Level, Stage
from .rewriting import distinct_names, map_nest, map_values, permuted, tree_of
from .scheduler import MOST_CHUNKS, SMALL_WORK, Scheduled, runs_across, schedule, vector_of_root
from .vector_cost import VectorCost, adds_in_lanes

__all__ = [
    "LITERAL_EXTENT", "Level", "MOST_CHUNKS", "SMALL_WORK", "Scheduled", "Stage", "VectorCost",
    "adds_in_lanes", "distinct_names", "map_nest", "map_values", "permuted", "runs_across",
    "schedule", "tree_of", "vector_of_root",
]  # fmt: skip
