"""The command line.  Every command is a line of `COMMANDS`: its arguments, and what runs it.

Exit status: 0 done; 1 done, and something is wrong (`cache verify`, `doctor`); 2 the command, its
target or the target's own code failed, said in one line; 130 Ctrl-C (see `command`); 141 the reader
of the output went away.  METAOP_TRACEBACK=full shows where an error comes from.  What the target
itself prints goes to standard error.
"""

from __future__ import annotations

import argparse
import gc
import os
import select
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout, suppress
from typing import NamedTuple

from . import roofline
from .command import end_on_interrupt
from .compiler.cache import Cache, cache
from .compiler.collector import collecting_seldom
from .errors import CompilerBug, count_as_own
from .inspection import FORMATS, STAGES, called, dump
from .profiling import SORT_KEYS, profile
from .targets import TargetError, check_call, load_target, make_inputs, one_line, repeated_step

FAILED, INTERRUPTED, PIPE_CLOSED = 2, 130, 141
WARM_UP = 3  # calls that compile, and fill the caches


class Command(NamedTuple):
    """One command: what it is for, commands that run, its arguments, what it does."""

    help: str
    examples: tuple[str, ...]
    arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit status."""
    if arguments is None:
        end_on_interrupt()
        count_as_own(sys._getframe(1).f_code.co_filename)  # the installed script
    try:
        options = _options(arguments)
        options.alone = arguments is None
        status = _run(options)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        _leave_pipes()
        return PIPE_CLOSED


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command and its options; SystemExit after help, a version or a usage error."""
    try:
        return _parser().parse_args(arguments)
    except SystemExit:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()  # now, so that a closed pipe is no error at exit
        raise


def _run(options: argparse.Namespace) -> int:
    """The exit status of a command, whose error is said in one line."""
    try:
        return COMMANDS[options.command].run(options)
    except CompilerBug as bug:
        print(f"metaop: {bug}", file=sys.stderr)
    except (Exception, SystemExit) as error:
        if isinstance(error, BrokenPipeError) and _nobody_reads():
            raise
        if os.environ.get("METAOP_TRACEBACK") == "full":
            traceback.print_exc()
        print(f"metaop: {one_line(error)}", file=sys.stderr)
    return FAILED


def _nobody_reads() -> bool:
    """Whether a pipe that this process prints to is closed at the other end, not one of a target's
    own.  True where the system cannot tell."""
    if not hasattr(select, "poll"):
        return True
    output = select.poll()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # not a file, such as one that collects a test's output
            output.register(stream.fileno(), 0)  # errors are told unasked
    return bool(output.poll(0))


