"""Reads answers written as Python or sympy prints them: `15*pi`, `[1, 2]`, `Fraction(3, 4)`, `Interval.Ropen(0, 1)`.

A text is parsed, never evaluated: what stands in the tables below is built with sympy, and any other text is not Python
to this file. A sequence comes back as a tuple, list or set of what stands in it; anything else as a sympy object.
"""

import ast
import re
import warnings

import sympy

_OPERATORS = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
    ast.Pow: lambda a, b: a**b,
}
_CONSTANTS = {"pi": sympy.pi, "E": sympy.E, "I": sympy.I, "oo": sympy.oo, "inf": sympy.oo}
_FUNCTIONS = {
    **{name: getattr(sympy, name) for name in ("sqrt", "cbrt", "exp", "log", "ln", "factorial", "binomial", "Abs")},
    **{name: getattr(sympy, name) for name in ("sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh")},
    **{name: getattr(sympy, name) for name in ("Rational", "Integer", "Interval", "Matrix")},
    "FiniteSet": lambda *elements: set(elements),
    "Tuple": lambda *elements: elements,
    **{name: lambda number: number for name in ("int64", "int32", "float64", "float32", "Float", "float", "int")},
    "abs": sympy.Abs,
    "Fraction": sympy.Rational,
    "Interval.open": sympy.Interval.open,
    "Interval.Ropen": sympy.Interval.Ropen,
    "Interval.Lopen": sympy.Interval.Lopen,
}
_MODULES = ("math", "cmath", "np", "numpy", "sympy", "sp", "fractions")
_NUMBER = re.compile(r"\d+(\.\d*)?([eE][+-]?\d+)?|\.\d+([eE][+-]?\d+)?", re.ASCII)
_DECIMAL = re.compile(r"[+-]?\d*\.\d+", re.ASCII)
_MOST_NODES = 200


def read(text: str) -> object | None:
    """What `text` means, or None if it is not an expression of this language."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)  # 2x is no number of Python's, and no fault either
            body = ast.parse(text.strip(), mode="eval").body
        if sum(1 for _ in ast.walk(body)) > _MOST_NODES:
            return None
        return _build(body, text.strip())
    except (SyntaxError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def is_decimal(text: str) -> bool:
    """Whether `text` is a decimal numeral and nothing else."""
    return _DECIMAL.fullmatch(text.strip()) is not None


def _build(node: ast.expr, text: str) -> object:
    match node:
        case ast.Tuple(elts=elements) if text.startswith("(") or node.col_offset:
            return tuple(_build(element, text) for element in elements)
        case ast.List(elts=elements):
            return [_build(element, text) for element in elements]
        case ast.Set(elts=elements):
            return {_build(element, text) for element in elements}
        case ast.BinOp(left=left, op=operator, right=right):
            return _OPERATORS[type(operator)](_scalar(left, text), _scalar(right, text))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_scalar(operand, text)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _scalar(operand, text)
        case ast.Constant(value=bool()):
            raise ValueError("not a number")
        case ast.Constant(value=int() | float()):
            written = ast.get_source_segment(text, node)
            if not _NUMBER.fullmatch(written):
                raise ValueError("not a decimal number")
            return sympy.Rational(written)
        case ast.Constant(value=complex(real=0)):
            return sympy.Rational(ast.get_source_segment(text, node)[:-1]) * sympy.I
        case ast.Name(id=name):
            return _CONSTANTS[name] if name in _CONSTANTS else _symbol(name)
        case ast.Attribute(value=ast.Name(id=module), attr=name) if module in _MODULES:
            return sympy.E if name == "e" else _CONSTANTS[name]
        case ast.Call(func=function, args=arguments, keywords=[]):
            return _FUNCTIONS[_name(function)](*(_build(argument, text) for argument in arguments))
    raise ValueError(f"{type(node).__name__} is not read")


def _scalar(node: ast.expr, text: str) -> sympy.Expr:
    value = _build(node, text)
    if not isinstance(value, sympy.Expr):
        raise ValueError("arithmetic is for numbers")
    return value


def _symbol(name: str) -> sympy.Symbol:
    if len(name) > 1:
        raise ValueError(f"{name} is no letter")
    return sympy.Symbol(name)


def _name(function: ast.expr) -> str:
    """The name of a function, without the module that it comes from."""
    match function:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=ast.Name(id="Interval"), attr=name):
            return f"Interval.{name}"
        case ast.Attribute(value=ast.Name(id=module), attr=name) if module in _MODULES:
            return name
    raise ValueError("only functions of the table are called")
