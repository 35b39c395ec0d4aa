"""Whether two answers mean the same: True and False are certain, None is undecided."""

from fractions import Fraction

import sympy

from .. import decimals
from . import algebra, arithmetic, dress, expressions, python_text, sets, statements, tokens, units
from .tokens import Unread
from .values import (
    Ambiguous,
    Bracketed,
    Definition,
    Expression,
    Listing,
    Named,
    Numeral,
    Ratio,
    RealSet,
    Relation,
    Residue,
    Words,
)

_SENTENCE = 3  # words, from which on two texts that differ may still mean the same


def equal(gold: str, answer: str) -> bool | None:
    """Whether `answer` says what `gold` says. A decimal may stand for a gold that rounds to it, not the reverse."""
    expected = _read(gold)
    given = _read(answer)
    if expected is not None and given is not None and (verdict := compare(expected, given)) is not None:
        if verdict or not _may_be_python(answer):
            return verdict
    elif _same_signs(gold, answer):
        return True
    else:
        verdict = None
    if expected is None:
        return None
    python = _compare_with_python(expected, answer)
    return python if verdict is None else bool(python)


def _read(text: str):
    try:
        return statements.read(text)
    except Unread:
        return None


def _same_signs(gold: str, answer: str) -> bool:
    """Whether two texts are the same but for dress, whatever they mean."""
    try:
        left, right = (tokens.canonical(tokens.split(dress.taken_off(text))) for text in (gold, answer))
    except Unread:
        left, right = (tokens.bare(dress.taken_off(text)) for text in (gold, answer))
    return bool(left) and left == right


def compare(gold, answer) -> bool | None:
    """Whether two values (see `values`) are the same."""
    if isinstance(gold, Ambiguous) or isinstance(answer, Ambiguous):
        return _ambiguous(gold, answer)
    if isinstance(gold, Definition) or isinstance(answer, Definition):
        return _definitions(gold, answer)
    if isinstance(gold, Numeral) and isinstance(answer, Expression):
        return _numeral_and_number(gold, answer)
    if isinstance(gold, Expression) and isinstance(answer, Numeral):
        return None if _numeral_and_number(answer, gold) is not False else False  # a base that the gold has not
    for kind, function in _SAME_KIND.items():
        if isinstance(gold, kind) and isinstance(answer, kind):
            return function(gold, answer)
    for left, right, function in _TWO_KINDS:
        if isinstance(gold, left) and isinstance(answer, right):
            return function(gold, answer)
        if isinstance(gold, right) and isinstance(answer, left):
            return function(answer, gold)
    return False


def _ambiguous(gold, answer) -> bool | None:
    """The first reading decides; where only another one fits, nothing is known."""
    golds = gold.readings if isinstance(gold, Ambiguous) else (gold,)
    answers = answer.readings if isinstance(answer, Ambiguous) else (answer,)
    if compare(golds[0], answers[0]):
        return True
    decimal = isinstance(gold, Expression) and gold.decimal is not None
    if decimal and isinstance(answers[0], Listing) and compare(gold, answers[1]):
        return True  # 0.5 and 0,5
    verdicts = [compare(one, other) for one in golds for other in answers]
    return False if all(verdict is False for verdict in verdicts) else None


# Names and equations.


def _definitions(gold, answer) -> bool | None:
    if isinstance(gold, Definition) and isinstance(answer, Definition):
        return _two_definitions(gold, answer)
    definition, other = (gold, answer) if isinstance(gold, Definition) else (answer, gold)
    if isinstance(other, Relation):
        return _relations(_as_relation(definition), other)
    if isinstance(other, RealSet) and other.name is not None:
        return False
    if isinstance(other, Listing) and other.name is not None and other.name != definition.name:
        return None
    return compare(definition.value, answer) if definition is gold else compare(gold, definition.value)


