"""Elementwise operators, conversions and memory access as LLVM instructions, on scalars or on
vectors of 16 lanes alike."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from llvmlite import ir

from metaop import dtype as dt
from metaop.dtype import DType
from metaop.errors import CompilerBug

from . import machine, vecmath

LANES = 16
BOOL, I8, I16, I32, I64 = (ir.IntType(n) for n in (1, 8, 16, 32, 64))
HALF, FLOAT, DOUBLE = ir.HalfType(), ir.FloatType(), ir.DoubleType()
_FLOATS = {dt.float16: HALF, dt.float32: FLOAT, dt.float64: DOUBLE}
_INTEGERS = {1: I8, 2: I16, 4: I32, 8: I64}


def memory_type(dtype: DType) -> Any:
    """How one element lies in memory; bool is a byte, bfloat16 a 16-bit integer."""
    if dtype in _FLOATS:
        return _FLOATS[dtype]
    return _INTEGERS[dtype.itemsize]


def register_type(dtype: DType) -> Any:
    """How one element is held while it is computed with."""
    return BOOL if dtype is dt.bool_ else memory_type(dtype)


_constants: dict[tuple[str, str], Any] = {}  # by type and digits: 0.0 equals -0.0, NaN nothing
MOST_CONSTANTS = 10_000


def constant(kind: Any, value: Any) -> Any:
    """A constant; for a vector type the same in every lane."""
    key = (str(kind), repr(value))
    found = _constants.get(key)
    if found is None:
        vector = isinstance(kind, ir.VectorType)
        found = _remembered(key, ir.Constant(kind, [value] * kind.count if vector else value))
    return found


def lane_constants(element: Any, values: list[int]) -> Any:
    """A vector of integers."""
    key = (str(element), repr(values))
    found = _constants.get(key)
    if found is None:
        kind = ir.VectorType(element, len(values))
        found = _remembered(key, ir.Constant(kind, values))
    return found


def _remembered(key: tuple[str, str], made: Any) -> Any:
    """A constant that other kernels share: making and printing 16 lanes takes longer than the rest
    of an instruction."""
    if len(_constants) >= MOST_CONSTANTS:
        _constants.clear()
    _constants[key] = made
    return made


def iota(integer: Any, step: int = 1) -> Any:
    """0, step, 2*step, …"""
    return lane_constants(integer, [k * step for k in range(LANES)])


def is_vector(value: Any) -> bool:
    """True for a vector of lanes."""
    return isinstance(getattr(value, "type", None), ir.VectorType)


def element_of(kind: Any) -> Any:
    """The type of one lane."""
    return kind.element if isinstance(kind, ir.VectorType) else kind


def _suffix(kind: Any) -> str:
    element = element_of(kind)
    name = {HALF: "f16", FLOAT: "f32", DOUBLE: "f64"}.get(element) or f"i{element.width}"
    return f"v{kind.count}{name}" if isinstance(kind, ir.VectorType) else name


def _bits_of(number: float, dtype: DType) -> Any:
    """A Python number as a constant of a dtype's memory type."""
    if dtype is dt.bfloat16:
        bits = struct.unpack("<I", struct.pack("<f", float(number)))[0]
        return bits >> 16
    if dtype.is_float:
        return _float(float(number), dtype)
    value = int(number)
    width = 8 * dtype.itemsize
    value &= (1 << width) - 1
    return value - (1 << width) if value >> (width - 1) and dtype.kind == "i" else value


def _float(number: float, dtype: DType) -> float:
    """The number rounded to the dtype: overflow to infinity instead of an error."""
    if dtype is dt.float64 or number != number or number in (float("inf"), float("-inf")):
        return number
    code = "<f" if dtype is dt.float32 else "<e"
    try:
        return struct.unpack(code, struct.pack(code, number))[0]
    except OverflowError:
        return float("inf") if number > 0 else float("-inf")


