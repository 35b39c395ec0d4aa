"""Losses and gradients of a tiny model by torch and transformers: what ours are compared with.

With torch installed, `python -m tests.training.torch_twin` makes the stored ones anew. ORM and PPM have one loss.
"""

import pathlib
import tempfile

import numpy as np

from rstar_jax.training import batches
from tests.models import tiny

GOLDENS = pathlib.Path(__file__).parent / "goldens" / "gradients.npz"
LAYOUT = "qwen2_tied"
SCALE = 2.0  # of values


def examples() -> dict[str, list]:
    """What each loss is computed of."""
    rng = np.random.default_rng(11)

    def tokens(count: int) -> np.ndarray:
        return rng.integers(3, 64, count).astype(np.int32)

    policy = [batches.PolicyExample(tokens=tokens(n), learn=rng.random(n) < 0.6) for n in (5, 12, 9)]
    for own in policy:
        own.learn[0] = False  # nothing stands before it
    nodes = [
        batches.PreferenceExample(
            prefix=tokens(size),
            candidates=(tokens(3), tokens(5), tokens(2)),
            pairs=((0, 1, 0.5), (0, 2, 0.25), (2, 1, 1.0)),
        )
        for size in (4, 9)
    ]
    values = [
        batches.ValueExample(tokens=tokens(n), ends=(2, n - 1), values=(float(rng.uniform(-1, 1)), 0.75))
        for n in (6, 11)
    ]
    return {"policy": policy, "preference": nodes, "value": values}


def head() -> tuple[np.ndarray, float]:
    """The scalar head: weight [D] and bias."""
    return np.random.default_rng(5).normal(size=32).astype(np.float32), 0.25


def by_torch(folder: pathlib.Path) -> dict[str, dict[str, np.ndarray]]:
    """{loss: {"loss": the mean, name of a tensor: its gradient}}; "value" and "bias" are the scalar head's."""
    import torch
    from transformers import AutoModelForCausalLM

    found = {}
    for name, own in examples().items():
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
        weight, bias = (torch.tensor(part, requires_grad=True) for part in head())

        def hidden(tokens, model=model):
            return model.model(input_ids=torch.tensor(tokens[None], dtype=torch.long)).last_hidden_state[0]

        def score(tokens, at, weight=weight, bias=bias, hidden=hidden):
            return hidden(tokens)[at] @ weight + bias

        total, count = torch.zeros(()), 0.0
        for example in own:
            if name == "policy":
                logits = model.lm_head(hidden(example.tokens))[:-1]
                each = torch.nn.functional.cross_entropy(
                    logits, torch.tensor(example.tokens[1:], dtype=torch.long), reduction="none"
                )
                learn = torch.tensor(example.learn[1:])
                total, count = total + each[learn].sum(), count + float(learn.sum())
            elif name == "preference":
                scores = [score(np.concatenate([example.prefix, own]), -1) for own in example.candidates]
                for chosen, rejected, pair in example.pairs:
                    margin = scores[chosen] - scores[rejected]
                    total, count = total - pair * torch.nn.functional.logsigmoid(margin), count + pair
            else:
                for end, value in zip(example.ends, example.values, strict=True):
                    worth = torch.tanh(score(example.tokens, end) / SCALE)
                    total, count = total + (worth - value) ** 2, count + 1
        loss = total / count
        loss.backward()
        gradients = {key: own.grad.numpy() for key, own in model.named_parameters() if own.grad is not None}
        if name != "policy":
            gradients |= {"value": weight.grad.numpy(), "bias": bias.grad.numpy()}
        found[name] = {"loss": np.float32(loss.item()), **gradients}
    return found


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        tiny.write(pathlib.Path(folder) / "model", LAYOUT)
        found = by_torch(pathlib.Path(folder) / "model")
    GOLDENS.parent.mkdir(exist_ok=True)
    flat = {f"{name}/{key}": value for name, own in found.items() for key, value in own.items()}
    np.savez_compressed(GOLDENS, **flat)


if __name__ == "__main__":
    main()
