"""Programs as bytes, for the disk cache: plain data as JSON, kernels by the names of their entries.

    {"tuple": […]}, {"dtype": "float32"}, {"kernel": 3}, {"launch": [field, …]}, … are what JSON has
    no word for; a list, a number, a string, a truth value is itself.

What is only for looking at (loop IR, trees of nests) is left out.  A program with a part that only
this process knows, such as a host call, has no bytes.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

from metaop.config import config
from metaop.dtype import DType, as_dtype
from metaop.extent import Extent, decode, encode
from metaop.graph import Layout

from .cache import cache
from .kernels import LoadedKernel, statistics, stored_kernels
from .program import FailedCheck, Form, KernelLaunch, Program, Temporary, Work

NOT_STORED = ("key", "kernel", "tree")  # of a launch; None, the key its kernel's name, from disk
RECORDS: dict[type, str] = {
    Program: "program", KernelLaunch: "launch", FailedCheck: "check", Temporary: "temporary",
    Work: "work", Form: "form", Layout: "layout",
}  # fmt: skip
FIELDS: dict[str, tuple[str, ...]] = {
    word: tuple(
        name
        for name in (getattr(kind, "_fields", ()) or [f.name for f in dataclasses.fields(kind)])
        if name not in NOT_STORED
    )
    for kind, word in RECORDS.items()
}


class NotPlain(TypeError):
    """A part of a program that has no bytes."""


def stored(structure: object, compile_program: Callable[[], Program]) -> Program:
    """The program of a structure from disk, or compiled and put there.

    Always compiled under METAOP_CHECK, which is to verify the stages.
    """
    from .fingerprint import program_entry  # imports llvmlite, which `import metaop` can spare

    store = cache()
    name = program_entry(structure) if store is not None and not config.check else None
    if store is None or name is None:
        return compile_program()
    content = store.read(name)
    program = from_bytes(content) if content is not None else None
    if program is None:
        program = compile_program()
        content = to_bytes(program)
        if content is not None:
            store.write(name, content, durable=True)
    else:
        statistics.loaded_programs += 1
    return program


def to_bytes(program: Program) -> bytes | None:
    """The program, None if it has no bytes."""
    names = list(dict.fromkeys(launch.code.name for launch in program.launches))
    number = {name: k for k, name in enumerate(names)}
    try:
        plain = {"kernels": names, "content": _encode(program, number)}
    except NotPlain:
        return None
    return json.dumps(plain, separators=(",", ":")).encode()


def from_bytes(content: bytes) -> Program | None:
    """The program of bytes, None if one of its kernels is not to be had any more."""
    plain = json.loads(content)
    found = stored_kernels(plain["kernels"])
    if found is None:
        return None
    program = _decode(plain["content"], [found[name] for name in plain["kernels"]])
    assert isinstance(program, Program)
    return program


def _encode(value: Any, number: dict[str, int]) -> Any:
    kind = type(value)
    if kind in (int, str, bool) or value is None:
        return value
    if kind is list:
        return [_encode(part, number) for part in value]
    if kind is tuple:
        return {"tuple": [_encode(part, number) for part in value]}
    if kind is DType:
        return {"dtype": value.name}
    if kind is LoadedKernel:
        return {"kernel": number[value.name]}
    word = RECORDS.get(kind)
    if word is not None:
        return {word: [_encode(getattr(value, name), number) for name in FIELDS[word]]}
    return {"integer": encode_integer(value)}


def _decode(value: Any, kernels: list[LoadedKernel]) -> Any:
    kind = type(value)
    if kind is list:
        return [_decode(part, kernels) for part in value]
    if kind is not dict:
        return value
    ((word, content),) = value.items()
    if word == "tuple":
        return tuple([_decode(part, kernels) for part in content])
    if word == "dtype":
        return as_dtype(content)
    if word == "kernel":
        return kernels[content]
    if word == "integer":
        return decode_integer(content)
    return _record(word, [_decode(part, kernels) for part in content])


def _record(word: str, parts: list[Any]) -> Any:
    fields = dict(zip(FIELDS[word], parts))
    if word == "launch":
        fields.update(key=fields["code"].name, kernel=None, tree=None)
    kind = next(kind for kind, known in RECORDS.items() if known == word)
    return kind(**fields)


def encode_integer(value: Any) -> Any:
    """An integer of a class of its own as JSON: a formula over sizes, or a plain argument."""
    if isinstance(value, Extent):
        return encode(value)
    if isinstance(value, int):
        return int(value)
    raise NotPlain(f"no bytes for {value!r}")


def decode_integer(content: Any) -> Any:
    """What `encode_integer` was given."""
    return decode(content)
