"""What a command works on: TARGET and --input of the command line as objects.

file.py:name  module:name  file.py:net.features     TARGET: the file is imported, not run
f32[256,1,28,28],i64[256]                           --input: made from their types
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import re
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from .dtype import as_dtype
from .errors import MetaopError, is_own
from .inspection import called, outputs_of, training_step
from .jitted import jit as compiled
from .var import Var, assign_all, sync


class TargetError(MetaopError, ValueError):
    """What a command was given names nothing that it can work on."""


# ------------------------------------------------------------------------------------- targets


def load_target(text: str) -> tuple[Any, str]:
    """The object that `file.py:name` or `module:name` names; the file is imported, not run as
    a script.  A name may have dots: `model.py:net.features`.

    Raises TargetError if there is none, or if importing it fails.
    """
    place, _, name = text.rpartition(":")
    is_file = place.endswith(".py")
    if not name or not (is_file or all(map(str.isidentifier, place.split(".")))):
        raise TargetError(f"TARGET is file.py:name or module:name, not {text!r}")
    target: Any = _import_file(place) if is_file else _import_module(place)
    for part in name.split("."):
        if not hasattr(target, part):
            raise TargetError(f"{place} has no {name!r}{_suggestion(target, part)}")
        target = getattr(target, part)
    return target, name


def _suggestion(target: Any, wrong: str) -> str:
    import difflib

    near = difflib.get_close_matches(wrong, dir(target), 3)
    return f"; there is {', '.join(near)}" if near else ""


def _import_file(path: str) -> Any:
    if not os.path.isfile(path):
        raise TargetError(f"{'not a' if os.path.exists(path) else 'no such'} file: {path}")
    folder = os.path.dirname(os.path.abspath(path))
    if folder not in sys.path:
        sys.path.insert(0, folder)
    name = os.path.splitext(os.path.basename(path))[0]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        sys.modules.pop(name, None)
        raise TargetError(
            f"importing {path} failed: {one_line(error)}{_as_module(path, error)}"
        ) from error
    return module


def _as_module(path: str, error: BaseException) -> str:
    """How to name a file of a package, if it was imported without it."""
    if not (isinstance(error, ImportError) and "relative import" in str(error)):
        return ""
    folder, name = os.path.split(os.path.abspath(path))
    parts = [os.path.splitext(name)[0]]
    while os.path.isfile(os.path.join(folder, "__init__.py")):
        folder, package = os.path.split(folder)
        parts.insert(0, package)
    return f"; write {'.'.join(parts)}:NAME in {folder}" if len(parts) > 1 else ""


def _import_module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise TargetError(f"importing {name} failed: {one_line(error)}") from error


def check_call(target: Any, inputs: Sequence[Var], name: str) -> None:
    """Raises TargetError if a target that is called cannot take these inputs."""
    if not callable(target) or isinstance(target, Var):
        return
    is_class = isinstance(target, type)
    try:
        signature = inspect.signature(target if is_class else getattr(target, "forward", target))
    except (TypeError, ValueError):
        return  # its call will tell
    plain = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
    signature = inspect.Signature(plain)
    if is_class:
        raise TargetError(
            f"{name}{signature} is a class that needs arguments; "
            "a function of none that returns an instance can be a TARGET"
        )
    try:
        signature.bind(*inputs)
    except TypeError as error:
        raise TargetError(
            f"{name}{signature} cannot be called with {len(inputs)} inputs: {error}; "
            "--input makes them, such as --input 'f32[8,3],i64[8]'"
        ) from None


def repeated_step(
    target: Any, inputs: Sequence[Var], name: str, train: bool, jit: bool
) -> Callable[[], None]:
    """A function that computes a target once more at each call, and all that it writes.

    train: a step of training, as `dump` shows it; the parameters are written.
    Raises TargetError if the target is only a value, or cannot take the inputs.
    """
    made = called(target)
    if isinstance(made, Var) or not callable(made):
        made = target  # a function of no arguments that computes something
    if isinstance(made, Var) or not callable(made):
        raise TargetError(f"{name} is a value; a function or Module can be run again")
    check_call(made, inputs, name)

    def training(*given: Var) -> Var:
        loss, *values = training_step(made, outputs_of(made, given))
        assign_all(list(zip(made.parameters(), values)))
        return loss

    function = training if train else made
    if jit:
        function = compiled(function)

    def step() -> None:
        kept = function(*inputs)
        sync()
        del kept

    return step


def one_line(error: BaseException) -> str:
    """An error's type, the first line of its text, and the innermost line that is neither metaop's
    nor of Python's own library."""
    text = str(error).strip().splitlines()
    if isinstance(error, TargetError):
        return text[0]
    message = f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
    if isinstance(error, SyntaxError):
        return message  # it names its line
    where = None
    trace = error.__traceback__
    while trace is not None:
        filename = trace.tb_frame.f_code.co_filename
        if _is_users(filename):
            where = f"{os.path.basename(filename)}:{trace.tb_lineno}"
        trace = trace.tb_next
    return message if where is None or where in message else f"{message} ({where})"


_STANDARD_LIBRARY = os.path.dirname(os.path.abspath(os.__file__)) + os.sep


def _is_users(filename: str) -> bool:
    place = os.path.abspath(filename)
    inside = place.startswith(_STANDARD_LIBRARY) and "-packages" not in place
    return os.path.exists(filename) and not is_own(filename) and not inside


# -------------------------------------------------------------------------------------- inputs


def make_inputs(text: str) -> list[Var]:
    """Vars for 'f32[256,1,28,28],i64[256]': floats normally distributed, integers below 10."""
    generator = np.random.default_rng(0)
    made = []
    pattern = re.compile(r"\s*(\w+)\[([\d,\s]*)\]\s*(?:,|$)")
    position = 0
    while position < len(text):
        match = pattern.match(text, position)
        if match is None:
            raise TargetError(f"--input: cannot read {text[position:]!r}; write 'f32[8,3],i64[8]'")
        try:
            dtype = as_dtype(match.group(1))
        except (TypeError, ValueError) as error:
            raise TargetError(f"--input: {error}") from None
        shape = tuple(int(n) for n in match.group(2).split(",") if n.strip())
        draw = generator.standard_normal if dtype.is_float else partial(generator.integers, 0, 10)
        try:
            values = np.asarray(draw(size=shape), "float32" if dtype.is_float else "int64")
            made.append(Var(values, dtype))
        except (MemoryError, ValueError):  # ValueError: more than an address can count
            raise TargetError(f"--input: {match.group().strip(' ,')} is too large") from None
        position = match.end()
    return made
