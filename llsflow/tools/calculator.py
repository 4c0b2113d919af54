"""The tool calculator: exact arithmetic, as an entry point like those of any package."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Annotated

from pydantic import Field

OPERATIONS: Mapping[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: lambda left, right: Fraction(left // right),
    ast.Mod: operator.mod,
}
MOST_CHARACTERS, MOST_DIGITS = 1_000, 1_000
"""Of an expression, and of a number in it."""


def calculator(
    expression: Annotated[str, Field(description="Numbers with + - * / // % ** and parentheses, 12 * (3 + 4).")],
) -> str:
    """Computes an arithmetic expression exactly."""
    if len(expression) > MOST_CHARACTERS:
        raise ValueError(f"the expression has {len(expression)} characters, allowed: {MOST_CHARACTERS}")
    try:
        found = _value(ast.parse(expression.strip(), mode="eval").body)
    except SyntaxError:
        raise ValueError(f"{expression!r} is no arithmetic expression") from None
    except ZeroDivisionError:
        raise ValueError("it divides by zero") from None
    except RecursionError:
        raise ValueError("the expression is nested too deeply") from None
    return str(found.numerator) if found.denominator == 1 else f"{float(found):.15g}"


def _value(node: ast.expr) -> Fraction:
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return Fraction(str(number))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _value(operand)
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            return _bounded(_power(_value(left), _value(right)))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATIONS:
            return _bounded(OPERATIONS[type(op)](_value(left), _value(right)))
    raise ValueError(f"{ast.unparse(node)!r} is not allowed: numbers with + - * / // % ** and parentheses")


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator != 1:
        try:
            found = float(base) ** float(exponent)
        except OverflowError:
            raise ValueError(f"a power has more than {MOST_DIGITS} digits") from None
        if isinstance(found, complex):
            raise ValueError("it has no real value")
        return Fraction(str(found))
    size = max(abs(base.numerator), base.denominator)
    if size > 1 and abs(exponent.numerator) * size.bit_length() > 4 * MOST_DIGITS:
        raise ValueError(f"a power has more than {MOST_DIGITS} digits")
    return base**exponent.numerator


def _bounded(number: Fraction) -> Fraction:
    if max(abs(number.numerator), number.denominator).bit_length() > 4 * MOST_DIGITS:
        raise ValueError(f"a number has more than {MOST_DIGITS} digits")
    return number
