"""Programs of this process: each once, from memory, from disk, or compiled now.

Everything that a step needs whose program is known, and nothing else: the stages of compilation
are imported by the first program that is new.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from metaop.config import config
from metaop.extent import Extent, map_extents
from metaop.graph import Escape, Node

from . import kernels
from .collector import collecting_seldom
from .kernels import compiling, statistics
from .keys import Canonical, canonical, is_leaf, structure_of
from .program import Bound, Place, Program
from .program_file import stored
from .recent import Recent

_programs = Recent(15_000)  # by key with sizes: bound programs
_structures = Recent(500_000)  # by key without: programs
steps = Recent(15_000)  # of `metaop.repeated`


def program_for(nodes: list[Node], asked: list[Node]) -> tuple[Bound, list[Node]]:
    """The program that computes `asked`, ready to run, and its leaves.

    A step that is repeated finds it by its sizes, another size of a dynamic axis by the structure;
    else it is compiled now.
    """
    key, leaves = structure_of(nodes, asked)
    program = _programs.get(key)
    if program is None:
        with compiling:
            program = _programs.get(key)
            if program is None:
                callbacks = [n for n in nodes if isinstance(n, Escape)]
                with statistics.timed():
                    if all(n.any_size for n in callbacks):
                        program = _bound(nodes, asked)
                    else:  # made for certain sizes
                        program = _compiled(nodes, asked).bind()
                if any(n.key is None for n in callbacks):
                    return program, leaves
                _programs.put(map_extents(key, int), program, len(nodes))
    return program, leaves


def _compiled(
    nodes: list[Node],
    asked: list[Node],
    extents: Callable[[Any], Any] | None = None,
    sizes: Sequence[int] | None = None,
) -> Program:
    from .pipeline import compile_program, numbers

    with collecting_seldom():
        program = compile_program(nodes, asked, extents or numbers, sizes)
    if not config.check:  # METAOP_CHECK keeps them for whoever looks
        program.forget_stages()
    return program


def _bound(nodes: list[Node], asked: list[Node]) -> Bound:
    """The program of a structure, bound to the sizes of these nodes.

    One program serves all sizes that fulfil its guards.  The others have one for sizes of their
    order of magnitude, or one for themselves, and at last one that knows nothing but these: which
    it is depends on the sizes alone.
    """
    form = canonical(nodes, asked)
    magnitude = tuple([1 << (value.bit_length() - 1) for value in form.values])
    for sizes in (None, magnitude, form.values):
        program = _of_structure((form.key, sizes), nodes, asked, form.extents, sizes)
        if program.admits(form.values):
            return program.bind(form.values, _places(form, nodes))
    return _of_structure((form.key, form.values, "exactly"), nodes, asked).bind()


def _places(form: Canonical, nodes: list[Node]) -> list[Place | None]:
    """Where in the shapes of the leaves each symbol of a form is by itself."""
    found: dict[Any, Place] = {}
    for number, leaf in enumerate(filter(is_leaf, nodes)):
        for axis, extent in enumerate(form.extents(leaf.shape)):
            if isinstance(extent, Extent):
                found.setdefault(extent.polynomial, Place(number, axis))
    return [found.get((((("s", k),), 1),)) for k in range(len(form.values))]


def _of_structure(
    key: Any,
    nodes: list[Node],
    asked: list[Node],
    extents: Callable[[Any], Any] | None = None,
    sizes: Sequence[int] | None = None,
) -> Program:
    """The program of a key without sizes, from memory, from disk or compiled now."""
    program = _structures.get(key)
    if program is None:
        printed = map_extents(key, _formula)
        program = stored(printed, lambda: _compiled(nodes, asked, extents, sizes))
        _structures.put(key, program, len(nodes))
    return program


def _formula(n: int) -> Any:
    """An extent by what it is computed from, for a key that is printed."""
    return ("extent", n.polynomial)  # type: ignore[attr-defined]


def forget() -> None:
    """Drops every cached program and kernel."""
    _programs.clear()
    _structures.clear()
    steps.clear()
    kernels.forget()