class Builder:
    """Wraps llvmlite's builder."""

    def __init__(self, raw: Any):
        self.raw = raw

    # -- constants and vectors ----------------------------------------------------------------

    def const(self, dtype: DType, number: Any, vector: bool) -> Any:
        """A number in a register."""
        if dtype is dt.bool_:
            value: Any = int(bool(number))
        else:
            value = _bits_of(number, dtype)
        kind = register_type(dtype)
        return constant(ir.VectorType(kind, LANES) if vector else kind, value)

    def memory_const(self, dtype: DType, number: Any) -> Any:
        """A vector of a number as it lies in memory."""
        value = int(bool(number)) if dtype is dt.bool_ else _bits_of(number, dtype)
        return constant(ir.VectorType(memory_type(dtype), LANES), value)

    def splat(self, scalar: Any) -> Any:
        """A scalar in every lane."""
        if isinstance(scalar, ir.Constant):
            return constant(ir.VectorType(scalar.type, LANES), scalar.constant)
        kind = ir.VectorType(scalar.type, LANES)
        undefined = ir.Constant(kind, ir.Undefined)
        first = self.raw.insert_element(undefined, scalar, constant(I32, 0))
        return self.raw.shuffle_vector(first, undefined, constant(ir.VectorType(I32, LANES), 0))

    def as_vector(self, value: Any) -> Any:
        """A vector, made of a scalar if need be."""
        return value if is_vector(value) else self.splat(value)

    def call(self, name: str, result: Any, *args: Any) -> Any:
        """A call of a function declared by its name."""
        module = self.raw.module
        function = module.globals.get(name)
        if function is None:
            function = ir.Function(module, ir.FunctionType(result, [a.type for a in args]), name)
        return self.raw.call(function, args)

    def intrinsic(self, name: str, *args: Any) -> Any:
        """An LLVM intrinsic overloaded on the type of its arguments."""
        return self.call(f"{name}.{_suffix(args[0].type)}", args[0].type, *args)

    def any_lane(self, mask: Any) -> Any:
        """True if any lane is."""
        return self.call(f"llvm.vector.reduce.or.v{LANES}i1", BOOL, mask)

    def first_lane(self, value: Any, mask: Any) -> Any:
        """The first lane whose mask is set."""
        bits = self.raw.bitcast(mask, I16)
        position = self.call("llvm.cttz.i16", I16, bits, constant(BOOL, 0))
        return self.raw.extract_element(value, self.raw.zext(position, I32))

    def across_lanes(self, op: str, vector: Any, dtype: DType) -> Any:
        """All lanes combined, halves first."""
        count = LANES
        while count > 1:
            half = count // 2
            undefined = ir.Constant(vector.type, ir.Undefined)
            low, high = (
                self.raw.shuffle_vector(vector, undefined, lane_constants(I32, list(lanes)))
                for lanes in (range(half), range(half, count))
            )
            vector, count = self.combine(op, low, high, dtype), half
        return self.raw.extract_element(vector, constant(I32, 0))

    def transposed(self, rows: list[Any]) -> list[Any]:
        """Sixteen vectors as the columns of sixteen: blocks of 8x8, then 4x4, … change places."""
        rows = list(rows)
        distance = LANES // 2
        while distance:
            lanes = range(LANES)
            low = [k + LANES - distance if k & distance else k for k in lanes]
            high = [k + LANES if k & distance else k + distance for k in lanes]
            for first in range(LANES):
                if not first & distance:
                    a, b = rows[first], rows[first + distance]
                    for position, taken in ((first, low), (first + distance, high)):
                        mask = lane_constants(I32, taken)
                        rows[position] = self.raw.shuffle_vector(a, b, mask)
            distance //= 2
        return rows

    # -- memory -------------------------------------------------------------------------------

    def to_register(self, value: Any, dtype: DType) -> Any:
        """What was loaded, as it is computed with."""
        if dtype is not dt.bool_:
            return value
        return self.raw.icmp_unsigned("!=", value, constant(value.type, 0))

    def to_memory(self, value: Any, dtype: DType) -> Any:
        """What is stored."""
        if dtype is not dt.bool_:
            return value
        kind = ir.VectorType(I8, LANES) if is_vector(value) else I8
        return self.raw.zext(value, kind)

    def masked_load(self, place: Any, align: int, mask: Any, fill: Any) -> Any:
        """The lanes of the mask from consecutive memory, the others from `fill`."""
        name = f"llvm.masked.load.{_suffix(fill.type)}.p0"
        return self.call(name, fill.type, place, constant(I32, align), mask, fill)

    def masked_store(self, value: Any, place: Any, align: int, mask: Any) -> None:
        """Writes the lanes of the mask."""
        name = f"llvm.masked.store.{_suffix(value.type)}.p0"
        self.call(name, ir.VoidType(), value, place, constant(I32, align), mask)

    def gather(self, addresses: Any, element: Any, align: int, mask: Any, fill: Any) -> Any:
        """One element from each address."""
        pointers = self.raw.inttoptr(addresses, ir.VectorType(element.as_pointer(), LANES))
        mask = constant(ir.VectorType(BOOL, LANES), 1) if mask is None else mask
        suffix = _suffix(ir.VectorType(element, LANES))
        name = f"llvm.masked.gather.{suffix}.v{LANES}p0"
        return self.call(name, fill.type, pointers, constant(I32, align), mask, fill)

    def scatter(self, value: Any, addresses: Any, align: int, mask: Any) -> None:
        """One element to each address."""
        element = value.type.element
        pointers = self.raw.inttoptr(addresses, ir.VectorType(element.as_pointer(), LANES))
        mask = constant(ir.VectorType(BOOL, LANES), 1) if mask is None else mask
        name = f"llvm.masked.scatter.{_suffix(value.type)}.v{LANES}p0"
        self.call(name, ir.VoidType(), value, pointers, constant(I32, align), mask)

    # -- conversions --------------------------------------------------------------------------

    def like(self, kind: Any, value: Any) -> Any:
        """The type `kind`, as a vector if `value` is one."""
        return ir.VectorType(kind, value.type.count) if is_vector(value) else kind

    def cast(self, value: Any, source: DType, target: DType) -> Any:
        """value of dtype source as dtype target; float to integer truncates and saturates."""
        if source is target:
            return value
        if source is dt.bfloat16:
            return self.cast(self.from_bfloat16(value), dt.float32, target)
        if target is dt.bfloat16:
            return self.to_bfloat16(self.cast(value, source, dt.float32))
        kind = self.like(register_type(target), value)
        if target is dt.bool_:
            zero = constant(value.type, 0.0 if source.is_float else 0)
            if source.is_float:
                return self.raw.fcmp_unordered("!=", value, zero)
            return self.raw.icmp_signed("!=", value, zero)
        if source.is_float and target.is_float:
            wider = target.itemsize > source.itemsize
            return self.raw.fpext(value, kind) if wider else self.raw.fptrunc(value, kind)
        if source.is_float:
            sign = "s" if target.kind == "i" else "u"
            name = f"llvm.fpto{sign}i.sat.{_suffix(kind)}.{_suffix(value.type)}"
            return self.call(name, kind, value)
        if target.is_float:
            signed = source.kind == "i"
            return self.raw.sitofp(value, kind) if signed else self.raw.uitofp(value, kind)
        from_width, to_width = element_of(value.type).width, element_of(kind).width
        if from_width == to_width:
            return value
        if from_width > to_width:
            return self.raw.trunc(value, kind)
        return self.raw.sext(value, kind) if source.kind == "i" else self.raw.zext(value, kind)

    def bitcast(self, value: Any, target: DType) -> Any:
        """The same bits as another dtype of the same size."""
        return self.raw.bitcast(value, self.like(register_type(target), value))

    def from_bfloat16(self, value: Any) -> Any:
        """float32 from the upper 16 bits."""
        wide = self.raw.zext(value, self.like(I32, value))
        shifted = self.raw.shl(wide, constant(wide.type, 16))
        return self.raw.bitcast(shifted, self.like(FLOAT, value))

    def to_bfloat16(self, value: Any) -> Any:
        """The upper 16 bits, rounded to nearest even; NaN stays NaN."""
        b = self.raw
        bits = b.bitcast(value, self.like(I32, value))
        upper = b.lshr(bits, constant(bits.type, 16))
        odd = b.and_(upper, constant(bits.type, 1))
        rounded = b.lshr(
            b.add(b.add(bits, constant(bits.type, 0x7FFF)), odd), constant(bits.type, 16)
        )
        quiet = b.or_(upper, constant(bits.type, 0x40))
        chosen = b.select(b.fcmp_unordered("uno", value, value), quiet, rounded)
        return b.trunc(chosen, self.like(I16, value))

    # -- operators ----------------------------------------------------------------------------

    def combine(self, op: str, a: Any, b: Any, dtype: DType) -> Any:
        """One step of a reduction."""
        return self.elementwise(_REDUCTION_STEP[op], [a, b], dtype)

    def accumulate(self, op: str, old: Any, new: Any, dtype: DType) -> Any:
        """One step of a reduction that goes on from `old`: as `combine`, but of 0.0 and -0.0 the
        one that came first is the largest, which most processors find more quickly."""
        sign = {"maximum": ">", "minimum": "<"}.get(op)
        if sign is None or not dtype.is_float or machine.has_maximum():
            return self.combine(op, old, new, dtype)
        b = self.raw
        if is_vector(old) and element_of(old.type) == FLOAT and machine.has_avx512():
            name = f"llvm.x86.avx512.{op[:3]}.ps.512"  # two compares cost more than this and one
            found = self.call(name, old.type, new, old, constant(I32, 4))
        else:
            found = b.select(b.fcmp_ordered(sign, new, old), new, old)
        return b.select(b.fcmp_unordered("uno", new, new), new, found)

    def elementwise(self, op: str, args: list[Any], dtype: DType) -> Any:
        """op on registers of a dtype."""
        if op == "threefry":
            return self.threefry(*args)
        if op == "where":
            return self.raw.select(*args)
        if op in ("copy", "again", "barrier"):
            return args[0]
        table = _FLOAT if dtype.is_float else _BOOL if dtype is dt.bool_ else _INTEGER
        rule = table.get(op)
        if rule is not None:
            return rule(self, *args, dtype) if op in _TYPED else rule(self, *args)
        if op in vecmath.FUNCTIONS and dtype.is_float:
            return vecmath.FUNCTIONS[op](MathOps(self, args[0]), *args)
        raise CompilerBug(f"no instruction for {op} on {dtype}")

    def threefry(self, key0: Any, key1: Any, word: Any, call: Any) -> Any:
        """Word 0 of Threefry-2x32, 20 rounds (Salmon et al., SC 2011)."""
        b = self.raw
        values = [key0, key1, word, call]
        if any(is_vector(v) for v in values):
            key0, key1, word, call = (self.as_vector(v) for v in values)
        parity = constant(key0.type, 0x1BD11BDA)
        keys = [key0, key1, b.xor(b.xor(key0, key1), parity)]
        x, y = b.add(word, keys[0]), b.add(call, keys[1])
        for rounds in range(20):
            x = b.add(x, y)
            rotation = constant(y.type, _ROTATIONS[rounds % 8])
            y = b.xor(self.intrinsic("llvm.fshl", y, y, rotation), x)
            if rounds % 4 == 3:
                step = rounds // 4 + 1
                x = b.add(x, keys[step % 3])
                y = b.add(b.add(y, keys[(step + 1) % 3]), constant(y.type, step))
        return x


