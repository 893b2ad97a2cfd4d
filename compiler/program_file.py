"""Programs as bytes, for the disk cache: plain numbers and the names of the kernels they launch.

What is only for looking at (loop IR, nests) is left out; a program with host calls has no bytes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from metaop.dtype import as_dtype

from .cache import cache
from .fingerprint import program_entry
from .kernels import stored_kernels
from .program import FailedCheck, HostCall, KernelLaunch, Program, Temporary


def stored(structure: object, compile_program: Callable[[], Program]) -> Program:
    """The program of a structure from disk, or compiled and put there."""
    store = cache()
    name = program_entry(structure) if store is not None else None
    if store is None or name is None:
        return compile_program()
    content = store.read(name)
    program = from_bytes(content) if content is not None else None
    if program is None:
        program = compile_program()
        content = to_bytes(program)
        if content is not None:
            store.write(name, content, durable=True)
    return program


def to_bytes(program: Program) -> bytes | None:
    """The program, None if a part of it is known to this process only."""
    if any(isinstance(segment, HostCall) for segment in program.segments):
        return None
    names = list(dict.fromkeys(launch.code.name for launch in program.launches))
    number = {name: k for k, name in enumerate(names)}
    plain = {
        "kernels": names,
        "inputs": [[slot, dtype.name, is_number] for slot, dtype, is_number in program.inputs],
        "outputs": [[slot, encode_integer(nbytes)] for slot, nbytes in program.outputs],
        "temporaries": [
            [slot, encode_integer(nbytes), first, last]
            for slot, nbytes, first, last in program.temporaries
        ],
        "results": program.results,
        "kept": program.kept,
        "segments": [
            [[_encode_launch(launch, number) for launch in phase] for phase in segment]
            for segment in program.segments
            if not isinstance(segment, HostCall)
        ],
        "checks": [
            [check.position, encode_integer(check.low), encode_integer(check.high)]
            for check in program.checks
        ],
        "slots": program.slots,
    }
    return json.dumps(plain, separators=(",", ":")).encode()


def from_bytes(content: bytes) -> Program | None:
    """The program of bytes, None if one of its kernels is not to be had any more."""
    plain = json.loads(content)
    names = plain["kernels"]
    kernels = stored_kernels(names)
    if kernels is None:
        return None

    def launch(row: list[Any]) -> KernelLaunch:
        number, slots, integers, chunks, scratch = row
        name = names[number]
        return KernelLaunch(
            name, None, kernels[name], slots, [decode_integer(n) for n in integers],
            decode_integer(chunks), decode_integer(scratch), None,
        )  # fmt: skip

    return Program(
        inputs=[(slot, as_dtype(name), is_number) for slot, name, is_number in plain["inputs"]],
        outputs=[(slot, decode_integer(nbytes)) for slot, nbytes in plain["outputs"]],
        temporaries=[
            Temporary(slot, decode_integer(nbytes), first, last)
            for slot, nbytes, first, last in plain["temporaries"]
        ],
        results=[(kind, number) for kind, number in plain["results"]],
        kept=[(position, number) for position, number in plain["kept"]],
        segments=[[[launch(row) for row in phase] for phase in seg] for seg in plain["segments"]],
        checks=[
            FailedCheck(position, decode_integer(low), decode_integer(high))
            for position, low, high in plain["checks"]
        ],
        slots=plain["slots"],
    )


def _encode_launch(launch: KernelLaunch, number: dict[str, int]) -> list[Any]:
    return [
        number[launch.code.name], launch.slots, [encode_integer(n) for n in launch.integers],
        encode_integer(launch.chunks), encode_integer(launch.scratch),
    ]  # fmt: skip


def encode_integer(value: int) -> Any:
    """A size, an offset, a count as JSON.  The one place to extend when a kind of number that is
    known only for given inputs joins the plain ones: `decode_integer` must give it back."""
    return int(value)


def decode_integer(value: Any) -> int:
    """What `encode_integer` was given."""
    return int(value)
