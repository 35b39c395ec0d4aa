"""What a run is made of: its phases in order, what each depends on, which it builds on, and what it writes."""

import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from rstar_jax.evaluation import Measurement, Search
from rstar_jax.evolution.config import EvolutionConfig
from rstar_jax.evolution.run_folder import Phase
from rstar_jax.evolution.world import prompt_after

PROBLEMS, BASE, CONTROL = "problems", "base", "control"
IMPORTED = "imported"  # begins the settings of a base that was
_ROOMS = ("max_prefix_tokens", "max_step_tokens", "max_block_tokens")


class Work(Protocol):
    """Who does the phases; each method is told the round."""

    prepare_problems: Callable[[], None]
    bootstrap: Callable[[], None]
    annotate: Callable[[int], None]
    select: Callable[[int], None]
    train_policy: Callable[[int], None]
    train_ppm: Callable[[int], None]
    train_control: Callable[[], None]
    measure: Callable[[int, Measurement, str], None]
    measure_pairs: Callable[[int], None]


def plan(config: EvolutionConfig, base_settings: str | None, work: Work) -> list[Phase]:
    """All phases of a run, in order.

    base_settings: what the base was made with, if it is done. One that was imported stays what it is.
    """
    phases: list[Phase] = []
    evaluation, last = config.evaluation, len(config.rounds)
    # Of decoding, what a result depends on; the rest is how fast it is had.
    common = {name: getattr(config.decoding, name) for name in _ROOMS} | {"seed": config.seed}
    measured = common | {
        "headline_levels": evaluation.headline_levels,
        "dtype": evaluation.dtype,
        "few_shot": _digest(evaluation.few_shot),
    }

    def add(
        number: int,
        title: str,
        do: Callable[[], None],
        settings: Mapping[str, Any] | str,
        inputs: Sequence[str],
        outputs: Sequence[str],
    ) -> str:
        """Adds a phase, whose outputs lie in its round's folder; returns its name."""
        name = f"{number}_{title}"
        own = tuple(f"round_{number}/{output}" for output in outputs)
        phases.append(Phase(name=name, round=number, settings=settings, inputs=tuple(inputs), outputs=own, work=do))
        return name

    def add_measurement(
        number: int, title: str, own: Measurement, kind: str, inputs: Sequence[str], **more: Any
    ) -> str:
        do = functools.partial(work.measure, number, own, kind)
        outputs = [f"{kind}_evaluation", *["heldout_trees"] * isinstance(own, Search)]
        return add(number, title, do, {"measurement": own, **measured, **more}, inputs, outputs)

    phases.append(
        Phase(
            name=f"0_{PROBLEMS}",
            round=0,
            settings={"problems": config.problems, "seed": config.seed},
            inputs=(),
            outputs=(PROBLEMS,),
            work=work.prepare_problems,
        )
    )
    problems = phases[0].name
    if base_settings is not None and base_settings.startswith(IMPORTED):
        base = add(0, BASE, work.bootstrap, base_settings, (), ("policy",))
    else:
        scratch = {
            "model": config.model,
            "training": config.bootstrap,
            "tail_share": config.tail_share,
            "rounds": last,  # whose questions the tokenizer has read
            "seed": config.seed,
        }
        base = add(0, BASE, work.bootstrap, scratch, (problems,), ("policy", "policy_training"))
    policy, ppm, selected = base, None, []

    for own in evaluation.of_every_round:
        add_measurement(0, "evaluate", own, "policy", (problems, base))
    for number, settings in enumerate(config.rounds, start=1):
        asked = {
            "search": settings.search,
            "sampling": config.decoding.sampling,
            "few_shot": _digest(settings.few_shot),
            "shards": config.shards,
            **common,
        }
        judge = [ppm] if settings.search.needs_scorer and ppm else []
        do = functools.partial(work.annotate, number)
        searched = add(number, "search", do, asked, [problems, policy, *judge], ["trees"])

        kept = {
            "pairs": settings.pairs,
            "trajectories": settings.trajectories,
            "headline_levels": evaluation.headline_levels,
        }
        do, outputs = functools.partial(work.select, number), ("policy_data", "preference_data")
        selected.append(add(number, "select", do, kept, [searched], outputs))

        learned = {"training": settings.policy, "replay": settings.replay, "tail_share": config.tail_share}
        do, outputs = functools.partial(work.train_policy, number), ("policy", "policy_training")
        policy = add(number, "policy", do, learned, [base, problems, *selected], outputs)

        judged = {"training": settings.ppm, "value_scale": config.value_scale}
        do, outputs = functools.partial(work.train_ppm, number), ("ppm", "ppm_training")
        ppm = add(number, "ppm", do, judged, [policy, *selected], outputs)

        for own in evaluation.of_every_round:
            add_measurement(number, "evaluate", own, "policy", [problems, policy])

    equal = {"training": config.rounds[-1].policy, "tail_share": config.tail_share}
    control = add(last, CONTROL, work.train_control, equal, [base, problems], [CONTROL, f"{CONTROL}_training"])
    for own in evaluation.of_every_round:
        add_measurement(last, f"evaluate_{CONTROL}", own, CONTROL, [problems, control])
    inputs, before = [problems, policy, ppm], ()
    for own in evaluation.of_the_last_round:
        name = add_measurement(last, f"evaluate_{own.name}", own, "policy", inputs, before=before)
        inputs, before = [*inputs, name], (*before, own)
    settings = config.rounds[-1]
    pairs = common | {
        "search": settings.search,
        "pairs": settings.pairs,
        "headline_levels": evaluation.headline_levels,
        "pair_problems": evaluation.pair_problems,
    }
    do = functools.partial(work.measure_pairs, last)
    add(last, "evaluate_pairs", do, pairs, [problems, policy, ppm], ())
    return phases


def _digest(few_shot: str | None) -> str:
    """Of the text that stands before a question."""
    return hashlib.sha256(prompt_after(few_shot)("").encode()).hexdigest()[:16]