_ROTATIONS = (13, 15, 26, 6, 17, 29, 16, 24)
_REDUCTION_STEP = {
    "add": "add", "multiply": "mul", "maximum": "maximum", "minimum": "minimum",
    "logical_and": "logical_and", "logical_or": "logical_or", "bitwise_and": "bitand",
    "bitwise_or": "bitor", "bitwise_xor": "bitxor",
}  # fmt: skip

Rule = Callable[..., Any]


def _call(name: str) -> Rule:
    return lambda self, *args: self.intrinsic(name, *args)


def _compare_float(sign: str, ordered: bool = True) -> Rule:
    def rule(self: Builder, a: Any, b: Any) -> Any:
        compare = self.raw.fcmp_ordered if ordered else self.raw.fcmp_unordered
        return compare(sign, a, b)

    return rule


def _raw(name: str) -> Rule:
    return lambda self, *args: getattr(self.raw, name)(*args)


def _sign(self: Builder, x: Any) -> Any:
    b = self.raw
    zero, one = constant(x.type, 0.0), constant(x.type, 1.0)
    result = b.select(b.fcmp_ordered("<", x, zero), constant(x.type, -1.0), x)
    result = b.select(b.fcmp_ordered(">", x, zero), one, result)
    return b.select(b.fcmp_ordered("==", x, zero), zero, result)