def _two_definitions(gold: Definition, answer: Definition) -> bool | None:
    if gold.domain and answer.domain and gold.domain != answer.domain:
        return None
    if gold.argument != answer.argument and gold.argument is not None and answer.argument is not None:
        if len(gold.argument) != 1 or len(answer.argument) != 1 or not isinstance(answer.value, Expression):
            return None
        ours, theirs = sympy.Symbol(gold.argument), sympy.Symbol(answer.argument)
        if ours in answer.value.value.free_symbols or theirs not in answer.value.value.free_symbols:
            return None
        answer = Definition(answer.name, Expression(answer.value.value.xreplace({theirs: ours})), gold.argument)
    if gold.name == answer.name and gold.argument == answer.argument:
        return compare(gold.value, answer.value)
    if gold.argument is not None or answer.argument is not None:
        return None if compare(gold.value, answer.value) is not False else False
    formulas = [one.value.value for one in (gold, answer) if isinstance(one.value, Expression)]
    if len(formulas) == 2 and all(arithmetic.is_formula(one) and one.free_symbols for one in formulas):
        return _relations(_as_relation(gold), _as_relation(answer))
    if not (_is_variable(gold) and _is_variable(answer)):
        return None
    return False


def _is_variable(definition: Definition) -> bool:
    return definition.name[:1].isalpha() and "(" not in definition.name


def _as_relation(definition: Definition) -> Relation:
    value = definition.value.value if isinstance(definition.value, Expression) else sympy.nan
    if definition.argument is not None:
        return Relation((sympy.Symbol(f"{definition.name}({definition.argument})"), value), ("=",))
    return Relation((sympy.Symbol(definition.name), value), ("=",))


def _relations(gold: Relation, answer: Relation) -> bool | None:
    """Equations may differ in a factor, inequalities in a positive one."""
    left, right = _steps(gold), _steps(answer)
    if len(left) != len(right):
        return None
    rest = list(right)
    for step in left:
        match = next((other for other in rest if _same_step(step, other)), None)
        if match is None:
            return None
        rest.remove(match)
    return True


def _steps(relation: Relation) -> list[tuple[str, sympy.Expr]]:
    """Every relation of a chain as (operator, right side less left side)."""
    return [
        (operator, right - left)
        for operator, left, right in zip(relation.operators, relation.sides[:-1], relation.sides[1:], strict=True)
    ]


def _same_step(one: tuple[str, sympy.Expr], other: tuple[str, sympy.Expr]) -> bool:
    if one[0] != other[0]:
        return False
    factor = algebra.constant_ratio(one[1], other[1])
    return factor is not None and (factor > 0 or one[0] in ("=", r"\ne"))


# Formulas and quantities.


def _expressions(gold: Expression, answer: Expression) -> bool | None:
    if units.PERCENT in (gold.unit, answer.unit):
        return _percentages(gold, answer)
    if gold.unit is not None and answer.unit is not None:
        if gold.unit.powers != answer.unit.powers:
            return False
        if gold.unit != answer.unit:
            return algebra.equal(
                *(one.value * sympy.Rational(*one.unit.factor.as_integer_ratio()) for one in (gold, answer))
            )
    left, right = gold.value, answer.value
    if left.has(expressions.DEGREE) != right.has(expressions.DEGREE):
        if gold.unit is not None or answer.unit is not None:
            return False
        verdicts = [
            algebra.equal(left.subs(expressions.DEGREE, one), right.subs(expressions.DEGREE, one))
            for one in (1, sympy.pi / 180)
        ]
        return True if True in verdicts else (None if None in verdicts else False)
    verdict = algebra.equal(left, right)
    return verdict if verdict is True else (_rounded(gold, answer) or verdict)


def _percentages(gold: Expression, answer: Expression) -> bool | None:
    if gold.unit == answer.unit:
        return algebra.equal(gold.value, answer.value)
    share, plain = (gold, answer) if gold.unit == units.PERCENT else (answer, gold)
    if plain.unit is not None:
        return False
    if algebra.equal(share.value / 100, plain.value):
        return True
    size = algebra.compare_reals(abs(plain.value), sympy.Integer(1)) if arithmetic.is_formula(plain.value) else None
    return algebra.equal(share.value, plain.value) if size is not None and size >= 0 else False


def _rounded(gold: Expression, answer: Expression) -> bool:
    """Whether the answer is a decimal that the gold, which is none, rounds to."""
    exact = gold.value
    if answer.decimal is None or gold.decimal is not None or not arithmetic.is_formula(exact) or not exact.is_number:
        return False
    if exact.is_Rational:
        return decimals.stands_for(answer.decimal, Fraction(exact.p, exact.q))
    value = exact.evalf(len(answer.decimal) + 30)
    return bool(value.is_Float) and decimals.stands_for(answer.decimal, Fraction(str(value)))


