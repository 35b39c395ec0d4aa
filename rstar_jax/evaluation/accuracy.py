"""Accuracy: which answers are right, means over problems with their standard errors, and paired differences."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rstar_jax.problems import Problem
from rstar_jax.problems.problem import level_order
from rstar_jax.verifier import Grader

SCALING = "scaling_"  # before the names of the numbers of a curve
ACCURACY = "_accuracy"  # behind the names of those of one chosen answer a problem


def grade_answers(golds: Sequence[tuple[str, ...]], answers: Sequence[str | None], grader: Grader) -> list[bool | None]:
    """Whether each answer is one of its golds; None where that is undecided. No answer (None) is wrong."""
    asked = [i for i, answer in enumerate(answers) if answer is not None]
    right: list[bool | None] = [False] * len(answers)
    for i, grade in zip(asked, grader.grade([(golds[i], answers[i]) for i in asked]), strict=True):
        right[i] = grade
    return right


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """The mean, and its standard error by the bootstrap over problems.

    In closed form: the mean of n values drawn with replacement from n has the variance of these values (over n, not
    n - 1) divided by n, so that nothing need be drawn.
    """
    mean = sum(values) / len(values)
    return mean, math.sqrt(sum((value - mean) ** 2 for value in values)) / len(values)


def summarise(rows: Sequence[Mapping[str, Any]], headline: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The numbers of a measurement from its rows (`measure`): {"name", "value", "n", "error", "undecided", ...} each.

    For each name the mean over all problems; with "levels", a text, the mean over the problems of the `headline`'s
    levels, if there are any (where these are all problems it stands alone); with "level", that over one level's.
    n: problems. error: `mean_and_error`. undecided: of the answers, how many the grader could not decide; they count as
    wrong. tokens, programs: sampled and run, a problem. Points of a curve have "trajectories", and no levels of their
    own.
    """
    if not rows:
        return []
    parts: list[tuple[dict[str, str], Sequence[Mapping[str, Any]]]] = [({}, rows)]
    if leading := [row for row in rows if row["level"] in headline]:
        parts[len(leading) < len(rows) :] = [({"levels": ", ".join(headline)}, leading)]
    means, levels = len(parts), {row["level"] for row in rows if row["level"] is not None}
    parts += [({"level": own}, [row for row in rows if row["level"] == own]) for own in sorted(levels, key=level_order)]
    table = []
    for name in rows[0]["values"]:
        for part, own in parts:
            table.append({**_number(name, own, lambda row, name=name: row["values"][name]), **part})
            if "right" in rows[0]:
                table[-1]["undecided"] = sum(None in _grades(row, name) for row in own)
            for cost in ("tokens", "programs"):
                if cost in rows[0]:
                    table[-1][cost] = sum(row[cost] for row in own) / len(own)
    for rule, sizes in rows[0].get("curve", {}).items():
        for size in sizes:
            for part, own in parts[:means]:
                point = _number(SCALING + rule, own, lambda row, rule=rule, size=size: row["curve"][rule][size])
                table.append({**point, "trajectories": int(size), **part})
    return table


def differences(
    measured: Mapping[str, Sequence[Mapping[str, Any]]], minuends: Sequence[str], headline: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Paired differences of accuracies: {"name": "search - greedy", "value", "n", "error", ["levels"]}.

    measured: rows by measurement. minuends: the measurements from whose accuracies the others are taken; of minuends,
    those before. A difference is taken problem by problem, over those that both have answered; `error` is its mean's.
    """
    accuracies = {
        name: {row["id"]: row for row in rows}
        for rows in measured.values()
        for name in (rows[0]["values"] if rows else ())
        if name.endswith(ACCURACY)
    }
    own = [name for key in minuends for name in accuracies if measured[key] and name in measured[key][0]["values"]]
    table = []
    for name in own:
        later = own[own.index(name) :]
        for other in (other for other in accuracies if other not in later):
            pairs = [
                {
                    "id": key,
                    "level": row["level"],
                    "value": row["values"][name] - accuracies[other][key]["values"][other],
                }
                for key, row in accuracies[name].items()
                if key in accuracies[other]
            ]
            leading = [pair for pair in pairs if pair["level"] in headline]
            parts = [({"levels": ", ".join(headline)}, leading)] if leading else []
            if len(leading) < len(pairs):
                parts.insert(0, ({}, pairs))
            title = f"{name.removesuffix(ACCURACY)} - {other.removesuffix(ACCURACY)}"
            table += [{**_number(title, values, lambda pair: pair["value"]), **part} for part, values in parts]
    return table


def headline_problems(problems: Sequence[Problem], headline: Sequence[str]) -> list[Problem]:
    """The problems of these levels; all, where none is of them."""
    return [problem for problem in problems if problem.level in headline] or list(problems)


def _number(name: str, rows: Sequence[Mapping[str, Any]], value: Callable[[Mapping[str, Any]], float]) -> dict:
    mean, error = mean_and_error([value(row) for row in rows])
    return {"name": name, "value": mean, "n": len(rows), "error": error}


def _grades(row: Mapping[str, Any], name: str) -> list[bool | None]:
    """What was graded for a number: one chosen answer, or all."""
    chosen = row.get("chosen", {}).get(name)
    return row["right"] if chosen is None else [chosen["right"]]