def _float_remainder(self: Builder, a: Any, b: Any) -> Any:
    """fmod(a, b) moved to the sign of b."""
    raw = self.raw
    zero = constant(a.type, 0.0)
    rest = raw.frem(a, b)
    nonzero = raw.fcmp_unordered("!=", rest, zero)
    differ = raw.xor(raw.fcmp_ordered("<", rest, zero), raw.fcmp_ordered("<", b, zero))
    moved = raw.select(differ, raw.fadd(rest, b), rest)
    return raw.select(nonzero, moved, self.intrinsic("llvm.copysign", zero, b))


def _float_floordiv(self: Builder, a: Any, b: Any) -> Any:
    """NumPy's: the floor of the quotient that belongs to the remainder."""
    raw = self.raw
    zero, one = constant(a.type, 0.0), constant(a.type, 1.0)
    rest = raw.frem(a, b)
    quotient = raw.fdiv(raw.fsub(a, rest), b)
    nonzero = raw.fcmp_ordered("one", rest, zero)
    differ = raw.xor(raw.fcmp_ordered("<", rest, zero), raw.fcmp_ordered("<", b, zero))
    quotient = raw.select(raw.and_(nonzero, differ), raw.fsub(quotient, one), quotient)
    floor = self.intrinsic("llvm.floor", quotient)
    half = raw.fcmp_ordered(">", raw.fsub(quotient, floor), constant(a.type, 0.5))
    floor = raw.select(half, raw.fadd(floor, one), floor)
    plain = raw.fdiv(a, b)
    signed_zero = self.intrinsic("llvm.copysign", zero, plain)
    result = raw.select(raw.fcmp_unordered("!=", quotient, zero), floor, signed_zero)
    return raw.select(raw.fcmp_ordered("==", b, zero), plain, result)