def _leave_pipes() -> None:
    """Nobody reads: what is still buffered goes nowhere, not into a second error at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            os.dup2(nowhere, stream.fileno())


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
    text = text.rstrip("\n") + "\n"
    if output is None:
        print(text, end="")
    else:
        with open(output, "w", encoding="utf-8") as out:
            out.write(text)


# ---------------------------------------------------------------------------------------- dump


def _dump_arguments(parser: argparse.ArgumentParser) -> None:
    _target_arguments(parser)
    parser.add_argument("--stage", choices=(*STAGES, "all"), default="graph")
    parser.add_argument(
        "--pass", dest="pass_name", metavar="NAME", help="what one pass changes, as a diff"
    )
    parser.add_argument(
        "--kernel", action="append", default=[], metavar="NAME", help="the code of this one only"
    )
    parser.add_argument("--format", choices=FORMATS, default="text")
    _output_argument(parser)


def _dump(options: argparse.Namespace) -> int:
    with redirect_stdout(sys.stderr), collecting_seldom():  # what the target prints
        target, name = load_target(options.target)
        inputs = make_inputs(options.input)
        target = called(target)
        check_call(target, inputs, name)
        text = dump(
            target,
            options.stage,
            format=options.format,
            inputs=inputs,
            train=options.train,
            title=name,
            pass_name=options.pass_name,
            kernels=options.kernel,
        )
        if options.alone:
            gc.freeze()  # nothing of it is looked through before the end of the process frees it
    _print_to(text, options.output)
    return 0


# ------------------------------------------------------------------------------------- summary


def _summary_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "target", metavar="TARGET", help="file.py:name or module:name of a Module, or its maker"
    )
    parser.add_argument("--input", default="", help="made inputs, such as 'f32[1,1,28,28]'")


def _summary(options: argparse.Namespace) -> int:
    with redirect_stdout(sys.stderr):  # what the target prints
        target, name = load_target(options.target)
        inputs = make_inputs(options.input)
        net = called(target)
        if isinstance(net, type):
            check_call(net, inputs, name)
        if not hasattr(net, "named_modules"):
            raise TargetError(f"{name} is of type {type(net).__name__}, summary needs a Module")
        check_call(net, inputs, name)
        text = str(net.summary(*inputs))
    _print_to(text, None)
    return 0


# ------------------------------------------------------------------------------------- profile


def _profile_arguments(parser: argparse.ArgumentParser) -> None:
    _target_arguments(parser)
    parser.add_argument("--jit", action="store_true", help="call the target under mo.jit")
    parser.add_argument("--steps", type=_positive, default=10, help="calls to measure (10)")
    parser.add_argument("--sort", choices=tuple(SORT_KEYS), default="time")
    parser.add_argument("--format", choices=PROFILE_FORMATS, default="text")
    _output_argument(parser)


PROFILE_FORMATS = ("text", "json", "csv", "chrome", "html")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a whole number from 1 on, not {text!r}")
    return int(text)


def _profile(options: argparse.Namespace) -> int:
    if options.jit and options.format == "html":
        raise TargetError("the page shows the program without --jit")
    with redirect_stdout(sys.stderr):  # what the target prints
        target, name = load_target(options.target)
        inputs = make_inputs(options.input)
        step = repeated_step(target, inputs, name, options.train, options.jit)
        for _ in range(WARM_UP):
            step()
        if roofline.known() is None:
            print("measuring the machine's roofline, once: some seconds", file=sys.stderr)
            if roofline.roofline().disturbed:
                print("other programs used the CPUs: no share of it is shown", file=sys.stderr)
        with profile() as found:
            for _ in range(options.steps):
                step()
        text = {
            "text": lambda: found.table(options.sort),
            "json": found.json,
            "csv": lambda: found.csv(options.sort),
            "chrome": found.chrome_trace,
            "html": lambda: dump(target, format="html", inputs=inputs, train=options.train,
                                 title=name, profile=found),
        }[options.format]()  # fmt: skip
    _print_to(text, options.output)
    return 0


# ------------------------------------------------------------------------------------ roofline


def _roofline_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--again", action="store_true", help="measure now, whatever is known")
    parser.add_argument("--threads", type=_positive, help="up to so many (as kernels use)")
    parser.add_argument("--format", choices=("text", "json"), default="text")
    _output_argument(parser)


def _roofline(options: argparse.Namespace) -> int:
    found = roofline.roofline(options.threads, options.again)
    _print_to(found.json() if options.format == "json" else repr(found), options.output)
    return 0


# -------------------------------------------------------------------------------------- doctor


def _doctor_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--format", choices=("text", "json"), default="text")
    _output_argument(parser)


def _doctor(options: argparse.Namespace) -> int:
    from .doctor import examine

    found = examine()
    _print_to(found.json() if options.format == "json" else repr(found), options.output)
    return 1 if found.warnings else 0


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
            "metaop dump examples/lenet_bn.py:lenet --input 'f32[8,1,28,28]' --train "
            "--format html -o step.html",
            "metaop dump examples/lenet_bn.py:lenet --input 'f32[8,1,28,28]' --stage asm "
            "--kernel k0",
            "metaop dump examples/lenet_bn.py:lenet --input 'f32[8,1,28,28]' --pass algebra",
        ),
        _dump_arguments,
        _dump,
    ),
    "profile": Command(
        "run it, and show where the time goes, kernel by kernel",
        (
            "metaop profile examples/lenet_bn.py:lenet --input 'f32[64,1,28,28]' --train",
            "metaop profile examples/lenet_bn.py:lenet --input 'f32[64,1,28,28]' --sort bytes "
            "--format chrome -o trace.json",
            "metaop profile examples/lenet_bn.py:lenet --input 'f32[64,1,28,28]' --train "
            "--format html -o profile.html",
        ),
        _profile_arguments,
        _profile,
    ),
    "summary": Command(
        "list a network's layers, output shapes, parameters and flops",
        ("metaop summary examples/lenet_bn.py:lenet --input 'f32[1,1,28,28]'",),
        _summary_arguments,
        _summary,
    ),
    "roofline": Command(
        "measure what this machine can do at most",
        ("metaop roofline", "metaop roofline --threads 1 --format json"),
        _roofline_arguments,
        _roofline,
    ),
    "doctor": Command(
        "show machine, settings and versions, and what is wrong with them: for bug reports",
        ("metaop doctor", "metaop doctor --format json"),
        _doctor_arguments,
        _doctor,
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
