"""fetching: the last loops of an iteration ask for what the next iteration reads first.

    for i0 in grid:                                  for i0 in grid:
      for i1: acc += x[i0*3136 + i1]                   for i1: acc += x[i0*3136 + i1]
      for i2: y[…] = x[i0*3136 + i2] * acc      ->     for i2: fetch x[ahead0 + i0*3136 + i2]
                                                               y[…] = x[i0*3136 + i2] * acc

The first loops of an iteration wait for memory, the last ones find in a cache what those have read:
so memory works throughout.  Only where the loops of an iteration read the same elements more than
once, of a buffer that hardly is in a cache already, and if what one iteration reads stays in one
until it is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from metaop.extent import hint, minimum
from metaop.index import TRUE, loops_of, terms_of

from .loops import Fetch, Load
from .nest import Buffer, dependencies

if TYPE_CHECKING:
    from .schedule.levels import Level, Stage

LEAST_BUFFER = 1 << 20  # bytes that a cache may hold from one program to the next
LEAST_AHEAD, MOST_AHEAD = 1 << 10, 1 << 22  # bytes of an iteration that are fetched
LEAST_STEPS = 4  # iterations of a loop, so that the next one mostly is one of it


def fetch_ahead(
    stages: Sequence[Stage], around: Level, extents: Sequence[int], integers: dict[str, int]
) -> None:
    """Adds the fetches to the stages of one iteration of the loop `around` them; what they need to
    know of a launch goes to `integers`."""
    step = around.loops[-1] if around.loops else -1
    if len(stages) < 2 or step < 0 or hint(extents[step]) < LEAST_STEPS:
        return
    written = {nest.target for stage in stages for nest in stage.nests}
    last_reader: dict[Buffer, Stage] = {}
    first_reader: dict[Buffer, Stage] = {}
    for stage in stages:
        for nest in stage.nests:
            for buffer in nest.reads:
                first_reader.setdefault(buffer, stage)
                last_reader[buffer] = stage
    for buffer, stage in last_reader.items():
        again = first_reader[buffer] is not stage and buffer not in written
        if again and buffer.role != "local" and hint(buffer.nbytes) >= LEAST_BUFFER:
            _fetch(stage, buffer, step, extents, integers)


def _fetch(
    stage: Stage, buffer: Buffer, step: int, extents: Sequence[int], integers: dict[str, int]
) -> None:
    """Lets the innermost loop of a stage fetch the elements of a buffer that are read there in the
    next iteration, if it reads one in each of its iterations, in order."""
    loads = {(load.offset, load.guard) for load in _loads(stage, buffer)}
    if len(loads) != 1 or not stage.levels or stage.levels[-1].kind[:1] != ("vector",):
        return
    ((offset, guard),) = loads
    (vector,) = stage.levels[-1].loops
    terms = terms_of(offset, extents)
    distance = terms.get(("i", step), 0)
    opaque = {k for atom in terms if atom is not None and atom[0] != "i" for k in loops_of(atom)}
    if terms.get(("i", vector)) != 1 or distance == 0 or guard != TRUE or opaque & {vector, step}:
        return
    inner = {k for level in stage.levels for k in level.loops}
    nbytes = buffer.dtype.itemsize
    for atom in terms:
        if atom is not None and atom[0] == "i" and atom[1] in inner:
            nbytes *= extents[atom[1]]
    if not LEAST_AHEAD <= hint(nbytes) <= MOST_AHEAD:
        return
    name = f"ahead{len(integers)}"
    integers[name] = distance * minimum(1, MOST_AHEAD // nbytes)
    stage.levels[-1].before.insert(0, Fetch(buffer.name, ("add", offset, ("val", name))))


def _loads(stage: Stage, buffer: Buffer) -> Iterator[Load]:
    """The loads from a buffer in a stage."""
    for nest in stage.nests:
        for value, _ in dependencies(nest):
            if isinstance(value, Load) and nest.buffers[value.buffer] is buffer:
                yield value