# Words.


def _texts(gold: Words, answer: Words) -> bool | None:
    if gold.words == answer.words:
        return True
    if "".join(gold.words) == "".join(answer.words):
        return True if len(gold.words) == 1 or len(answer.words) == 1 else None
    if max(len(gold.words), len(answer.words)) >= _SENTENCE:
        return None
    one, other = "".join(gold.words), "".join(answer.words)
    return None if sorted(one) == sorted(other) and len(one) <= 3 else False


def _word_and_formula(text: Words, formula: Expression) -> bool | None:
    """A letter is a word as well; of short words it is not known whether they are products."""
    if len(text.words) >= _SENTENCE:
        return None
    if len(text.words) > 1 or formula.unit is not None:
        return False
    word = text.words[0]
    if isinstance(formula.value, sympy.Symbol):
        return formula.value.name == word
    if len(word) == 1:
        return {"e": sympy.E, "i": sympy.I}.get(word) == formula.value
    if (
        not arithmetic.is_formula(formula.value)
        or not formula.value.free_symbols
        or len(word) > 4
        or not word.isalpha()
    ):
        return False
    product = sympy.Mul(*(sympy.Symbol(letter) for letter in word))
    return None if algebra.equal(product, formula.value) is not False else False


# Sequences and sets.


def _lists(gold: Listing, answer: Listing) -> bool | None:
    """Of one variable, or of none; equations of several are no bare list."""
    if gold.name is not None and answer.name is not None and gold.name != answer.name:
        return False
    golds, answers = (_with_names(one, other) for one, other in ((gold, answer), (answer, gold)))
    verdict = _in_any_order(golds, answers)
    unnamed = any(all(not isinstance(item, Definition) for item in items) for items in (golds, answers))
    named = any(len({item.name for item in items if isinstance(item, Definition)}) > 1 for items in (golds, answers))
    return None if verdict and unnamed and named else verdict


def _with_names(listing: Listing, other: Listing) -> tuple:
    """The items, as equations where the other list has equations."""
    if listing.name is None or not any(isinstance(item, Definition) for item in other.items):
        return listing.items
    return tuple(Definition(listing.name, item) for item in listing.items)


def _in_any_order(golds, answers) -> bool | None:
    if len(golds) != len(answers):
        return False
    rest = list(answers)
    result: bool | None = True
    for gold in golds:
        verdicts = [compare(gold, other) for other in rest]
        if True in verdicts:
            del rest[verdicts.index(True)]
        elif None in verdicts:
            result = None
        else:
            return False
    return result


def _in_this_order(golds, answers) -> bool | None:
    if len(golds) != len(answers):
        return False
    return algebra.all_of(compare(gold, answer) for gold, answer in zip(golds, answers, strict=True))


def _brackets(gold: Bracketed, answer: Bracketed) -> bool | None:
    if (gold.left, gold.right) != (answer.left, answer.right):
        return False
    return _in_this_order(gold.items, answer.items)


def _bracketed_and_list(pair: Bracketed, listing: Listing) -> bool | None:
    """`(2, 3)` may be written `2, 3`; never as a set."""
    if listing.braces or (pair.left, pair.right) != ("(", ")") or listing.name is not None:
        return False
    names = [item.name for item in listing.items if isinstance(item, Definition)]
    if names != sorted(names):
        return None  # y=1, x=2 is no (1, 2)
    verdict = _in_this_order(pair.items, listing.items)
    return None if verdict is False and _in_any_order(pair.items, listing.items) is not False else verdict


def _bracketed_and_set(pair: Bracketed, whole: RealSet) -> bool | None:
    try:
        interval = statements.as_set(pair)
    except Unread:
        return None
    return False if interval is None else sets.equal(interval, whole)


def _list_and_set(listing: Listing, whole: RealSet) -> bool | None:
    points = [piece.low for piece in whole.pieces if piece.low == piece.high]
    if len(points) != len(whole.pieces):
        return False
    return _in_any_order(listing.items, [Expression(point) for point in points])


def _list_and_one(listing: Listing, one) -> bool | None:
    """A set of one element is not known to be meant as the element."""
    return None if len(listing.items) == 1 and compare(listing.items[0], one) is not False else False


