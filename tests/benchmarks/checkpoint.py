"""A real checkpoint against transformers: load time, peak memory, logits. One JSON line.

    python -m tests.benchmarks.checkpoint --model=FOLDER [--questions=FILE --count=20] [--dtype=float32]

Loading is measured in fresh processes, each with a peak of its own: the resident set (which counts the pages of the
file that are mapped) and, beside it, what is held without a file behind it. Needs torch for the comparison.
"""

import argparse
import json
import pathlib
import subprocess
import sys
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


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--questions")
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--only")
    flags = parser.parse_args()
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