def _is_infinite(self: Builder, x: Any) -> Any:
    magnitude = self.intrinsic("llvm.fabs", x)
    return self.raw.fcmp_ordered("==", magnitude, constant(x.type, float("inf")))


def _is_finite(self: Builder, x: Any) -> Any:
    magnitude = self.intrinsic("llvm.fabs", x)
    return self.raw.fcmp_ordered("<", magnitude, constant(x.type, float("inf")))


_FLOAT: dict[str, Rule] = {
    "neg": _raw("fneg"), "abs": _call("llvm.fabs"), "sign": _sign, "sqrt": _call("llvm.sqrt"),
    "floor": _call("llvm.floor"), "ceil": _call("llvm.ceil"), "trunc": _call("llvm.trunc"),
    "round": _call("llvm.roundeven"), "add": _raw("fadd"), "sub": _raw("fsub"),
    "mul": _raw("fmul"), "div": _raw("fdiv"), "mod": _float_remainder,
    "floordiv": _float_floordiv, "copysign": _call("llvm.copysign"),
    "maximum": _call("llvm.maximum"), "minimum": _call("llvm.minimum"),
    "fmax": _call("llvm.maxnum"), "fmin": _call("llvm.minnum"),
    "lt": _compare_float("<"), "le": _compare_float("<="), "gt": _compare_float(">"),
    "ge": _compare_float(">="), "eq": _compare_float("=="),
    "ne": _compare_float("!=", ordered=False),
    "isnan": lambda self, x: self.raw.fcmp_unordered("uno", x, x),
    "isinf": _is_infinite, "isfinite": _is_finite,
}  # fmt: skip


def _compare_integer(sign: str) -> Rule:
    def rule(self: Builder, a: Any, b: Any, dtype: DType) -> Any:
        signed = dtype.kind == "i"
        return self.raw.icmp_signed(sign, a, b) if signed else self.raw.icmp_unsigned(sign, a, b)

    return rule


def _choose_integer(sign: str) -> Rule:
    compare = _compare_integer(sign)
    return lambda self, a, b, dtype: self.raw.select(compare(self, a, b, dtype), a, b)


def _integer_abs(self: Builder, x: Any, dtype: DType) -> Any:
    if dtype.kind == "u":
        return x
    zero = constant(x.type, 0)
    return self.raw.select(self.raw.icmp_signed("<", x, zero), self.raw.sub(zero, x), x)


