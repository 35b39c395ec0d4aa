"""A real checkpoint against transformers: load time, peak memory, logits; a few problems. One JSON line.

    python -m tests.benchmarks.checkpoint --model=FOLDER [--questions=FILE --count=20] [--dtype=float32]
    python -m tests.benchmarks.checkpoint --model=FOLDER --evaluate=FILE [--count=8] [--peer_python=PYTHON]

Loading is measured in fresh processes, each with a peak of its own: the resident set (which counts the pages of the
file that are mapped) and, beside it, what is held without a file behind it. Needs torch for the comparison.

--evaluate measures whole processes on the first problems of a file, few-shot and greedy: `rstar evaluate` of
runs/few_shot.gin, first with no compiled program kept and then with those of the first time, and the same work in
transformers with one batch of all problems, by a Python (--peer_python) that has torch; null where it has not.
"""

import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import threading
import time

_CHILD = "--only="


def memory_bytes(name: str) -> int:
    """A line of /proc/self/status in bytes."""
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise ValueError(name)


class AnonymousPeak:
    """The largest anonymous memory while it is entered, sampled every few milliseconds."""

    def __enter__(self) -> "AnonymousPeak":
        self.peak, self._done = 0, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.005):
            self.peak = max(self.peak, memory_bytes("RssAnon"))


def load_ours(folder: str, dtype: str):
    import jax

    from rstar_jax import models

    jax.devices()
    before = memory_bytes("RssAnon")
    start = time.perf_counter()
    with AnonymousPeak() as anonymous:
        policy = models.load(folder, dtype=dtype)
        jax.block_until_ready(policy.parameters)
    seconds = time.perf_counter() - start
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(policy.parameters))
    return policy, seconds, size, anonymous.peak - before


def load_theirs(folder: str, dtype: str):
    import torch
    from transformers import AutoModelForCausalLM

    before = memory_bytes("RssAnon")
    start = time.perf_counter()
    with AnonymousPeak() as anonymous:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
    seconds = time.perf_counter() - start
    size = sum(parameter.nbytes for parameter in model.parameters())
    return model, seconds, size, anonymous.peak - before


def loading(which: str, folder: str, dtype: str) -> dict[str, float]:
    load = load_ours if which == "ours" else load_theirs
    _, seconds, size, anonymous = load(folder, dtype)
    return {
        "seconds": seconds,
        "parameter_bytes": size,
        "anonymous_peak_bytes": anonymous,
        "resident_peak_bytes": memory_bytes("VmHWM"),
    }


