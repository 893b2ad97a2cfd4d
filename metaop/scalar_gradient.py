"""Derivatives of functions of numbers, as functions of numbers: forward mode, on their source.

    def halved(x0):                          def halved_d0(x0):
        value = x0                               value, d_value = (x0, 1.0)
        while value > 0.1:          ->           while value > 0.1:
            value = value / 2                        value, d_value = (value / 2, d_value / 2)
        return value                             return d_value

A variable that depends on the parameter has a second one beside it, its derivative.  Conditions
stay as they are.  The result is in the same language, so that it can be differentiated again.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import math
from collections.abc import Iterator

from .errors import NotScalar
from .graph import ScalarFunction

Derivative = ast.expr | None  # None is 0

# The derivative of f(x) where that of x is d; the table of `metaop.grad` in source.
_UNARY = {
    "sqrt": "math_div(d, 2.0 * math_sqrt(x))", "exp": "d * math_exp(x)",
    "exp2": f"d * math_exp2(x) * {math.log(2)!r}", "expm1": "d * math_exp(x)",
    "log": "math_div(d, x)", "log2": f"math_div(d, x * {math.log(2)!r})",
    "log10": f"math_div(d, x * {math.log(10)!r})", "log1p": "math_div(d, x + 1.0)",
    "sin": "d * math_cos(x)", "cos": "-(d * math_sin(x))",
    "tan": "d * (math_tan(x) ** 2 + 1.0)", "asin": "math_div(d, math_sqrt(1.0 - x * x))",
    "acos": "-math_div(d, math_sqrt(1.0 - x * x))", "atan": "math_div(d, x * x + 1.0)",
    "sinh": "d * math_cosh(x)", "cosh": "d * math_sinh(x)",
    "tanh": "d * (1.0 - math_tanh(x) ** 2)", "asinh": "math_div(d, math_sqrt(x * x + 1.0))",
    "acosh": "math_div(d, math_sqrt(x * x - 1.0))", "atanh": "math_div(d, 1.0 - x * x)",
    "erf": f"d * math_exp(-(x * x)) * {2 / math.sqrt(math.pi)!r}",
    "erfc": f"d * math_exp(-(x * x)) * {-2 / math.sqrt(math.pi)!r}",
    "lgamma": "d * math_digamma(x)", "fabs": "d if x > 0 else -d if x < 0 else 0.0 * d",
}  # fmt: skip
_CONSTANT = ("floor", "ceil", "trunc", "isnan", "isinf", "isfinite")
# Of f(a, b), one for each parameter.
_BINARY = {
    "pow": ("d * b * math_pow(a, b - 1.0) if b != 0 else 0.0 * d",
            "d * math_pow(a, b) * math_log(a) if a != 0 else 0.0 * d"),
    "div": ("math_div(d, b)", "-math_div(d * math_div(a, b), b)"),
    "atan2": ("math_div(d * b, a * a + b * b)", "-math_div(d * a, a * a + b * b)"),
    "hypot": ("math_div(d * a, math_hypot(a, b))", "math_div(d * b, math_hypot(a, b))"),
    "copysign": ("d * math_copysign(1.0, a) * math_copysign(1.0, b)", "0.0 * d"),
}  # fmt: skip
_OPERATORS: dict[type[ast.operator], tuple[str, str]] = {
    ast.Add: ("d", "d"),
    ast.Sub: ("d", "-d"),
    ast.Mult: ("d * b", "a * d"),
    ast.Div: ("d / b", "-(a / b * d / b)"),
    ast.Mod: ("d", "-(a // b * d)"),
}
_LESS_OR_MORE = {"min": "<", "max": ">"}


@functools.lru_cache(maxsize=1024)
def derivative(function: ScalarFunction, parameter: int) -> ScalarFunction:
    """The derivative of a function by one of its parameters; NotScalar if there is no rule."""
    *helpers, main = ast.parse(function.source).body
    functions = {f.name: f for f in (*helpers, main) if isinstance(f, ast.FunctionDef)}
    writer = _Functions(functions)
    made = writer.derivative(function.name, parameter)
    label = f"{function.label}_d{parameter}"
    others = [ast.unparse(f) for f in (*helpers, *writer.made.values()) if f is not made]
    text = "\n\n\n".join([*others, ast.unparse(made)])
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    made.name = f"{function.name.rpartition('_')[0]}_d{parameter}_{digest}"
    text = "\n\n\n".join([*others, ast.unparse(made)])
    return ScalarFunction(made.name, label, text)


class _Functions:
    """The functions of a source and the derivatives that are made of them."""

    def __init__(self, functions: dict[str, ast.FunctionDef]):
        self.functions = functions
        self.made: dict[tuple[str, int], ast.FunctionDef] = {}

    def derivative(self, name: str, parameter: int) -> ast.FunctionDef:
        """The derivative of one of them; its own helpers are made before it."""
        key = (name, parameter)
        if key not in self.made:
            self.made[key] = _Differentiator(self, self.functions[name], parameter).function()
        return self.made[key]


class _Differentiator:
    """Writes the derivative of one function."""

    def __init__(self, functions: _Functions, definition: ast.FunctionDef, parameter: int):
        self.functions, self.definition, self.parameter = functions, definition, parameter
        names = {n.id for n in ast.walk(definition) if isinstance(n, ast.Name)}
        names |= {a.arg for a in definition.args.args}
        seed = definition.args.args[parameter].arg
        self.beside = {seed: _fresh("d_" + seed, names)}
        self.constant = {seed}
        self._find_dependent(names)
        if any(seed in _names(t) for t in _targets(definition)):
            self.constant = set()

    def _find_dependent(self, names: set[str]) -> None:
        """Names that depend on the parameter, from one pass to the next until there are no more."""
        known = 0
        while known != len(self.beside):
            known = len(self.beside)
            for targets, values in _assignments(self.definition):
                for name, value in zip(targets, values):
                    if name not in self.beside and self.of(value) is not None:
                        self.beside[name] = _fresh("d_" + name, names)

    def function(self) -> ast.FunctionDef:
        """The function that returns the derivative."""
        body = self.block(self.definition.body)
        if not self.constant:
            seed = self.definition.args.args[self.parameter].arg
            body = [_assign([self.beside[seed]], [ast.Constant(1.0)]), *body]
        made = ast.parse("def f(): pass").body[0]
        assert isinstance(made, ast.FunctionDef)
        made.name = f"{self.definition.name}_d{self.parameter}"
        made.args, made.body = self.definition.args, body
        return ast.fix_missing_locations(made)

    # -- statements ---------------------------------------------------------------------------

    def block(self, body: list[ast.stmt]) -> list[ast.stmt]:
        return [self.statement(s) for s in body]

    def statement(self, stmt: ast.stmt) -> ast.stmt:
        match stmt:
            case ast.Return(value=ast.expr() as value):
                return ast.Return(_or_zero(self.of(value)))
            case ast.If():
                return ast.If(stmt.test, self.block(stmt.body), self.block(stmt.orelse))
            case ast.While():
                return ast.While(stmt.test, self.block(stmt.body), [])
            case ast.For(target=ast.Name(id=name)):
                body = self.block(stmt.body)
                if name in self.beside:
                    body.insert(0, _assign([self.beside[name]], [ast.Constant(0.0)]))
                return ast.For(stmt.target, stmt.iter, body, [])
            case ast.Assign() | ast.AugAssign():
                return self.assignment(stmt)
        return stmt

    def assignment(self, stmt: ast.Assign | ast.AugAssign) -> ast.stmt:
        """The assignment, and that of the derivatives from the values before it."""
        targets, values = _assigned(stmt)
        more = [k for k, name in enumerate(targets) if name in self.beside]
        names = [*targets, *(self.beside[targets[k]] for k in more)]
        return _assign(names, [*values, *(_or_zero(self.of(values[k])) for k in more)])

    # -- expressions --------------------------------------------------------------------------

    def of(self, e: ast.expr) -> Derivative:
        """The derivative of an expression."""
        match e:
            case ast.Name(id=name):
                if name in self.constant:
                    return ast.Constant(1.0)
                beside = self.beside.get(name)
                return None if beside is None else ast.Name(beside, ast.Load())
            case ast.UnaryOp(op=ast.USub(), operand=inner):
                d = self.of(inner)
                return None if d is None else ast.UnaryOp(ast.USub(), d)
            case ast.UnaryOp(op=ast.UAdd(), operand=inner):
                return self.of(inner)
            case ast.IfExp(test=test, body=yes, orelse=no):
                return self.chosen(test, self.of(yes), self.of(no))
            case ast.BinOp(op=ast.Pow(), left=base, right=ast.Constant(value=n)):
                return self.power(base, n)  # type: ignore[arg-type]
            case ast.BinOp(op=op, left=left, right=right):
                return self.binary(_OPERATORS.get(type(op)), left, right)
            case ast.Call():
                return self.call(e)
            case ast.BoolOp() if any(self.of(v) is not None for v in e.values):
                raise NotScalar(f"{ast.unparse(e)} has no derivative")
        return None

    def chosen(self, test: ast.expr, yes: Derivative, no: Derivative) -> Derivative:
        if yes is None and no is None:
            return None
        return ast.IfExp(test, _or_zero(yes), _or_zero(no))

    def power(self, base: ast.expr, n: int) -> Derivative:
        d = self.of(base)
        if d is None or n == 0:
            return None
        return d if n == 1 else _filled(f"{n} * a ** {n - 1} * d", a=base, d=d)

    def binary(self, rules: tuple[str, str] | None, left: ast.expr, right: ast.expr) -> Derivative:
        total: Derivative = None
        for rule, part in zip(rules or (), (left, right)):
            d = self.of(part)
            if d is not None:
                term = _filled(rule, a=left, b=right, d=d)
                total = term if total is None else ast.BinOp(total, ast.Add(), term)
        return total

    def call(self, e: ast.Call) -> Derivative:
        assert isinstance(e.func, ast.Name)
        name = e.func.id
        kind = name.removeprefix("math_")
        if name in self.functions.functions:
            return self.of_function(name, e.args)
        if name in _LESS_OR_MORE:
            return self.extreme(name, e.args)
        if kind in _BINARY and name != kind:
            return self.binary(_BINARY[kind], *e.args)
        d = self.of(e.args[0])
        if d is None or name in ("int", "bool", "round") or kind in _CONSTANT:
            return None
        if name == "float":
            return d
        rule = _UNARY.get({"abs": "fabs"}.get(name, kind))
        if rule is None:
            raise NotScalar(f"{kind} has no derivative here")
        return _filled(rule, x=e.args[0], d=d)

    def of_function(self, name: str, args: list[ast.expr]) -> Derivative:
        """The sum over the parameters."""
        total: Derivative = None
        for k, arg in enumerate(args):
            d = self.of(arg)
            if d is not None:
                made = self.functions.derivative(name, k)
                partial = ast.Call(ast.Name(made.name, ast.Load()), args, [])
                term = ast.BinOp(partial, ast.Mult(), d)
                total = term if total is None else ast.BinOp(total, ast.Add(), term)
        return total

    def extreme(self, name: str, args: list[ast.expr]) -> Derivative:
        """Of min and max: that of the argument which it is; equal ones share."""
        first, *rest = args
        d = self.of(first)
        for other in rest:
            e = self.of(other)
            if d is not None or e is not None:
                sign = _LESS_OR_MORE[name]
                rule = f"d if a {sign} b else e if b {sign} a else 0.5 * (d + e)"
                d = _filled(rule, a=first, b=other, d=_or_zero(d), e=_or_zero(e))
            first = ast.Call(ast.Name(name, ast.Load()), [first, other], [])
        return d


def _or_zero(d: Derivative) -> ast.expr:
    return ast.Constant(0.0) if d is None else d


def _fresh(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def _filled(rule: str, **parts: ast.expr) -> ast.expr:
    """The expression of a rule with expressions for its names."""

    class Fill(ast.NodeTransformer):
        def visit_Name(self, node: ast.Name) -> ast.expr:
            return parts.get(node.id, node)

    return Fill().visit(ast.parse(rule, mode="eval").body)


def _assign(names: list[str], values: list[ast.expr]) -> ast.stmt:
    targets: list[ast.expr] = [ast.Name(n, ast.Store()) for n in names]
    if len(names) == 1:
        return ast.Assign(targets, values[0])
    return ast.Assign([ast.Tuple(targets, ast.Store())], ast.Tuple(values, ast.Load()))


def _assigned(stmt: ast.Assign | ast.AugAssign) -> tuple[list[str], list[ast.expr]]:
    """The names that a statement assigns to, and their values."""
    if isinstance(stmt, ast.AugAssign):
        assert isinstance(stmt.target, ast.Name)
        old = ast.Name(stmt.target.id, ast.Load())
        return [stmt.target.id], [ast.BinOp(old, stmt.op, stmt.value)]
    names: list[str] = []
    values: list[ast.expr] = []
    for target in stmt.targets:
        if isinstance(target, ast.Tuple):
            if not isinstance(stmt.value, ast.Tuple):
                raise NotScalar(f"{ast.unparse(stmt)} has no derivative")
            names += [n.id for n in target.elts if isinstance(n, ast.Name)]
            values += stmt.value.elts
        elif isinstance(target, ast.Name):
            names.append(target.id)
            values.append(stmt.value)
    return names, values


def _assignments(definition: ast.FunctionDef) -> Iterator[tuple[list[str], list[ast.expr]]]:
    for stmt in ast.walk(definition):
        if isinstance(stmt, ast.Assign | ast.AugAssign):
            yield _assigned(stmt)


def _targets(definition: ast.FunctionDef) -> Iterator[ast.expr]:
    for stmt in ast.walk(definition):
        match stmt:
            case ast.Assign(targets=targets):
                yield from targets
            case ast.AugAssign(target=target) | ast.For(target=target):
                yield target


def _names(e: ast.expr) -> set[str]:
    return {n.id for n in ast.walk(e) if isinstance(n, ast.Name)}