def _integer_sign(self: Builder, x: Any, dtype: DType) -> Any:
    zero, one = constant(x.type, 0), constant(x.type, 1)
    positive = self.raw.select(self.raw.icmp_unsigned("!=", x, zero), one, zero)
    if dtype.kind == "u":
        return positive
    return self.raw.select(self.raw.icmp_signed("<", x, zero), constant(x.type, -1), positive)


def _nonzero(self: Builder, b: Any) -> Any:
    """A divisor for lanes that do not exist, or that a check has reported, too."""
    is_zero = self.raw.icmp_signed("==", b, constant(b.type, 0))
    return self.raw.select(is_zero, constant(b.type, 1), b)


def _safe_divisor(self: Builder, b: Any) -> tuple[Any, Any]:
    """-1 as a divisor overflows for the smallest integer: divide by 1 and negate instead."""
    minus = self.raw.icmp_signed("==", b, constant(b.type, -1))
    return self.raw.select(minus, constant(b.type, 1), b), minus


def _truncating(self: Builder, a: Any, b: Any, dtype: DType) -> tuple[Any, Any]:
    """Quotient and remainder with C's signs."""
    raw = self.raw
    b = _nonzero(self, b)
    if dtype.kind == "u":
        return raw.udiv(a, b), raw.urem(a, b)
    divisor, minus = _safe_divisor(self, b)
    quotient = raw.sdiv(a, divisor)
    quotient = raw.select(minus, raw.sub(constant(a.type, 0), a), quotient)
    rest = raw.select(minus, constant(a.type, 0), raw.srem(a, divisor))
    return quotient, rest


def _flooring(self: Builder, a: Any, b: Any, dtype: DType) -> tuple[Any, Any]:
    """Quotient and remainder with Python's signs."""
    raw = self.raw
    quotient, rest = _truncating(self, a, b, dtype)
    if dtype.kind == "u":
        return quotient, rest
    zero = constant(a.type, 0)
    nonzero = raw.icmp_signed("!=", rest, zero)
    differ = raw.icmp_signed("<", raw.xor(rest, b), zero)
    adjust = raw.and_(nonzero, differ)
    one = constant(a.type, 1)
    return (
        raw.select(adjust, raw.sub(quotient, one), quotient),
        raw.select(adjust, raw.add(rest, b), rest),
    )


def _integer_power(self: Builder, base: Any, exponent: Any, dtype: DType) -> Any:
    """By repeated squaring over every bit of the exponent; wraps like NumPy."""
    raw = self.raw
    one = constant(base.type, 1)
    result = one
    for bit in range(8 * dtype.itemsize - (dtype.kind == "i")):
        shifted = raw.lshr(exponent, constant(base.type, bit))
        is_set = raw.icmp_unsigned("!=", raw.and_(shifted, one), constant(base.type, 0))
        result = raw.select(is_set, raw.mul(result, base), result)
        base = raw.mul(base, base)
    return result


def _shift(left: bool) -> Rule:
    def rule(self: Builder, a: Any, count: Any, dtype: DType) -> Any:
        raw = self.raw
        width = constant(a.type, 8 * dtype.itemsize)
        small = raw.icmp_unsigned("<", count, width)
        safe = raw.select(small, count, constant(a.type, 0))
        if left:
            return raw.select(small, raw.shl(a, safe), constant(a.type, 0))
        if dtype.kind == "u":
            return raw.select(small, raw.lshr(a, safe), constant(a.type, 0))
        filled = raw.ashr(a, constant(a.type, 8 * dtype.itemsize - 1))
        return raw.select(small, raw.ashr(a, safe), filled)

    return rule


