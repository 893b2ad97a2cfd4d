"""A user's function of indices as a function of numbers, in Python source: `mo.kernel`.

    LIMIT = 0.1                          def halved_5b1e(x0):           x0 is x[i]
    def halved(i, x):                        value = x0
        value = x[i]               ->        while value > 0.1:
        while value > LIMIT:                     value = value / 2
            value = value / 2                return value
        return value

What it reads of operands, at indices that depend on no value, are parameters, with its indices and
the extents that it asks for.  Numbers that it finds outside are written into it, functions that it
calls are written before it: so the source is all there is to know of it, and its key.  Whatever is
not here (other statements, whole arrays, what may raise) cannot be part of a kernel: `NotScalar`
says what, and where.
"""

from __future__ import annotations

import ast
import builtins
import copy
import functools
import hashlib
import inspect
import math
import re
import types
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from .errors import NotScalar
from .graph import ScalarFunction


class ScalarForm(NamedTuple):
    """A function of the numbers of some loops, of elements of operands and of extents, in this
    order.

    reads: the number of the operand, and its index as code over the function's parameters; extents:
    the number of the operand and the axis.
    """

    function: ScalarFunction
    loops: tuple[int, ...]
    reads: tuple[tuple[int, types.CodeType], ...]
    extents: tuple[tuple[int, int], ...]


