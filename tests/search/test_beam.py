"""Step beam search: against a slow twin, and what the released code gets wrong."""

import dataclasses

import numpy as np
import pytest

import gin
from rstar_jax import configuration
from rstar_jax.evolution.config import EvolutionConfig
from rstar_jax.problems.problem import Problem
from rstar_jax.search import best, search_all
from rstar_jax.search.beam import beam_search
from rstar_jax.search.protocols import Prefix
from rstar_jax.search.scheduler import plant
from rstar_jax.search.tree import ROOT_INDEX, Kind
from rstar_jax.trajectory import markers, steps
from rstar_jax.verifier.protocol import Verdict

from . import scripted
from .scripted import step

CONFIG = dataclasses.replace(scripted.CONFIG, value_mode="test", beam_width=3)


def run(problems, config=CONFIG, jitter=0.0, **world):
    world = {
        "sampler": scripted.Sampler(),
        "verifier": scripted.Verifier(jitter),
        "scorer": scripted.Scorer(),
        "grader": None,
    } | world
    return search_all(problems, config=config, seed=3, **world)


def twin(problem, key, config):
    """The same search, one node after another: rows of (parent, text, what became of it, value)."""
    prompt = steps.prompt(problem.question)
    rows = [(-1, "", "root", 0.0)]
    sampler, scorer = scripted.Sampler(), scripted.Scorer()

    def path(node):
        return path(rows[node][0]) + [rows[node][1]] if node else []

    def become(text, stop, above):
        """(text, what became of it) of a step below the texts `above`."""
        if stop == markers.END_OF_ANSWER:
            return text, "answer"
        if stop in ("", "length") or len(above) + 1 >= config.max_depth:
            return text, "failed"
        codes = [steps.code(line) for line in (*above, text)]
        outcomes = [scripted.run_code("\n".join(codes[:i]), code) for i, code in enumerate(codes)]
        if outcomes[-1].verdict is not Verdict.OK:
            return text, "failed"
        if stop == markers.END_OF_CODE:
            text = steps.with_output(text, "".join(outcome.output for outcome in outcomes).rstrip("\n"))
        return text, "open"

    beam, width = [0], config.beam_width
    while beam:
        first = len(rows)
        for node in beam:
            above = path(node)
            prefix = Prefix(key=(key, node), text=prompt + "".join(above), tokens=())
            seen = set()
            for sampled in sampler.expand([prefix], config.candidates, stops=markers.STEP_STOPS)[0]:
                if sampled.text in seen:
                    continue
                seen.add(sampled.text)
                text, end = become(sampled.text, sampled.stop, above)
                value = -1.0 if end == "failed" else float(scorer.score([prefix], [[scripted.encode(text)]])[0][0])
                rows.append((node, text, end, value))
        alive = [node for node in range(first, len(rows)) if rows[node][2] != "failed"]
        places = sorted(alive, key=lambda node: -rows[node][3])[:width]
        beam = [node for node in places if rows[node][2] == "open"]
        width -= len(places) - len(beam)
    return rows


@pytest.mark.parametrize("width", [1, 3, 8])
def test_beam_search_is_its_slow_twin(width):
    config = dataclasses.replace(CONFIG, beam_width=width)
    problems = scripted.problems(10)
    trees = run(problems, config)
    assert any(tree.answers() for tree in trees)
    for problem, tree in zip(problems, trees, strict=True):
        names = {Kind.ROOT: "root", Kind.ANSWER: "answer", Kind.FAILED: "failed", Kind.STEP: "open", Kind.CODE: "open"}
        rows = twin(problem, tree.key, config)
        assert tree.parent.tolist() == [row[0] for row in rows]
        assert tree.text[1:] == [row[1] for row in rows[1:]]
        assert [names[kind] for kind in tree.kind.tolist()] == [row[2] for row in rows]
        np.testing.assert_allclose(tree.value[1:], [row[3] for row in rows[1:]], atol=1e-6)


