"""Answers are read whole or not at all: real golds in other dress, and with one sign changed."""

import itertools
import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rstar_jax.verifier.sandbox.answers import equality, statements
from rstar_jax.verifier.sandbox.answers.tokens import Unread
from tests.verifier import golds

_SAMPLE = 400
_FORMULAS = (
    "0", "17", "-3", r"\frac{3}{4}", "0.61", r"\sqrt{2}", r"3\sqrt[3]{5}", r"2^{10}", r"\frac{\pi}{6}", "x^2+1",
    "2ab", r"\sin 2x", r"\log_2 3", "e^{2}", "3+4i", "a_1", "x'", "n!", r"\binom{n}{2}", r"\lfloor x \rfloor", "|x|",
    r"7^\circ",
)  # fmt: skip
_FRAMES = (
    "{}", "({},{})", "[{},{})", r"\{{{},{}\}}", "{}, {}", "x={}", r"f(x)={}", r"{} \text{{ or }} {}", "{}:{}",
    r"\begin{{pmatrix}}{}\\{}\end{{pmatrix}}", r"{} \text{{ cm}}", r"{}\%", "x<{}", r"x\in({},\infty)",
    r"{}\pm{}", r"\${}",
)  # fmt: skip
_PIECES = st.sampled_from(
    [*r"0123456789.,:;+-*/^_=<>()[]{}|!'%$& ", *"abexyiEN", *_FORMULAS, r"\frac", r"\sqrt", r"\text{", r"\text{ and }",
     r"\cup", r"\pm", r"\le", r"\in", r"\mathbb{R}", r"\infty", r"\{", r"\}", r"\\", r"\begin{pmatrix}",
     r"\end{pmatrix}", r"\left", r"\right", r"\circ", r"\boxed{", r"\ldots", r"\overline{", "or", "yes", "cm",
     "#### ", "½", "²", "√", "°"]
)  # fmt: skip
TEXTS = st.lists(_PIECES, max_size=14).map("".join) | st.text(max_size=20)


def values_of(row: dict) -> list[str]:
    answer = row["answer"]
    return answer if isinstance(answer, list) else [str(answer)]


@pytest.fixture(scope="module")
def gold_texts(shared_folder) -> dict[str, list[str]]:
    """Every benchmark's golds."""
    if not (shared_folder / "benchmarks").is_dir():
        pytest.skip("no benchmarks in the shared folder")
    files = sorted((shared_folder / "benchmarks").glob("*.jsonl"))
    rows = {file.stem: [json.loads(line) for line in open(file, encoding="utf-8")] for file in files}
    return {
        name: [gold for row in some for gold in values_of(row)] for name, some in rows.items() if "answer" in some[0]
    }


def check(texts: list[str]) -> None:
    for gold in texts:
        for other in golds.dressed(gold):
            assert equality.equal(gold, other) is True, (gold, other)
        for kind, other in golds.mutated(gold, random.Random(gold)):
            assert equality.equal(gold, other) is not True or golds.same_signs(gold, other), (kind, gold, other)


def test_a_gold_equals_itself_in_other_dress_and_never_with_one_sign_changed(gold_texts):
    distinct = sorted({gold for texts in gold_texts.values() for gold in texts if gold.strip()})
    check(random.Random(0).sample(distinct, _SAMPLE))


@pytest.mark.slow
def test_every_gold_equals_itself_in_other_dress_and_never_with_one_sign_changed(gold_texts):
    check(sorted({gold for texts in gold_texts.values() for gold in texts if gold.strip()}))


@pytest.mark.parametrize(
    "name", ["aime2024", "aime2025", "amc23", "gaokao2023en", "gsm8k_test", "math500", "math_test", "olympiad_bench"]
)
def test_few_golds_of_a_benchmark_are_not_read(gold_texts, name):
    unread = 0
    for gold in gold_texts[name]:
        try:
            statements.read(gold)
        except Unread:
            unread += 1
    assert unread <= 0.03 * len(gold_texts[name])


