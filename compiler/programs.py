"""Programs of this process: each once, from memory, from disk, or compiled now.

Everything that a step needs whose program is known, and nothing else: the stages of compilation
are imported by the first program that is new.
"""

from __future__ import annotations

from typing import Any

from metaop.graph import Escape, Node

from . import kernels
from .kernels import compiling
from .keys import structure_of
from .program import Bound, Program
from .program_file import stored

MOST_PROGRAMS = 1024  # of those made last; they hold their kernels in memory
_programs: dict[Any, Bound] = {}


def program_for(nodes: list[Node], asked: list[Node]) -> tuple[Bound, list[Node]]:
    """The program that computes `asked`, from the cache or compiled now, and its leaves."""
    key, leaves = structure_of(nodes, asked)
    program = _programs.get(key)
    if program is None:
        with compiling:
            program = _programs.get(key)
            if program is None:
                program = _made(key, nodes, asked).bind()
                if not any(isinstance(n, Escape) and n.key is None for n in nodes):
                    _programs[key] = program
                    while len(_programs) > MOST_PROGRAMS:
                        _programs.pop(next(iter(_programs)))
    return program, leaves


def _made(key: Any, nodes: list[Node], asked: list[Node]) -> Program:
    def compiled() -> Program:
        from .pipeline import compile_program

        return compile_program(nodes, asked)

    return stored(key, compiled)


def forget() -> None:
    """Drops every cached program and kernel."""
    _programs.clear()
    kernels.forget()