_INTEGER: dict[str, Rule] = {
    "neg": _raw("neg"), "abs": _integer_abs, "sign": _integer_sign, "invert": _raw("not_"),
    "add": _raw("add"), "sub": _raw("sub"), "mul": _raw("mul"), "pow": _integer_power,
    "floordiv": lambda s, a, b, d: _flooring(s, a, b, d)[0],
    "mod": lambda s, a, b, d: _flooring(s, a, b, d)[1],
    "truncdiv": lambda s, a, b, d: _truncating(s, a, b, d)[0],
    "truncmod": lambda s, a, b, d: _truncating(s, a, b, d)[1],
    "maximum": _choose_integer(">"), "minimum": _choose_integer("<"),
    "lt": _compare_integer("<"), "le": _compare_integer("<="), "gt": _compare_integer(">"),
    "ge": _compare_integer(">="), "eq": _compare_integer("=="), "ne": _compare_integer("!="),
    "bitand": _raw("and_"), "bitor": _raw("or_"), "bitxor": _raw("xor"),
    "shl": _shift(True), "shr": _shift(False),
}  # fmt: skip
_TYPED = frozenset(
    "abs sign pow floordiv mod truncdiv truncmod maximum minimum lt le gt ge eq ne shl shr".split()
)


def _bool_not(self: Builder, a: Any) -> Any:
    return self.raw.xor(a, constant(a.type, 1))


def _bool_less(self: Builder, a: Any, b: Any) -> Any:
    return self.raw.and_(_bool_not(self, a), b)


_BOOL: dict[str, Rule] = {
    "logical_not": _bool_not, "invert": _bool_not, "logical_and": _raw("and_"),
    "logical_or": _raw("or_"), "logical_xor": _raw("xor"), "bitand": _raw("and_"),
    "bitor": _raw("or_"), "bitxor": _raw("xor"), "maximum": _raw("or_"), "minimum": _raw("and_"),
    "eq": lambda s, a, b: _bool_not(s, s.raw.xor(a, b)), "ne": _raw("xor"),
    "lt": _bool_less, "gt": lambda s, a, b: _bool_less(s, b, a),
    "le": lambda s, a, b: _bool_not(s, _bool_less(s, b, a)),
    "ge": lambda s, a, b: _bool_not(s, _bool_less(s, a, b)),
}  # fmt: skip
# the typed rules take a dtype: on floats and bools the same names are plain
for _table_of_plain in (_FLOAT, _BOOL):
    for _name in list(_table_of_plain):
        if _name in _TYPED:
            _table_of_plain[_name] = (
                lambda rule: lambda self, *args: rule(self, *args[:-1])
            )(_table_of_plain[_name])  # fmt: skip