def test_trees_depend_neither_on_timing_nor_on_the_batch():
    problems = scripted.problems(9)
    records = [tree.to_dict() for tree in run(problems)]
    assert records == [tree.to_dict() for tree in run(problems[::-1], jitter=0.004)][::-1]
    assert records == [run([problem])[0].to_dict() for problem in problems]


class Values(scripted.Scorer):
    """The value of a step is the number behind "v=" in its text."""

    def score(self, prefixes, candidates):
        texts = [[scripted.decode(tokens) for tokens in row] for row in candidates]
        return [np.array([float(text.split("v=")[1].split()[0]) for text in row]) for row in texts]


def open_step(value, name="s"):
    return step(f"# {name} v={value} \n")


def answer(value, text):
    return step(f"v={value} \\boxed{{{text}}}", markers.END_OF_ANSWER)


def test_nothing_grows_under_the_wrong_parent_and_answers_take_places():
    """The best child answers, the next failed: the released code hangs the third's continuation under the first."""
    good, poor, worst = open_step(0.5, "good"), open_step(0.2, "poor"), open_step(0.1, "worst")
    failing = step("1 / 0 # v=0.8 \n")
    script = scripted.Script(
        {
            "": [answer(0.9, "1"), failing, good, poor, worst],
            good.text: [answer(0.3, "2"), answer(0.6, "3")],
            poor.text: [answer(-0.5, "4")],
        }
    )
    problem = Problem(id="p", question="q", answers=())
    config = dataclasses.replace(CONFIG, beam_width=3, candidates=5)
    (tree,) = run([problem], config, sampler=script, scorer=Values())
    # Of three places the answer keeps one, and the two best open steps have the others; "worst" (no script) has none.
    texts = {tree.text[leaf]: tree.text[tree.parent[leaf]] for leaf in tree.answers()}
    assert [tree.answer[leaf] for leaf in tree.answers()] == ["1", "2", "3", "4"]
    assert list(texts.values()) == [tree.text[ROOT_INDEX], good.text, good.text, poor.text]
    assert tree.answer[best(tree)] == "1"
    assert not any(tree.children(node) for node in range(1, tree.size) if tree.is_terminal(node))


def test_a_low_answer_takes_no_place():
    better, good = open_step(0.6, "better"), open_step(0.5, "good")
    script = scripted.Script(
        {"": [answer(-0.9, "1"), better, good], better.text: [answer(0.1, "2")], good.text: [answer(0.2, "3")]}
    )
    problem = Problem(id="p", question="q", answers=())
    (tree,) = run([problem], dataclasses.replace(CONFIG, beam_width=2), sampler=script, scorer=Values())
    assert [tree.answer[leaf] for leaf in tree.answers()] == ["1", "2", "3"]
    (tree,) = run([problem], dataclasses.replace(CONFIG, beam_width=1), sampler=script, scorer=Values())
    assert [tree.answer[leaf] for leaf in tree.answers()] == ["1", "2"]


def test_a_beam_sees_no_answer_at_test_time_and_needs_a_scorer():
    problems = [
        dataclasses.replace(problem, answers=("SECRET",), solution="SECRET") for problem in scripted.problems(3)
    ]
    assert "SECRET" not in repr([tree.to_dict() for tree in run(problems)])
    tree = plant(problems[0], sampler=scripted.Sampler(), config=scripted.CONFIG, seed=0)
    with pytest.raises(ValueError, match="must not be given the answer"):
        next(beam_search(tree, CONFIG, scripted.encode))
    with pytest.raises(ValueError, match="the PPM chooses the beam"):
        dataclasses.replace(CONFIG, value_mode="terminal")
    (tree,) = run(problems[:1], dataclasses.replace(CONFIG, max_prefix_tokens=10))
    assert tree.size == 1 and tree.exhausted[ROOT_INDEX]


def test_the_gin_file_changes_the_search_of_test_time_alone():
    configuration.parse(["local.gin", "search/beam.gin"], [])
    config = gin.get_configurable(EvolutionConfig)()
    assert config.evaluation.search.config.beam_width == 8
    assert {own.search.beam_width for settings in config.rounds for own in settings.passes} == {None}
