"""Jittor's notation for index expressions: strings such as "i1*2+i3" or "@e0(i0)".

`/` and `%` have C's meaning (they truncate), as in Jittor; `i0 i1 …` are loop indices, `xshape0`,
`oshape1` … extents of the input and the output, `@eK(…)` a read of the K-th extra Var.
Parsed by Python's own parser into the tuples of `metaop.index`; nothing is executed.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping

from .errors import IndexExpressionError
from .index import Expr, is_condition

_BINARY = {
    ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.Div: "div", ast.FloorDiv: "div",
    ast.Mod: "rem",
}  # fmt: skip
_LOGICAL = {ast.BitAnd: "and", ast.BitOr: "or"}
_COMPARE = {
    ast.Lt: ("lt", False), ast.LtE: ("le", False), ast.Gt: ("lt", True), ast.GtE: ("le", True),
    ast.Eq: ("eq", False), ast.NotEq: ("ne", False),
}  # fmt: skip

_EXTRA = "_extra"  # what @e becomes, so that Python can parse it


def parse(text: str, rank: int, names: Mapping[str, int] | None = None) -> Expr:
    """The expression written in `text` over loop indices i0 … i(rank-1).

    names: further integers by name (xshape0, oshape0 …).  Raises IndexExpressionError with the
    place of the fault.
    """
    if "~" in text:
        raise IndexExpressionError(f"index expression {text!r}: ~ is not allowed; write !")
    source = text.replace("&&", " and ").replace("||", " or ").replace("@e", _EXTRA)
    # C's ! binds as tightly as Python's ~, Python's not does not
    source = source.replace("!=", "\0").replace("!", "~").replace("\0", "!=")
    try:
        tree = ast.parse(source.strip(), mode="eval").body
    except SyntaxError as error:
        raise IndexExpressionError(f"index expression {text!r}: {error.msg}") from None
    return _convert(tree, text, rank, names or {})


def _convert(tree: ast.AST, text: str, rank: int, names: Mapping[str, int]) -> Expr:
    def go(t: ast.AST) -> Expr:
        return _convert(t, text, rank, names)

    match tree:
        case ast.Constant(value=bool() as value):
            return ("true",) if value else ("not", ("true",))
        case ast.Constant(value=int() as value):
            return value
        case ast.Name(id=name):
            return _name(name, text, rank, names)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return ("sub", 0, go(operand))
        case ast.UnaryOp(op=ast.Invert() | ast.Not(), operand=operand):
            return ("not", _condition(go(operand)))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            return (_BINARY[type(op)], go(left), go(right))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _LOGICAL:
            a, b = go(left), go(right)
            if is_condition(a) and is_condition(b):
                return (_LOGICAL[type(op)], a, b)
        case ast.BoolOp(op=op, values=values):
            kind = "and" if isinstance(op, ast.And) else "or"
            result = _condition(go(values[0]))
            for part in values[1:]:
                result = (kind, result, _condition(go(part)))
            return result
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _COMPARE:
            kind, swap = _COMPARE[type(op)]
            a, b = go(left), go(right)
            return (kind, b, a) if swap else (kind, a, b)
        case ast.IfExp(test=test, body=body, orelse=orelse):
            return ("where", _condition(go(test)), go(body), go(orelse))
        case ast.Call(func=ast.Name(id="min" | "max" as name), args=[a, b], keywords=[]):
            return (name, go(a), go(b))
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name[:6] == _EXTRA:
            if name[6:].isdigit():
                return ("read", int(name[6:]), tuple(map(go, args)), None)
    raise IndexExpressionError(
        f"index expression {text!r}: {ast.unparse(tree)!r} is not allowed; use integers, "
        "i0 i1 …, + - * / %, comparisons, && || !, @e0(…)"
    )


def _condition(e: Expr) -> Expr:
    """An integer used as a condition means e != 0."""
    return e if is_condition(e) else ("ne", e, 0)


def _name(name: str, text: str, rank: int, names: Mapping[str, int]) -> Expr:
    if name in names:
        return names[name]
    if name[0] == "i" and name[1:].isdigit():
        if int(name[1:]) < rank:
            return ("i", int(name[1:]))
        raise IndexExpressionError(
            f"index expression {text!r}: {name} does not exist, there are {rank} loop indices"
        )
    raise IndexExpressionError(f"index expression {text!r}: unknown name {name!r}")