class MathOps:
    """The instruction set of `metaop.compiler.vecmath` on LLVM values shaped like a sample."""

    def __init__(self, builder: Builder, sample: Any):
        self.builder, self.raw = builder, builder.raw
        self.kind = sample.type
        self.width = (
            64 if element_of(sample.type) is DOUBLE or element_of(sample.type) == DOUBLE else 32
        )
        integer = I64 if self.width == 64 else I32
        self.integer = ir.VectorType(integer, LANES) if is_vector(sample) else integer
        raw = self.raw
        self.add, self.sub, self.mul, self.div = raw.fadd, raw.fsub, raw.fmul, raw.fdiv
        self.neg, self.select = raw.fneg, raw.select
        self.mask_and, self.mask_or = raw.and_, raw.or_
        self.iadd, self.isub, self.imul = raw.add, raw.sub, raw.mul
        self.iand, self.ior, self.ixor = raw.and_, raw.or_, raw.xor
        if is_vector(sample) and self.width == 32 and machine.has_avx512():
            self.scale = self._scale

    def _scale(self, a: Any, n: Any) -> Any:
        """a * 2**n in one instruction."""
        name, nearest = "llvm.x86.avx512.mask.scalef.ps.512", constant(I32, 4)
        all_lanes = constant(ir.IntType(LANES), -1)
        return self.builder.call(name, self.kind, a, n, a, all_lanes, nearest)

    def const(self, value: float) -> Any:
        """A float constant."""
        return constant(self.kind, _float(value, dt.float64 if self.width == 64 else dt.float32))

    def iconst(self, value: int) -> Any:
        """An integer constant, as a signed number."""
        top = 1 << (self.width - 1)
        return constant(self.integer, (value + top) % (2 * top) - top)

    def _unary(self, name: str, a: Any) -> Any:
        return self.builder.intrinsic(name, a)

    def abs(self, a: Any) -> Any:
        """|a|."""
        return self._unary("llvm.fabs", a)

    def sqrt(self, a: Any) -> Any:
        """Square root."""
        return self._unary("llvm.sqrt", a)

    def floor(self, a: Any) -> Any:
        """Largest integer up to a."""
        return self._unary("llvm.floor", a)

    def round_even(self, a: Any) -> Any:
        """Nearest integer, ties to even."""
        return self._unary("llvm.roundeven", a)

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        """a*b + c, rounded once."""
        return self.builder.intrinsic("llvm.fma", a, b, c)

    def minimum(self, a: Any, b: Any) -> Any:
        """The smaller; NaN if either is."""
        return self.builder.intrinsic("llvm.minimum", a, b)

    def maximum(self, a: Any, b: Any) -> Any:
        """The larger; NaN if either is."""
        return self.builder.intrinsic("llvm.maximum", a, b)

    def copysign(self, magnitude: Any, sign: Any) -> Any:
        """magnitude with the sign of `sign`."""
        return self.builder.intrinsic("llvm.copysign", magnitude, sign)

    def lt(self, a: Any, b: Any) -> Any:
        """a < b."""
        return self.raw.fcmp_ordered("<", a, b)

    def le(self, a: Any, b: Any) -> Any:
        """a <= b."""
        return self.raw.fcmp_ordered("<=", a, b)

    def gt(self, a: Any, b: Any) -> Any:
        """a > b."""
        return self.raw.fcmp_ordered(">", a, b)

    def ge(self, a: Any, b: Any) -> Any:
        """a >= b."""
        return self.raw.fcmp_ordered(">=", a, b)

    def eq(self, a: Any, b: Any) -> Any:
        """a == b."""
        return self.raw.fcmp_ordered("==", a, b)

    def ne(self, a: Any, b: Any) -> Any:
        """a != b, true for NaN."""
        return self.raw.fcmp_unordered("!=", a, b)

    def isnan(self, a: Any) -> Any:
        """True for NaN."""
        return self.raw.fcmp_unordered("uno", a, a)

    def mask_not(self, a: Any) -> Any:
        """not a."""
        return self.raw.xor(a, constant(a.type, 1))

    def to_int(self, a: Any) -> Any:
        """Truncation to an integer."""
        return self.raw.fptosi(a, self.integer)

    def to_float(self, a: Any) -> Any:
        """An integer as a float."""
        return self.raw.sitofp(a, self.kind)

    def bits(self, a: Any) -> Any:
        """The bits of a float."""
        return self.raw.bitcast(a, self.integer)

    def from_bits(self, a: Any) -> Any:
        """The float of some bits."""
        return self.raw.bitcast(a, self.kind)

    def ishl(self, a: Any, count: int) -> Any:
        """a << count."""
        return self.raw.shl(a, constant(self.integer, count))

    def ilshr(self, a: Any, count: int) -> Any:
        """a >> count, zeros shifted in."""
        return self.raw.lshr(a, constant(self.integer, count))

    def iashr(self, a: Any, count: int) -> Any:
        """a >> count, the sign shifted in."""
        return self.raw.ashr(a, constant(self.integer, count))

    def ieq(self, a: Any, b: Any) -> Any:
        """a == b."""
        return self.raw.icmp_signed("==", a, b)

    def ilt(self, a: Any, b: Any) -> Any:
        """a < b, signed."""
        return self.raw.icmp_signed("<", a, b)

    def rarely(self, mask: Any, usual: tuple, slow: Callable[[], tuple]) -> tuple:
        """usual, or slow() in the lanes of the mask; slow() is skipped if there are none."""
        b = self.raw
        seen = self.builder.any_lane(mask) if is_vector(mask) else mask
        before = b.block
        inside, end = b.append_basic_block("rare"), b.append_basic_block("common")
        b.cbranch(seen, inside, end)
        b.position_at_end(inside)
        slowly = [b.select(mask, s, u) for s, u in zip(slow(), usual)]
        after = b.block
        b.branch(end)
        b.position_at_end(end)
        result = []
        for quick, slower in zip(usual, slowly):
            phi = b.phi(quick.type)
            phi.add_incoming(quick, before)
            phi.add_incoming(slower, after)
            result.append(phi)
        return tuple(result)