def _real_sets(gold: RealSet, answer: RealSet) -> bool | None:
    verdict = sets.equal(gold, answer)
    if verdict and gold.name is not None and answer.name is not None and gold.name != answer.name:
        return None
    return verdict


# Ratios, remainders, numerals.


def _ratios(gold: Ratio, answer: Ratio) -> bool | None:
    if gold.half is not None or answer.half is not None:
        if gold.clock == answer.clock:
            return gold.half == answer.half if None not in (gold.half, answer.half) else None
        return False
    if gold.clock is not None and gold.clock == answer.clock:
        return True
    if len(gold.parts) != len(answer.parts):
        return False
    verdict = algebra.all_of(
        algebra.equal(left * answer.parts[0], right * gold.parts[0])
        for left, right in zip(gold.parts[1:], answer.parts[1:], strict=True)
    )
    return None if verdict and (gold.clock or answer.clock) else verdict


def _ratio_and_number(ratio: Ratio, number: Expression) -> bool | None:
    if len(ratio.parts) != 2 or ratio.half is not None or not arithmetic.is_formula(number.value):
        return False
    return None if algebra.equal(ratio.parts[0], number.value * ratio.parts[1]) is not False else False


def _residues(gold: Residue, answer: Residue) -> bool | None:
    if gold.name is not None and answer.name is not None and gold.name != answer.name:
        return False
    same = algebra.equal(gold.modulus, answer.modulus)
    if same is not True:
        return same
    steps = sympy.cancel((gold.value - answer.value) / gold.modulus)
    return bool(steps.is_Integer) if steps.is_number else None


def _numerals(gold: Numeral, answer: Numeral) -> bool | None:
    if gold == answer:
        return True
    return (
        None if gold.base != answer.base and int(gold.digits, gold.base) == int(answer.digits, answer.base) else False
    )


def _numeral_and_number(numeral: Numeral, number: Expression) -> bool | None:
    """A base may be left out; whether a value in base ten is meant instead is not known."""
    if number.unit is not None or not isinstance(number.value, sympy.Integer):
        return False
    if str(number.value) == numeral.digits:
        return True
    return None if number.value == int(numeral.digits, numeral.base) else False


_SAME_KIND = {
    Expression: _expressions,
    Words: _texts,
    Bracketed: _brackets,
    Listing: _lists,
    RealSet: _real_sets,
    Relation: _relations,
    Ratio: _ratios,
    Residue: _residues,
    Numeral: _numerals,
    Named: lambda gold, answer: gold == answer,
}


def _undecided(one, other) -> None:
    return None


_TWO_KINDS = (
    (Words, Expression, _word_and_formula),
    (Words, Listing, lambda words, listing: None if len(words.words) >= _SENTENCE else _list_and_one(listing, words)),
    (Words, RealSet, _undecided),
    (Bracketed, Listing, _bracketed_and_list),
    (Bracketed, RealSet, _bracketed_and_set),
    (Listing, RealSet, _list_and_set),
    (Listing, Expression, _list_and_one),
    (Listing, Relation, _undecided),
    (Ratio, Expression, _ratio_and_number),
    (RealSet, Relation, _undecided),
    (Named, RealSet, _undecided),
    (Named, Words, _undecided),
)


# Python.


def _may_be_python(answer: str) -> bool:
    return any(sign in answer for sign in "([{*jIE") and "\\" not in answer


def _compare_with_python(gold, answer: str) -> bool | None:
    """Whether an answer as Python writes it means the gold; None if it is not Python."""
    value = python_text.read(answer)
    if value is None:
        return None
    if isinstance(gold, Definition):
        gold = gold.value
    if isinstance(value, list) and not (isinstance(gold, Listing) and not gold.braces):
        return False
    given = _from_python(value, answer)
    return None if given is None else compare(gold, given)


def _from_python(value, text: str = ""):
    if isinstance(value, tuple | list | set):
        items = tuple(_from_python(one) for one in value)
        if None in items:
            return None
        return Bracketed("(", ")", items) if isinstance(value, tuple) else Listing(items, isinstance(value, set))
    if isinstance(value, sympy.Interval):
        return sets.interval(value.start, bool(value.left_open), value.end, bool(value.right_open))
    if isinstance(value, sympy.Expr | sympy.MatrixBase):
        return Expression(value, text.strip() if python_text.is_decimal(text) else None)
    return None