def compare_logits(folder: str, questions: str, count: int) -> dict[str, float]:
    """Both in fp32, question by question, question and solution (or answer) as they stand in the file."""
    import numpy as np
    import torch

    from rstar_jax.trajectory.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(folder)
    policy, *_ = load_ours(folder, "float32")
    model, *_ = load_theirs(folder, "float32")
    largest, relative, positions, same = 0.0, 0.0, 0, 0
    for line in pathlib.Path(questions).read_text().splitlines()[:count]:
        row = json.loads(line)
        ids = np.array([tokenizer.encode(row["question"] + "\n" + row.get("solution", row["answer"]))], np.int32)
        width = -(-ids.shape[1] // 64) * 64  # few shapes to compile
        padded = np.zeros((1, width), np.int32)
        padded[:, : ids.shape[1]] = ids
        ours = np.asarray(policy.logits(padded, mask=np.arange(width)[None] < ids.shape[1]))[0, : ids.shape[1]]
        with torch.no_grad():
            theirs = model(input_ids=torch.tensor(ids, dtype=torch.long)).logits[0].numpy()
        largest = max(largest, float(np.abs(ours - theirs).max()))
        relative = max(relative, float(np.abs(ours - theirs).max() / np.abs(theirs).max()))
        same += int((ours.argmax(-1) == theirs.argmax(-1)).sum())
        positions += ids.shape[1]
    return {
        "positions": positions,
        "same_top_1": same,
        "largest_difference": largest,
        "largest_relative_difference": relative,
    }


def evaluation(flags: argparse.Namespace) -> dict[str, object]:
    """Seconds of both, start to end, the load of the machine before each, and how many answers agree."""
    from rstar_jax import configuration
    from rstar_jax.trajectory import steps

    preamble = configuration.find("prompts/few_shot.txt").read_text()
    rows = [json.loads(line) for line in pathlib.Path(flags.evaluate).read_text().splitlines()[: flags.count]]
    with tempfile.TemporaryDirectory() as folder:
        prompts, measured = pathlib.Path(folder) / "prompts.json", pathlib.Path(folder) / "measured"
        prompts.write_text(json.dumps([preamble + steps.prompt(row["question"]) + "\n" for row in rows]))
        ours = [sys.executable, "-m", "rstar_jax.main", "evaluate", "--gin_file=runs/few_shot.gin"]
        ours += [f"--policy={flags.model}", f"--problems={flags.evaluate}", f"--limit={flags.count}"]
        theirs = [flags.peer_python, "-m", "tests.benchmarks.checkpoint", f"--model={flags.model}"]
        theirs += [f"--evaluate={prompts}", f"--dtype={flags.dtype}", _CHILD + "transformers"]
        kept = os.environ | {"XDG_CACHE_HOME": folder}
        result: dict[str, object] = {"problems": len(rows), "load": []}

        def seconds(command: list[str]) -> tuple[float, str] | None:
            result["load"].append(os.getloadavg()[0])
            start = time.perf_counter()
            done = subprocess.run(command, env=kept, capture_output=True, text=True)
            if done.returncode:
                print(done.stderr[-2000:], file=sys.stderr)
                return None
            return time.perf_counter() - start, done.stdout

        first = seconds([*ours, f"--output={measured}"])
        again = seconds(ours)
        file = measured / "rows" / "greedy-00000-of-00001.jsonl"
        answers = [json.loads(line)["answers"][0] for line in file.read_text().splitlines()]
        peer = seconds(theirs)
    result |= {"seconds": first and first[0], "seconds_again": again and again[0], "peer_seconds": peer and peer[0]}
    if peer is not None:
        told = json.loads(peer[1].splitlines()[-1])
        result |= {"peer": told["seconds"]}
        result["same_answers"] = sum(a == b for a, b in zip(answers, told["answers"], strict=True))
    return result


def evaluate_by_transformers(flags: argparse.Namespace) -> dict[str, object]:
    """Blocks, their output, answers: each a batch of all problems, padded on the left. Seconds by part, and answers."""
    import torch
    from transformers import AutoTokenizer, StoppingCriteria

    start = time.perf_counter()
    seconds: dict[str, float] = {}

    def lap(name: str) -> None:
        seconds[name] = time.perf_counter() - start - sum(seconds.values())

    model, *_ = load_theirs(flags.model, flags.dtype)
    tokenizer = AutoTokenizer.from_pretrained(flags.model, padding_side="left")
    lap("load")

    class Stops(StoppingCriteria):
        """A row ends where a marker does, which may be part of a token."""

        def __call__(self, ids, scores, **options):
            tails = tokenizer.batch_decode(ids[:, -12:])
            return torch.tensor(
                [any(stop in tail[-24:] for stop in ("<end_of_code>", "<end_of_answer>")) for tail in tails]
            )

    def generate(texts: list[str]) -> list[str]:
        inputs = tokenizer(texts, return_tensors="pt", padding=True)
        with torch.no_grad():
            ids = model.generate(
                **inputs,
                do_sample=False,
                max_new_tokens=192,
                stopping_criteria=[Stops()],
                pad_token_id=tokenizer.pad_token_id,
            )
        news = tokenizer.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        return [re.split(r"(?<=<end_of_code>)|(?<=<end_of_answer>)", new)[0] for new in news]

    prompts = json.loads(pathlib.Path(flags.evaluate).read_text())
    blocks = generate(prompts)
    lap("blocks")
    texts = []
    for prompt, block in zip(prompts, blocks, strict=True):
        code = re.sub(r"<[a-z_]+>", "", block)
        ran = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, timeout=60)
        shown = ran.stdout.rstrip("\n") if ran.returncode == 0 else ran.stderr.strip().splitlines()[-1]
        texts.append(f"{prompt}{block}\n<output>{shown}<end_of_output>")
    lap("programs")
    answers = [re.search(r"\\boxed\{(.*?)\}", tail) for tail in generate(texts)]
    lap("answers")
    return {"seconds": seconds, "answers": [found and found[1] for found in answers]}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--questions")
    parser.add_argument("--count", type=int)
    parser.add_argument("--dtype", help="default: bfloat16; of --evaluate float32, as runs/few_shot.gin has it")
    parser.add_argument("--evaluate", help="a file of problems")
    parser.add_argument("--peer_python", default=sys.executable)
    parser.add_argument("--only")
    flags = parser.parse_args()
    flags.count = flags.count or (8 if flags.evaluate else 20)
    flags.dtype = flags.dtype or ("float32" if flags.evaluate else "bfloat16")
    if flags.only and flags.evaluate:
        print(json.dumps(evaluate_by_transformers(flags)))
        return
    if flags.evaluate:
        print(json.dumps({"model": pathlib.Path(flags.model).name, "dtype": flags.dtype, **evaluation(flags)}))
        return
    if flags.only:
        print(json.dumps(loading(flags.only, flags.model, flags.dtype)))
        return
    result = {"model": pathlib.Path(flags.model).name, "dtype": flags.dtype}
    for which in ("ours", "transformers"):
        command = [sys.executable, "-m", "tests.benchmarks.checkpoint", f"--model={flags.model}"]
        output = subprocess.run(
            [*command, f"--dtype={flags.dtype}", _CHILD + which], check=True, capture_output=True, text=True
        )
        result[which] = json.loads(output.stdout.splitlines()[-1])
    if flags.questions:
        result["logits"] = compare_logits(flags.model, flags.questions, flags.count)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