def scalar_form(function: Callable[..., Any], rank: int) -> ScalarForm:
    """The function of `rank` indices and some operands as one of numbers; else NotScalar."""
    definition = _definition(function)
    names = [a.arg for a in definition.args.args]
    arguments = definition.args
    if arguments.vararg or arguments.kwarg or arguments.kwonlyargs or arguments.posonlyargs:
        raise NotScalar("it has parameters other than plain ones")
    helpers: dict[Any, tuple[str, str]] = {}
    writer = _Writer(function, definition, names[:rank], names[rank:], helpers)
    body = writer.body()
    loops = tuple(k for k, name in enumerate(names[:rank]) if name in writer.used)
    parameters = [names[k] for k in loops]
    parameters += [name for name, _ in writer.reads.values()]
    parameters += list(writer.extents.values())
    label = getattr(function, "__name__", "kernel")
    plain = re.sub(r"\W", "", label)
    text = "".join(source + "\n\n\n" for _, source in helpers.values())
    text += _source(plain, parameters, body)
    name = f"{plain}_{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    text = text[: text.rindex(f"def {plain}(")] + _source(name, parameters, body)
    return ScalarForm(
        ScalarFunction(name, label, text),
        loops,
        tuple((operand, code) for (operand, _), (_, code) in writer.reads.items()),
        tuple(writer.extents),
    )


def _source(name: str, parameters: list[str], body: list[ast.stmt]) -> str:
    head = f"def {name}({', '.join(parameters)}):"
    lines = ast.unparse(ast.Module(body, [])).splitlines()
    return "\n".join([head, *("    " + line for line in lines)])


# --------------------------------------------------------------------------------- finding source


def _definition(function: Any) -> ast.FunctionDef:
    """The statement that defines a function, checked to be that of its bytecode."""
    code = getattr(function, "__code__", None)
    if code is None:
        raise NotScalar("it is no Python function")
    try:
        lines, _ = inspect.findsource(code)
    except (OSError, TypeError, IndexError):
        raise NotScalar("its source is not at hand") from None
    tree, codes = _parsed("".join(lines))
    names = code.co_varnames[: code.co_argcount]
    found = [
        node
        for node in _at_line(tree, code.co_firstlineno)
        if tuple(a.arg for a in node.args.args) == names
    ]
    known = [c for c in codes if c.co_firstlineno == code.co_firstlineno]
    if len(found) > 1:
        raise NotScalar("its line has another function with these parameters")
    if not found or not any(_key_of(c) == _key_of(code) for c in known):
        raise NotScalar("its source has changed")
    return _as_definition(found[0])


@functools.lru_cache(maxsize=16)
def _parsed(text: str) -> tuple[ast.Module, list[types.CodeType]]:
    """A file, and the code of all functions in it."""
    try:
        tree = ast.parse(text)
        codes = [compile(tree, "<source>", "exec", dont_inherit=True)]
    except SyntaxError:
        raise NotScalar("its source is not at hand") from None
    for code in codes:  # which grows meanwhile
        codes += [c for c in code.co_consts if isinstance(c, types.CodeType)]
    return tree, codes


def _at_line(tree: ast.Module, line: int) -> Iterator[ast.FunctionDef | ast.Lambda]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            if min([node.lineno, *(d.lineno for d in node.decorator_list)]) == line:
                yield node
        elif isinstance(node, ast.Lambda) and node.lineno == line:
            yield node


def _as_definition(found: ast.FunctionDef | ast.Lambda) -> ast.FunctionDef:
    """The function without decorators, defaults and annotations; a lambda as one that returns."""
    args = copy.deepcopy(found.args)
    args.defaults = []
    for arg in args.args:
        arg.annotation = None
    body: list[ast.stmt]
    body = [ast.Return(found.body)] if isinstance(found, ast.Lambda) else found.body
    made = ast.parse("def f(): pass").body[0]
    assert isinstance(made, ast.FunctionDef)
    made.args, made.body = args, copy.deepcopy(body)
    return ast.fix_missing_locations(made)


def _key_of(code: types.CodeType) -> Any:
    constants = tuple(
        _key_of(c) if isinstance(c, types.CodeType) else (type(c).__name__, repr(c))
        for c in code.co_consts
    )
    return code.co_code, constants, code.co_names, code.co_varnames, code.co_freevars


# --------------------------------------------------------------------------------------- writing

_OPERATORS = (
    ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.LShift, ast.RShift,
    ast.BitAnd, ast.BitOr, ast.BitXor,
)  # fmt: skip
_COMPARISONS = (ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Eq, ast.NotEq)
_BUILTINS = {abs: (1, 1), int: (1, 1), float: (1, 1), bool: (1, 1), round: (1, 1),
             min: (2, 9), max: (2, 9)}  # fmt: skip
_BINARY = ("pow", "atan2", "hypot", "copysign")
_FLOATS = """sqrt exp exp2 expm1 log log2 log10 log1p sin cos tan asin acos atan sinh cosh tanh
    asinh acosh atanh erf erfc lgamma fabs""".split()
_NAMES = {"arcsin": "asin", "arccos": "acos", "arctan": "atan", "arctan2": "atan2",
          "arcsinh": "asinh", "arccosh": "acosh", "arctanh": "atanh", "power": "pow",
          "absolute": "fabs"}  # fmt: skip
_WHOLE, _TESTS = ("floor", "ceil", "trunc"), ("isnan", "isinf", "isfinite")


class _Writer(ast.NodeTransformer):
    """Writes the body of a function anew, without what it reads from outside."""

    def __init__(
        self,
        function: types.FunctionType | Any,
        definition: ast.FunctionDef,
        indices: list[str],
        operands: list[str],
        helpers: dict[Any, tuple[str, str]],
        callers: tuple[Any, ...] = (),
    ):
        self.function, self.definition = function, definition
        self.operands = {name: k for k, name in enumerate(operands)}
        self.helpers, self.callers = helpers, (*callers, function)
        stored = [n for n in ast.walk(definition) if isinstance(n, ast.Name)]
        self.assigned = {n.id for n in stored if not isinstance(n.ctx, ast.Load)}
        self.parameters = {a.arg for a in definition.args.args}
        self.fixed = [name for name in indices if name not in self.assigned]
        self.taken = {n.id for n in stored} | self.parameters
        self.used: set[str] = set()
        self.reads: dict[tuple[int, str], tuple[str, types.CodeType]] = {}
        self.extents: dict[tuple[int, int], str] = {}

    def body(self) -> list[ast.stmt]:
        """The statements of the function."""
        statements = self.definition.body
        if ast.get_docstring(self.definition) is not None:
            statements = statements[1:]
        if not _always_returns(statements):
            raise NotScalar("it may end without a return")
        return [self.visit(s) for s in copy.deepcopy(statements)]

    def refuse(self, node: ast.AST, what: str) -> NotScalar:
        return NotScalar(f"{what}: {ast.unparse(node).splitlines()[0]}")

    def fresh(self, name: str) -> str:
        """A name like this one that the function does not have."""
        while name in self.taken:
            name += "_"
        self.taken.add(name)
        return name

    def outside(self, name: str) -> Any:
        """What a name means that is no local one; NotScalar if nothing."""
        code = self.function.__code__
        if name in code.co_freevars:
            return inspect.getclosurevars(self.function).nonlocals[name]
        elif name in self.function.__globals__:
            return self.function.__globals__[name]
        elif hasattr(builtins, name):
            return getattr(builtins, name)
        raise NotScalar(f"{name} is not defined")

    # -- statements ---------------------------------------------------------------------------

    def generic_visit(self, node: ast.AST) -> ast.AST:
        raise self.refuse(node, "it has what a kernel cannot hold")

    def parts(self, node: ast.AST) -> Any:
        return super().generic_visit(node)

    def visit_Return(self, node: ast.Return) -> Any:
        if node.value is None or isinstance(node.value, ast.Tuple):
            raise self.refuse(node, "it returns no number")
        return self.parts(node)

    def visit_Assign(self, node: ast.Assign) -> Any:
        targets = [self.target(t) for t in node.targets]
        value = node.value
        if isinstance(value, ast.Tuple):
            new: ast.expr = ast.Tuple([self.visit(v) for v in value.elts], ast.Load())
        else:
            new = self.visit(value)
        return ast.copy_location(ast.Assign(targets, new), node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> Any:
        if node.value is None:
            return ast.copy_location(ast.Pass(), node)
        return self.visit_Assign(ast.copy_location(ast.Assign([node.target], node.value), node))

    def visit_AugAssign(self, node: ast.AugAssign) -> Any:
        self.target(node.target)
        self.check(node, node.op)
        return ast.copy_location(ast.AugAssign(node.target, node.op, self.visit(node.value)), node)

    def target(self, node: ast.expr) -> Any:
        """What is assigned to: names of numbers."""
        if isinstance(node, ast.Tuple):
            return ast.Tuple([self.target(t) for t in node.elts], ast.Store())
        if not isinstance(node, ast.Name):
            raise self.refuse(node, "it writes into an array")
        if node.id in self.operands:
            raise self.refuse(node, "it gives an operand's name to something else")
        if node.id in self.parameters:
            self.used.add(node.id)
        return node

    def visit_For(self, node: ast.For) -> Any:
        match node:
            case ast.For(
                target=ast.Name(), iter=ast.Call(func=ast.Name(id=name), args=args), orelse=[]
            ) if not self.is_local(name) and self.outside(name) is range:
                pass
            case _:
                raise self.refuse(node.iter, "it loops over something other than a range")
        if len(args) == 3 and not _is_number(args[2]):
            raise self.refuse(node.iter, "the step of a range is no number")
        steps = _call("range", *(self.visit(a) for a in args))
        body = [self.visit(s) for s in node.body]
        return ast.copy_location(ast.For(self.target(node.target), steps, body, []), node)

    def visit_While(self, node: ast.While) -> Any:
        if node.orelse:
            raise self.refuse(node, "it has what a kernel cannot hold")
        return self.parts(node)

    def visit_If(self, node: ast.If) -> Any:
        return self.parts(node)

    def visit_Break(self, node: ast.Break) -> Any:
        return node

    def visit_Continue(self, node: ast.Continue) -> Any:
        return node

    def visit_Pass(self, node: ast.Pass) -> Any:
        return node

    # -- expressions --------------------------------------------------------------------------

    def is_local(self, name: str) -> bool:
        return name in self.assigned or name in self.parameters

    def visit_Name(self, node: ast.Name) -> Any:
        if node.id in self.operands:
            raise self.refuse(node, "it uses an operand as a whole")
        if self.is_local(node.id):
            self.used.add(node.id)
            return node
        return self.number(node, self.outside(node.id))

    def number(self, node: ast.expr, value: Any) -> Any:
        for kind in (bool, int, float):
            if isinstance(value, kind):  # of a class of their own, perhaps
                return ast.copy_location(_literal(kind(value)), node)
        raise self.refuse(node, "it uses something that is no number")

    def visit_Attribute(self, node: ast.Attribute) -> Any:
        return self.number(node, self.attribute(node))

    def attribute(self, node: ast.Attribute) -> Any:
        """What an attribute of a module is."""
        names = [node.attr]
        base = node.value
        while isinstance(base, ast.Attribute):
            names.append(base.attr)
            base = base.value
        found = None
        if isinstance(base, ast.Name) and not self.is_local(base.id):
            found = self.outside(base.id)
            for name in reversed(names):
                found = getattr(found, name, None) if isinstance(found, types.ModuleType) else None
        if found is None:
            raise self.refuse(node, "it uses something that is no number")
        return found

    def visit_Constant(self, node: ast.Constant) -> Any:
        return self.number(node, node.value)

    def visit_BinOp(self, node: ast.BinOp) -> Any:
        if isinstance(node.op, ast.Pow):
            return self.power(node)
        self.check(node, node.op)
        return ast.copy_location(
            ast.BinOp(self.visit(node.left), node.op, self.visit(node.right)), node
        )

    def check(self, node: ast.AST, op: ast.operator) -> None:
        if not isinstance(op, _OPERATORS):
            raise self.refuse(node, "it has what a kernel cannot hold")

    def power(self, node: ast.BinOp) -> Any:
        """A whole power stays, another is one of floats."""
        exponent = self.visit(node.right)
        if not isinstance(exponent, ast.Constant):
            raise self.refuse(node, "the exponent is no number")
        base = self.visit(node.left)
        if isinstance(exponent.value, int) and 0 <= exponent.value <= 64:
            return ast.copy_location(ast.BinOp(base, ast.Pow(), exponent), node)
        return ast.copy_location(_call("math_pow", base, exponent), node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> Any:
        return ast.copy_location(ast.UnaryOp(node.op, self.visit(node.operand)), node)

    def visit_BoolOp(self, node: ast.BoolOp) -> Any:
        return ast.copy_location(ast.BoolOp(node.op, [self.visit(v) for v in node.values]), node)

    def visit_Compare(self, node: ast.Compare) -> Any:
        if not all(isinstance(op, _COMPARISONS) for op in node.ops):
            raise self.refuse(node, "it has what a kernel cannot hold")
        parts = [self.visit(v) for v in node.comparators]
        return ast.copy_location(ast.Compare(self.visit(node.left), node.ops, parts), node)

    def visit_IfExp(self, node: ast.IfExp) -> Any:
        return self.parts(node)

    def visit_Subscript(self, node: ast.Subscript) -> Any:
        base = node.value
        if isinstance(base, ast.Attribute) and base.attr == "shape":
            return self.extent(node, base.value, node.slice)
        if not isinstance(base, ast.Name) or base.id not in self.operands:
            raise self.refuse(node, "it uses something that is no number")
        key = (self.operands[base.id], ast.unparse(node.slice))
        if key not in self.reads:
            name = self.fresh(f"{base.id}{sum(k == key[0] for k, _ in self.reads)}")
            self.reads[key] = (name, self.index(node.slice))
        return ast.copy_location(ast.Name(self.reads[key][0], ast.Load()), node)

    def index(self, key: ast.expr) -> types.CodeType:
        """An index as code over the function's parameters."""
        for part in ast.walk(key):
            if isinstance(part, ast.Name) and part.id not in self.operands:
                if self.is_local(part.id) and part.id not in self.fixed:
                    raise self.refuse(key, "it reads where only a value says")
        new = _Index(self).visit(copy.deepcopy(key))
        return compile(ast.fix_missing_locations(ast.Expression(new)), "<index>", "eval")

    def extent(self, node: ast.expr, base: ast.expr, axis: ast.expr) -> Any:
        if not isinstance(base, ast.Name) or base.id not in self.operands:
            raise self.refuse(node, "it uses something that is no number")
        if not isinstance(axis, ast.Constant) or not isinstance(axis.value, int):
            raise self.refuse(node, "it asks for the extent of some axis")
        key = (self.operands[base.id], axis.value)
        if key not in self.extents:
            self.extents[key] = self.fresh(f"{base.id}_extent{axis.value}")
        return ast.copy_location(ast.Name(self.extents[key], ast.Load()), node)

    def visit_Call(self, node: ast.Call) -> Any:
        if node.keywords or any(isinstance(a, ast.Starred) for a in node.args):
            raise self.refuse(node, "it has what a kernel cannot hold")
        called = self.called(node)
        if called is len and len(node.args) == 1:
            return self.extent(node, node.args[0], ast.Constant(0))
        args = [self.visit(a) for a in node.args]
        return ast.copy_location(self.call(node, called, args), node)

    def called(self, node: ast.Call) -> Any:
        if isinstance(node.func, ast.Attribute):
            return self.attribute(node.func)
        if isinstance(node.func, ast.Name) and not self.is_local(node.func.id):
            return self.outside(node.func.id)
        raise self.refuse(node, "it calls what a kernel cannot hold")

    def call(self, node: ast.Call, called: Any, args: list[ast.expr]) -> ast.expr:
        least, most = _BUILTINS.get(called, (1, 0)) if _is_hashable(called) else (1, 0)
        if least <= len(args) <= most:
            return _call(called.__name__, *args)
        name = _float_function(called)
        if name is not None and len(args) == 1 + (name in _BINARY):
            found = _call("math_" + name, *args)
            if name in _TESTS:
                return ast.Compare(found, [ast.NotEq()], [ast.Constant(0)])
            whole = name in _WHOLE and getattr(math, name, None) is called
            return _call("int", found) if whole else found
        inner = getattr(called, "py_func", called)
        if not isinstance(inner, types.FunctionType):
            raise self.refuse(node, "it calls what a kernel cannot hold")
        if inner is not called and getattr(called, "targetoptions", {}).get("fastmath"):
            raise self.refuse(node, "it calls a function with fastmath")
        return _call(self.helper(node, inner), *args)

    def helper(self, node: ast.Call, function: types.FunctionType) -> str:
        """The name of a function of numbers that this one calls, which is written before it."""
        if function in self.callers:
            raise self.refuse(node, "it calls itself")
        if function not in self.helpers:
            definition = _definition(function)
            names = [a.arg for a in definition.args.args]
            if len(names) != len(node.args):
                raise self.refuse(node, "it calls a function with other arguments than it has")
            writer = _Writer(function, definition, names, [], self.helpers, self.callers)
            body = writer.body()
            plain = re.sub(r"\W", "", function.__name__)
            text = _source(plain, names, body)
            name = f"{plain}_{hashlib.sha256(text.encode()).hexdigest()[:8]}"
            self.helpers[function] = (name, _source(name, names, body))
        return self.helpers[function][0]


class _Index(ast.NodeTransformer):
    """An index with numbers for what it finds outside."""

    def __init__(self, writer: _Writer):
        self.writer = writer

    def visit_Name(self, node: ast.Name) -> Any:
        if node.id in self.writer.operands or self.writer.is_local(node.id):
            return node
        return self.writer.number(node, self.writer.outside(node.id))

    def visit_Call(self, node: ast.Call) -> Any:
        arrays = self.writer.operands
        if self.writer.called(node) is len and isinstance(node.args[0], ast.Name):
            if node.args[0].id in arrays:
                shape = ast.Attribute(node.args[0], "shape", ast.Load())
                return ast.Subscript(shape, ast.Constant(0), ast.Load())
        raise self.writer.refuse(node, "it reads where only a value says")


def _literal(value: bool | int | float) -> ast.expr:
    if isinstance(value, float) and math.isnan(value):
        return ast.Name("nan", ast.Load())
    size = abs(value) if type(value) is not bool else value
    plain = ast.Name("inf", ast.Load()) if size == math.inf else ast.Constant(size)
    return ast.UnaryOp(ast.USub(), plain) if math.copysign(1, value) < 0 else plain


def _call(name: str, *args: ast.expr) -> ast.Call:
    return ast.Call(ast.Name(name, ast.Load()), list(args), [])


def _is_number(node: ast.expr) -> bool:
    inner = node.operand if isinstance(node, ast.UnaryOp) else node
    return isinstance(inner, ast.Constant) and bool(inner.value)


def _is_hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def _float_function(called: Any) -> str | None:
    """The operator that a function of math or numpy is."""
    name = getattr(called, "__name__", "")
    name = _NAMES.get(name, name)
    if name not in (*_FLOATS, *_BINARY, *_WHOLE, *_TESTS):
        return None
    known = (getattr(m, n, None) for m in (math, np) for n in (name, called.__name__))
    return name if any(called is one for one in known) else None


def _always_returns(statements: list[ast.stmt]) -> bool:
    """True if a function surely ends with a return."""
    last = statements[-1] if statements else None
    match last:
        case ast.Return():
            return True
        case ast.If():
            return _always_returns(last.body) and _always_returns(last.orelse)
        case ast.While(test=ast.Constant(value=True)):
            return not any(isinstance(n, ast.Break) for n in ast.walk(last))
    return False
