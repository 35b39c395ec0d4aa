"""Whole solutions without a tree: a code block, its output, an answer.

For Best-of-N, majority votes, pass@k and greedy decoding: greedy is n = 1 with a sampler of temperature 0.
"""

import dataclasses
from collections.abc import Callable, Sequence

from rstar_jax.problems.problem import Problem
from rstar_jax.search.answers import ScoredAnswer
from rstar_jax.search.protocols import Prefix, Step, StepSampler, StepScorer, Verifier
from rstar_jax.search.tree import tree_key
from rstar_jax.trajectory import markers, steps
from rstar_jax.verifier.protocol import Outcome, Request


@dataclasses.dataclass(frozen=True, kw_only=True)
class Solution:
    """One sampled solution.

    text, tokens: everything after the prompt, the output of the code included. logprob: of the sampled parts.
    sampled_tokens: those that were sampled. program: its code, if its block closed: what was run.
    answer: the content of its box, None if it came to none. ran: its code block closed and ran without a fault.
    ok: it has an answer, and its code, if any, ran.
    """

    text: str
    tokens: tuple[int, ...]
    logprob: float
    sampled_tokens: int
    program: str | None
    answer: str | None
    ran: bool
    ok: bool


def sample_solutions(
    problems: Sequence[Problem],
    n: int,
    *,
    sampler: StepSampler,
    verifier: Verifier,
    max_prefix_tokens: int,
    seed: int,
    prompt: Callable[[str], str] = steps.prompt,
) -> list[list[Solution]]:
    """n solutions a problem, each after `prompt` of its question.

    Three batches for all: code blocks are decoded, then run, then answers are decoded.

    A block whose code fails shows its error as its output and still gets its answer, as in the released code. A
    solution whose prompt, or prompt, block and output, come to more than `max_prefix_tokens` ends without an answer.
    """
    prompts = [_prompt(problem, prompt, sampler, seed) for problem in problems]
    short = [prompt for prompt in prompts if len(prompt.tokens) <= max_prefix_tokens]
    sampled = iter(sampler.expand(short, n, stops=markers.BLOCK_STOPS))
    nothing = [Step(text="", tokens=(), logprob=0.0, stop="length")] * n
    blocks = [next(sampled) if len(prompt.tokens) <= max_prefix_tokens else nothing for prompt in prompts]
    outcomes = _run(blocks, verifier)
    drafts = []  # one for each problem and sample, row by row
    for row, start in enumerate(prompts):
        for index, block in enumerate(blocks[row]):
            drafts.append(_close(block, outcomes[row].get(block.text), start, index, sampler))
    open_drafts = [draft for draft in drafts if draft.goes_on(max_prefix_tokens)]
    tails = sampler.expand([draft.prefix for draft in open_drafts], 1, stops=markers.BLOCK_STOPS) if open_drafts else []
    for draft, (tail,) in zip(open_drafts, tails, strict=True):
        draft.append(tail)
    solutions = iter(drafts)
    return [[next(solutions).solution() for _ in row] for row in blocks]


def solution_answers(
    problems: Sequence[Problem],
    solutions: Sequence[Sequence[Solution]],
    *,
    sampler: StepSampler,
    scorer: StepScorer | None = None,
    seed: int,
    prompt: Callable[[str], str] = steps.prompt,
) -> list[list[ScoredAnswer]]:
    """The answers of each problem's solutions; solutions without one are left out.

    scorer: an ORM or a PPM, which gives each whole solution its score, for Best-of-N (paper: Table 8); equal solutions
        are scored once. Without it all scores are 0. sampler, seed, prompt: as of `sample_solutions`.
    """
    answered = [[solution for solution in row if solution.answer is not None] for row in solutions]
    scores: list[dict[tuple[int, ...], float]] = [{} for _ in answered]
    if scorer is not None:
        asked = [i for i, row in enumerate(answered) if row]
        candidates = [list(dict.fromkeys(solution.tokens for solution in answered[i])) for i in asked]
        values = scorer.score([_prompt(problems[i], prompt, sampler, seed) for i in asked], candidates)
        for i, own, row in zip(asked, candidates, values, strict=True):
            scores[i] = dict(zip(own, map(float, row), strict=True))
    return [
        [ScoredAnswer(answer=solution.answer, score=own.get(solution.tokens, 0.0)) for solution in row]
        for own, row in zip(scores, answered, strict=True)
    ]


