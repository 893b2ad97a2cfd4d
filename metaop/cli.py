"""The command line.  Every command is a line of `COMMANDS`: its arguments, and what runs it.

Exit status: 0 done; 1 done, and something is wrong (`cache verify`, `doctor`); 2 the command, its
target or the target's own code failed, said in one line; 130 Ctrl-C; 141 the reader of the output
went away.  METAOP_TRACEBACK=full shows where an error comes from.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import NamedTuple

from .compiler.cache import Cache, cache
from .errors import CompilerBug
from .targets import check_call, load_target, make_inputs, one_line

FAILED, INTERRUPTED, PIPE_CLOSED = 2, 130, 141


class Command(NamedTuple):
    """One command: what it is for, commands that run, its arguments, what it does."""

    help: str
    examples: tuple[str, ...]
    arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        status = COMMANDS[options.command].run(options)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        _leave_pipe()
        return PIPE_CLOSED
    except CompilerBug as bug:
        print(f"metaop: {bug}", file=sys.stderr)
        return FAILED
    except (Exception, SystemExit) as error:
        if os.environ.get("METAOP_TRACEBACK") == "full":
            traceback.print_exc()
        print(f"metaop: {one_line(error)}", file=sys.stderr)
        return FAILED


def _leave_pipe() -> None:
    """Nobody reads: what is still buffered goes nowhere, not into a second error at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parser() -> argparse.ArgumentParser:
    from . import __version__

    first = [command.examples[0] for command in COMMANDS.values()]
    parser = _with_examples(argparse.ArgumentParser, "Look at what metaop makes of a program.",
                            first, prog="metaop")  # fmt: skip
    parser.add_argument("--version", action="version", version=f"metaop {__version__}")
    parsers = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    for name, command in COMMANDS.items():
        one = _with_examples(parsers.add_parser, None, command.examples, name=name,
                             help=command.help)  # fmt: skip
        command.arguments(one)
    return parser


def _with_examples(make: Callable[..., argparse.ArgumentParser], description: str | None,
                   examples: Sequence[str], **options: str) -> argparse.ArgumentParser:  # fmt: skip
    return make(
        description=description or options.get("help"),
        epilog="\n  ".join(["examples:", *examples]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        **options,
    )


def _target_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", metavar="TARGET", help="file.py:name or module:name")
    parser.add_argument(
        "--input", default="", help="made inputs, such as 'f32[256,1,28,28],i64[256]'"
    )
    parser.add_argument("--train", action="store_true", help="add loss, backward and optimiser")


def _output_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", help="write to a file instead of the terminal")


def _print_to(text: str, output: str | None) -> None:
    if output is None:
        print(text, end="" if text.endswith("\n") else "\n")
    else:
        with open(output, "w", encoding="utf-8") as out:
            out.write(text)


# ---------------------------------------------------------------------------------------- dump


def _dump_arguments(parser: argparse.ArgumentParser) -> None:
    from .inspection import STAGES

    _target_arguments(parser)
    parser.add_argument("--stage", choices=(*STAGES, "all"), default="graph")
    parser.add_argument("--format", choices=("text",), default="text")
    _output_argument(parser)


def _dump(options: argparse.Namespace) -> int:
    from .inspection import called, dump

    target, name = load_target(options.target)
    inputs = make_inputs(options.input)
    target = called(target)
    check_call(target, inputs, name)
    text = dump(
        target, options.stage, options.output, inputs=inputs, train=options.train, title=name
    )
    if options.output is None:
        print(text, end="")
    return 0


# --------------------------------------------------------------------------------------- cache


def _cache_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=tuple(CACHE_ACTIONS), nargs="?", default="size")


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


# ------------------------------------------------------------------------------------ commands

COMMANDS: dict[str, Command] = {
    "dump": Command(
        "print a stage of what a Var, function or module becomes",
        (
            "metaop dump examples/lenet_bn.py:lenet --input 'f32[256,1,28,28]' --stage loops",
            "metaop dump examples/lenet_bn.py:lenet --input 'f32[8,1,28,28]' --train "
            "--stage source -o step.py",
        ),
        _dump_arguments,
        _dump,
    ),
    "cache": Command(
        "look after the compiled code on disk",
        ("metaop cache size", "metaop cache verify"),
        _cache_arguments,
        _cache,
    ),
}


if __name__ == "__main__":
    sys.exit(main())
