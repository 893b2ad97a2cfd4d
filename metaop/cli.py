"""The command line: `metaop dump TARGET` shows what a program becomes; `metaop cache` looks after
the compiled code on disk."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .compiler.cache import Cache, cache
from .dtype import as_dtype
from .errors import MetaopError
from .var import Var

EXAMPLE = """examples:
  metaop dump examples/lenet_bn.py:lenet --input 'f32[256,1,28,28]' --stage loops
  metaop dump examples/lenet_bn.py:lenet --input 'f32[8,1,28,28]' --train --stage source -o step.py
  metaop dump examples/lenet_bn.py:lenet --input 'f32[8,1,28,28]' --train --format html -o step.html
  metaop dump examples/lenet_bn.py:lenet --input 'f32[8,1,28,28]' --stage asm --kernel k0
  metaop dump examples/lenet_bn.py:lenet --input 'f32[8,1,28,28]' --pass algebra
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        return options.run(options)
    except (MetaopError, OSError, ValueError, TypeError, AttributeError, ImportError) as error:
        print(f"metaop: {type(error).__name__}: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    from . import __version__
    from .inspection import FORMATS, STAGES

    parser = argparse.ArgumentParser(
        prog="metaop", description="Look at what metaop makes of a program.", epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--version", action="version", version=f"metaop {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    dump = commands.add_parser(
        "dump", help="print a stage of what a Var, function or module becomes", epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    dump.add_argument("target", help="file.py:name or module:name")
    dump.add_argument(
        "--input", default="", help="made inputs, such as 'f32[256,1,28,28],i64[256]'"
    )
    dump.add_argument("--train", action="store_true", help="add loss, backward and optimiser")
    dump.add_argument("--stage", choices=(*STAGES, "all"), default="graph")
    dump.add_argument(
        "--pass", dest="pass_name", metavar="NAME", help="what one pass changes, as a diff"
    )
    dump.add_argument(
        "--kernel", action="append", default=[], metavar="NAME", help="the code of this one only"
    )
    dump.add_argument("--format", choices=FORMATS, default="text")
    dump.add_argument("-o", "--output", help="write to a file instead of the terminal")
    dump.set_defaults(run=_dump)
    cached = commands.add_parser("cache", help="look after the compiled code on disk")
    cached.add_argument("action", choices=tuple(CACHE_ACTIONS), nargs="?", default="size")
    cached.set_defaults(run=_cache)
    return parser


def _dump(options: argparse.Namespace) -> int:
    from .inspection import dump

    target, name = load_target(options.target)
    text = dump(
        target,
        options.stage,
        options.output,
        format=options.format,
        inputs=make_inputs(options.input),
        train=options.train,
        title=name,
        pass_name=options.pass_name,
        kernels=options.kernel,
    )
    if options.output is None:
        print(text, end="")
    return 0


def _cache(options: argparse.Namespace) -> int:
    store = cache()
    if store is None:
        print("metaop: the disk cache is off", file=sys.stderr)
        return 1
    return CACHE_ACTIONS[options.action](store)


def _where(store: Cache) -> int:
    print(store.folder)
    return 0


def _size(store: Cache) -> int:
    entries = store.entries()
    nbytes = sum(entry.nbytes for entry in entries)
    print(f"{len(entries)} entries, {nbytes:,} of at most {store.limit:,} bytes in {store.folder}")
    return 0


def _list(store: Cache) -> int:
    for entry in store.entries():
        used = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry.used))
        print(f"{used}  {entry.nbytes:>10,}  {entry.name}")
    return 0


def _clear(store: Cache) -> int:
    print(f"{store.clear()} entries removed from {store.folder}")
    return 0


def _verify(store: Cache) -> int:
    broken = store.verify()
    for name in broken:
        print(f"removed {name}: it is broken, or others may have written it")
    print(f"{len(store.entries())} entries are whole")
    return 1 if broken else 0


# where: print the folder; size: entries and bytes; list: the entries, the one used last in the end;
# clear: remove all; verify: remove the broken ones, exit status 1 if there were any.
CACHE_ACTIONS: dict[str, Callable[[Cache], int]] = {
    "where": _where, "size": _size, "list": _list, "clear": _clear, "verify": _verify
}  # fmt: skip


def load_target(text: str) -> tuple[Any, str]:
    """The object that `file.py:name` or `module:name` names; the file is imported, not run as
    a script.  A name may have dots: `model.py:net.features`."""
    place, separator, name = text.rpartition(":")
    if not separator or not name:
        raise ValueError(f"TARGET is file.py:name or module:name, not {text!r}")
    target: Any = _import_file(place) if place.endswith(".py") else importlib.import_module(place)
    for part in name.split("."):
        target = getattr(target, part)
    return target, name


def _import_file(path: str) -> Any:
    if not os.path.exists(path):
        raise FileNotFoundError(f"no such file: {path}")
    sys.path.insert(0, os.path.dirname(os.path.abspath(path)))
    name = os.path.splitext(os.path.basename(path))[0]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def make_inputs(text: str) -> list[Var]:
    """Vars for 'f32[256,1,28,28],i64[256]': floats normally distributed, integers below 10."""
    generator = np.random.default_rng(0)
    made = []
    pattern = r"\s*(\w+)\[([\d,\s]*)\]\s*(?:,|$)"
    position = 0
    while position < len(text):
        match = re.compile(pattern).match(text, position)
        if match is None:
            raise ValueError(f"--input: cannot read {text[position:]!r}; write 'f32[8,3],i64[8]'")
        dtype = as_dtype(match.group(1))
        shape = tuple(int(n) for n in match.group(2).split(",") if n.strip())
        values = (
            generator.standard_normal(shape) if dtype.is_float else generator.integers(0, 10, shape)
        )
        made.append(Var(np.asarray(values, "float32" if dtype.is_float else "int64"), dtype))
        position = match.end()
    return made


if __name__ == "__main__":
    sys.exit(main())
