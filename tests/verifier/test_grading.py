"""No wrong answer is graded right, no answer is evaluated, and none can hang the grader."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest

from rstar_jax.verifier import Grader, exact

EXACT = [
    ("3", "3", True),
    ("3", " 3.0 ", True),
    ("3", "+3", True),
    ("3", "300", False),
    ("3", "0.03", False),
    ("3", "3.0000001", False),
    ("1000000", "1,000,000", True),
    ("123456789012345678", "123456789012345679", False),
    ("1/2", "0.5", True),
    ("\\frac{1}{2}", "2/4", True),
    ("\\dfrac{-1}{2}", "-0.5", True),
    ("-\\frac{1}{2}", "\\frac{1}{2}", False),
    ("$x + 1$", "x + 1", True),
    ("12.", "12", True),
    ("\\text{Sunday}", "\\text{Sunday}", True),
    ("1", "", False),
    ("1", "   ", False),
    ("\\frac{2}{7}", "0.2858", False),
    ("\\frac{2}{7}", "0.286", False),
    ("7\\frac{3}{4}", "7 3/4", True),
    ("7\\frac{3}{4}", "31/4", True),
    ("7\\frac{3}{4}", "21/4", False),
    # What takes reading, or might.
    ("\\left( 1, 2 \\right)", "(1,2)", None),
    ("\\$12", "12", None),
    ("2, 100", "2100", None),
    ("12, 345", "12345", None),
    ("x+1", "1+x", None),
    ("12", "1 2", None),
    ("1/0", "1", None),
    ("2", "2^1", None),
    ("(1,2)", "[1,2]", None),
    ("7" * 5000, "7" * 4999, None),
]
ROUNDED = [
    ("\\frac{2}{7}", "0.2857"),
    ("-\\frac{8}{17}", "-0.47058823529411764"),
    ("\\frac{1}{3}", "0.3333333333333333"),
]
ALGEBRA = [
    ("\\left( 1, 2 \\right)", "(1,2)", True),
    ("\\$12", "12", True),
    ("2, 100", "2100", False),
    ("x+1", "1+x", True),
    ("x+1", "x+2", False),
    ("\\sqrt{8}", "2\\sqrt{2}", True),
    ("\\frac{\\pi}{2}", "\\pi/2", True),
    ("(1,2)", "[1,2]", False),
    ("(1,2)", "(2,1)", False),
    ("\\sqrt{2}", "1.4142", True),
    ("\\sqrt{2}", "1.4143", False),
    ("\\sqrt{2}", "1.41", False),
    ("\\sqrt{4}", "2.0001", False),
    ("15\\pi", "15*pi", True),
    ("1+\\sqrt{5}", "1 + math.sqrt(5)", True),
    ("\\frac{3}{4}", "Fraction(3, 4)", True),
    ("100000", "1e5", True),
    ("3+4i", "3 + 4*I", True),
    ("1,2", "[1, 2]", True),
    ("1,2", "[2, 1]", True),
    ("1,2", "[1, 3]", False),
    ("1,2", "[1, 2, 2]", False),
    ("(1,2)", "Interval(1, 2)", False),
    ("[0,1)", "Interval.Ropen(0, 1)", True),
    ("(\\sqrt{2}, 1)", "(sqrt(2), 1)", True),
    ("(\\sqrt{2}, 1)", "(1, sqrt(2))", False),
    (r"(\sqrt{2}, 3)", "(2**(1/2), 3)", True),
    (r"\left(\frac{\pi}{2}, 1\right)", "(math.pi/2, 1)", True),
    (r"\left( \sqrt{3}, 2\right)", "(2, 3**0.5)", False),
    (r"\sqrt{2}, 3", "[2**(1/2), 3]", True),
    (r"\left\{\sqrt{2}, 3\right\}", "{2**(1/2), 3}", True),
    (r"\{ \sin 1, 2 \}", "{math.sin(1), 2}", True),
    ("\\begin{pmatrix}1\\\\2\\end{pmatrix}", "Matrix([[1], [2]])", True),
    ("\\begin{pmatrix}1\\\\2\\end{pmatrix}", "Matrix([[2], [1]])", False),
    ("2", "\\text{two apples}", False),
]


@pytest.fixture(scope="module")
def grader():
    with Grader() as grader:
        yield grader


@pytest.mark.parametrize(("gold", "answer", "equal"), EXACT)
def test_exact_comparison(gold, answer, equal):
    assert exact.compare(gold, answer) is equal
    assert exact.compare(answer, gold) is equal


@pytest.mark.parametrize(("gold", "answer"), ROUNDED)
def test_a_decimal_stands_for_a_fraction_and_not_the_reverse(gold, answer):
    assert exact.compare(gold, answer) is True
    assert exact.compare(answer, gold) is False


def test_numbers_need_no_process():
    with Grader() as grader:
        pairs = [("3", "3"), ("3", "4"), ("3", "9" * 1001), ("x", "x" * 1001)]
        assert grader.grade(pairs) == [True, False, False, False]
        assert grader._processes[0]._process is None


def test_algebra(grader):
    assert grader.grade([(gold, answer) for gold, answer, _ in ALGEBRA]) == [equal for _, _, equal in ALGEBRA]


@pytest.mark.parametrize("name", ["answer_pairs.jsonl", "answer_pairs_reported.jsonl"])
def test_the_labelled_tables_have_no_false_positive_and_few_false_negatives(grader, table, name):
    pairs = table(name)
    verdicts = grader.grade([(pair["gold"], pair["answer"]) for pair in pairs])
    wrong = [
        (pair, verdict) for pair, verdict in zip(pairs, verdicts, strict=True) if (verdict is True) != pair["equal"]
    ]
    assert [pair for pair, verdict in wrong if verdict is True] == []
    assert len(wrong) <= 0.02 * sum(pair["equal"] for pair in pairs), wrong


def test_no_answer_is_evaluated(grader, tmp_path):
    mark = tmp_path / "mark"
    attacks = [f'__import__("os").system("touch {mark}")', f"open('{mark}', 'w')", f"$\\text{{}}open('{mark}','w')$"]
    assert True not in grader.grade([("1", attack) for attack in attacks])
    assert not mark.exists()


@pytest.mark.parametrize("answer", ["9^{9^{9^9}}", "\\binom{1000000000}{500000000}", "\\prod_{n=1}^{100000000} n"])
def test_a_pair_that_hangs_is_undecided_by_the_deadline(grader, answer):
    grader.grade([("x+1", "1+x")])  # it is up
    start = time.monotonic()
    verdict = grader.grade([("7", answer)])
    assert time.monotonic() - start < 12.0
    assert verdict[0] is not True
    assert grader.grade([("x + 3", "3 + x" + " " * len(answer))]) == [True]


def test_what_was_asked_before_changes_no_verdict():
    """Answers that fill memory: the grader is replaced, and what comes later is judged as if it came first."""
    pairs = [(r"\frac{\pi}{4}", rf"2^{{{19000 + 7 * n}}}+x^{{{n}}}+\binom{{9000}}{{{4000 + n}}}y") for n in range(45)]
    ordinary = [("(x+2)(x-5)", "x^2-3x-10"), (r"\sin^2 x", r"\frac{1-\cos 2x}{2}"), ("(x+2)(x-5)", "x^2-3x+10")]
    with Grader() as grader:
        assert True not in grader.grade(pairs)
        assert grader.grade(ordinary) == [True, True, False]


def test_undecided_is_not_remembered():
    with Grader() as grader:
        hard = ("7", r"\ldots")
        assert grader.grade([hard]) == [None]
        assert hard not in grader._cache
        assert grader.grade([("x+1", "1+x")]) == [True]
        assert ("x+1", "1+x") in grader._cache


def test_pairs_are_graded_side_by_side_and_equal_ones_once():
    hard = ("7", r"\prod_{n=1}^{100000000} n")
    with Grader(workers=2) as grader:
        assert grader.submit(("3", "3.0")).done() and grader.submit(((), "3")).done()
        slow = [grader.submit(pair) for pair in (hard, hard, (("3", "7"), hard[1]))]
        assert len(grader._under_way) == 2, "the golds 7 and 3, the first of them asked once"
        assert not slow[0].cancel(), "others wait for it"
        grader.grade([("x+1", "1+x")])
        assert [future.result() for future in slow] == [None, None, None]
        assert not grader._under_way
        assert grader.submit(("x+1", "1+x")).done(), "it is remembered"


def test_what_is_under_way_when_the_grader_closes_fails():
    grader = Grader()
    grader.grade([("x+1", "1+x")])  # it is up
    waiting = [grader.submit(("7", rf"\prod_{{n=1}}^{{100000000}} n + {i}")) for i in range(9)]
    grader.close()
    for future in waiting:
        with pytest.raises(RuntimeError, match="was closed before this pair was graded"):
            future.result(timeout=10)


def test_a_grader_that_is_still_starting_ends_at_once(monkeypatch):
    def never_up(self, settings):
        starting.set()
        self.receive(60.0)  # it has not been told what it waits for

    starting = threading.Event()
    monkeypatch.setattr("rstar_jax.verifier.process.SandboxProcess.begin", never_up)
    grader = Grader()
    waiting = grader.submit(("x+1", "1+x"))
    assert starting.wait(30)
    before = time.monotonic()
    grader.close()
    assert time.monotonic() - before < 20
    with pytest.raises(RuntimeError, match="was closed before"):
        waiting.result(timeout=1)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_graders_end_with_their_host(tmp_path, number):
    """Whatever ends `rstar grade` in the middle of a pair that takes for ever, nothing stays behind."""
    pair = {"gold": "7", "answer": r"\sum_{k=1}^{200}\sum_{j=1}^{200}\sum_{m=1}^{200}\sqrt{j+k+m}"}
    hard = tmp_path / "pairs.jsonl"
    hard.write_text("\n".join(json.dumps(pair | {"answer": pair["answer"] + f"+{n}"}) for n in range(50)))
    host = subprocess.Popen(
        [sys.executable, "-m", "rstar_jax.main", "grade", f"--input={hard}", f"--output={tmp_path}/out"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # tests in the background inherit it ignored
    )  # fmt: skip
    try:
        children = _wait_for(lambda: _descendants(host.pid) if len(_descendants(host.pid)) >= 2 else None, 60)
        time.sleep(0.5)
        children |= _descendants(host.pid)
        os.kill(host.pid, number)
        host.wait(2.0 if number == signal.SIGINT else 10.0)
        assert _wait_for(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in children), 3)
        left = {path.suffix for path in tmp_path.iterdir()}
        assert left == ({".jsonl"} if number != signal.SIGKILL else {".jsonl", ".partial"})
    finally:
        host.kill()
        host.wait()


def _descendants(pid: int) -> set[int]:
    found = set()
    for task in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found |= {child} | _descendants(child)
    return found


def _wait_for(look, seconds: float):
    end = time.monotonic() + seconds
    while not (found := look()):
        if time.monotonic() > end:
            return None
        time.sleep(0.05)
    return found


@pytest.mark.slow
def test_every_pair_that_hangs_ends(grader, table):
    for pair in table("hanging_pairs.jsonl"):
        start = time.monotonic()
        grader.grade([(pair["gold"], pair["answer"])])
        assert time.monotonic() - start < 12.0, pair


def test_lost_processes_are_replaced_and_closing_ends_them():
    grader = Grader()
    assert grader.grade([("x+1", "1+x")]) == [True]
    os.kill(grader._processes[0]._grader, signal.SIGKILL)
    time.sleep(0.2)
    assert grader.grade([("x+2", "2+x"), ("x+3", "3+x")])[1] is True
    os.kill(grader._processes[0]._process.pid, signal.SIGKILL)
    assert grader.grade([("x+4", "4+x")]) == [True]
    pids = grader._processes[0]._process.pid, grader._processes[0]._grader
    grader.close()
    grader.close()
    end = time.monotonic() + 10
    while any(os.path.exists(f"/proc/{pid}") for pid in pids):
        assert time.monotonic() < end
        time.sleep(0.01)
    with pytest.raises(RuntimeError, match="closed"):
        grader.grade([("1", "1")])


def test_a_grader_needs_a_worker():
    with pytest.raises(ValueError, match="workers >= 1, got 0"):
        Grader(workers=0)