@pytest.mark.parametrize(("frame", "places"), [(frame, frame.count("{}")) for frame in _FRAMES])
def test_formulas_that_differ_differ_in_every_frame(frame, places):
    """Whatever stands around two formulas, it makes them no more equal than they are."""
    draw = random.Random(frame)
    for _ in range(60):
        one = draw.choices(_FORMULAS, k=places)
        other = list(one)
        place = draw.randrange(places)
        other[place] = draw.choice([formula for formula in _FORMULAS if formula != one[place]])
        texts = frame.format(*one), frame.format(*other)
        assert equality.equal(texts[0], texts[0]) is True, texts
        if sorted(one) != sorted(other):
            assert equality.equal(*texts) is not True, texts


@given(TEXTS, TEXTS)
def test_every_text_is_read_or_not(gold, answer):
    """Nothing but Unread is raised; a text that is read equals itself."""
    try:
        value = statements.read(gold)
    except Unread:
        value = None
    verdict = equality.equal(gold, answer)
    assert verdict in (True, False, None)
    if value is not None:
        assert equality.equal(gold, gold) is True
        assert equality.compare(value, value) is not False


@given(st.lists(st.sampled_from(_FORMULAS), min_size=1, max_size=4), st.randoms())
def test_a_list_has_no_order_and_a_tuple_has_one(parts, draw):
    other = list(parts)
    draw.shuffle(other)
    assert equality.equal(" , ".join(parts), " , ".join(other)) is True
    assert equality.equal(r"\{" + " , ".join(parts) + r"\}", r"\{" + " , ".join(other) + r"\}") is True
    if len(parts) > 1 and other != parts:
        assert equality.equal(f"({' , '.join(parts)})", f"({' , '.join(other)})") is not True


@given(st.integers(-(10**9), 10**9), st.integers(1, 10**6), st.integers(2, 60))
def test_numbers_have_no_tolerance(numerator, denominator, power):
    gold = rf"\frac{{{numerator}}}{{{denominator}}}"
    near = rf"{gold}+\frac{{1}}{{10^{{{power}}}}}"
    assert equality.equal(gold, near) is False
    assert equality.equal(rf"\sqrt{{2}}+{gold}", rf"\sqrt{{2}}+{near}") is False
    assert equality.equal(rf"{gold}\pi", rf"\pi\cdot\left({gold}\right)") is True


def test_ways_to_write_a_number():
    """Every pair of these is equal, both ways round."""
    for same in (
        (
            "1234567",
            "1,234,567",
            r"1{,}234{,}567",
            r"1,\!234,\!567",
            r"1\,234\,567",
            "1 234 567",
            "1234567.0",
            "1.234567e6",
        ),
        (r"\frac{1}{2}", "0.5", "1/2", "½", r"\dfrac12", r"\tfrac 1 2", r"2^{-1}", "50%", r"50\%", "0.50", ".5"),
        (r"2\frac{3}{4}", "2 3/4", r"\frac{11}{4}", "2.75", "2¾"),
        (r"\sqrt{2}", "√2", "2^{1/2}", r"\sqrt 2", r"\frac{2}{\sqrt{2}}", "sqrt(2)", "2**(1/2)", "math.sqrt(2)"),
        ("3+4i", r"3+4\mathrm{i}", "4i+3", "3 + 4*I", "3+4j"),
        (r"0.1\overline{6}", r"\frac16", r"0.1\bar{6}"),
        (r"45^\circ", "45°", r"45\text{ degrees}", r"45^{\circ}"),
        (r"0.05\text{ m}", r"5\text{ cm}", r"50\,\mathrm{mm}"),
        (r"(0,\infty)", r"(0, +\infty)", "x>0", "0<x", r"x\in(0,\infty)", r"\{x\mid x>0\}"),
        (r"\mathbb{R}", r"(-\infty,\infty)", "all real numbers", r"\text{All real numbers.}"),
        (r"\pm 3", "3,-3", r"\{-3, 3\}", "3 and -3", r"x=3\text{ or }x=-3", r"x=\pm3"),
    ):
        for gold, answer in itertools.product(same, repeat=2):
            if not any(sign in gold for sign in ("*", "math", "sqrt(", "j")):  # golds are not written in Python
                assert equality.equal(gold, answer) is True, (gold, answer)


def test_names_say_which_value_is_whose():
    assert equality.equal("(1,2)", "x=1, y=2") is True
    assert equality.equal("(1,2)", "y=1, x=2") is not True
    assert equality.equal("x=1, y=2", "y=2, x=1") is True
    assert equality.equal("x=1, y=2", "x=2, y=1") is False