@dataclasses.dataclass(kw_only=True)
class _Draft:
    """A solution in the making. `prefix` is the prompt, the block and its output."""

    prefix: Prefix
    prompt: Prefix
    logprob: float
    sampled_tokens: int
    program: str | None
    stop: str
    outcome: Outcome | None

    def goes_on(self, max_prefix_tokens: int) -> bool:
        return self.stop == markers.END_OF_CODE and len(self.prefix.tokens) <= max_prefix_tokens

    def append(self, step: Step) -> None:
        self.prefix = _longer(self.prefix, step.text, step.tokens)
        self.logprob += step.logprob
        self.sampled_tokens += len(step.tokens)
        self.stop = step.stop

    def solution(self) -> Solution:
        text = self.prefix.text[len(self.prompt.text) :]
        # Of the last step alone: what a program printed is no answer.
        last = text.rpartition(markers.END_OF_OUTPUT)[2]
        answer = steps.boxed_answer(last) or None if self.stop == markers.END_OF_ANSWER else None
        return Solution(
            text=text,
            tokens=self.prefix.tokens[len(self.prompt.tokens) :],
            logprob=self.logprob,
            sampled_tokens=self.sampled_tokens,
            program=self.program,
            answer=answer,
            ran=self.outcome is not None and self.outcome.ok,
            ok=(self.outcome is None or self.outcome.ok) and answer is not None,
        )


def _prompt(problem: Problem, prompt: Callable[[str], str], sampler: StepSampler, seed: int) -> Prefix:
    text = prompt(problem.question)
    return Prefix(key=(tree_key(seed, problem.id), 0), text=text, tokens=tuple(sampler.encode(text)))


def _run(blocks: Sequence[Sequence[Step]], verifier: Verifier) -> list[dict[str, Outcome]]:
    """Runs each problem's closed blocks, equal ones once. One dict a problem: text of the block -> Outcome."""
    waiting = []
    for row in blocks:
        texts = list(dict.fromkeys(block.text for block in row if block.stop == markers.END_OF_CODE))
        request = Request(prefix="", candidates=tuple(steps.code(text) for text in texts))
        waiting.append((texts, verifier.submit(request) if texts else None))
    return [dict(zip(texts, future.result(), strict=True)) if texts else {} for texts, future in waiting]


def _close(block: Step, outcome: Outcome | None, prompt: Prefix, index: int, sampler: StepSampler) -> _Draft:
    """A draft of the prompt, the block and, if the block closed, its output."""
    prefix = _longer(dataclasses.replace(prompt, key=(prompt.key[0], 1 + index)), block.text, block.tokens)
    if outcome is not None:
        shown = outcome.output.rstrip("\n") if outcome.ok else outcome.error or outcome.verdict.value
        appended = steps.with_output(block.text, shown)[len(block.text) :]
        prefix = _longer(prefix, appended, tuple(sampler.encode(appended)))
    return _Draft(
        prefix=prefix,
        prompt=prompt,
        logprob=block.logprob,
        sampled_tokens=len(block.tokens),
        program=None if outcome is None else steps.code(block.text),
        stop=block.stop,
        outcome=outcome,
    )


def _longer(prefix: Prefix, text: str, tokens: tuple[int, ...]) -> Prefix:
    return dataclasses.replace(prefix, text=prefix.text + text, tokens=prefix.tokens + tuple(tokens))
