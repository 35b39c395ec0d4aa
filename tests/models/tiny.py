"""Tiny random checkpoints of every layout, as Hugging Face folders, and the logits that transformers gives for them.

Weights come from numpy's generator, so that only the logits are stored. With torch installed,
`python -m tests.models.tiny` makes them anew.
"""

import json
import pathlib

import numpy as np
from safetensors.numpy import save_file

from rstar_jax.models import layouts

GOLDENS = pathlib.Path(__file__).parent / "goldens" / "logits.npz"

_SMALL = {
    "hidden_act": "silu",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 64,
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 128,
    "rope_theta": 10000.0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_QWEN2 = {**_SMALL, "model_type": "qwen2", "rope_theta": 1000000.0}
_LLAMA = {**_SMALL, "model_type": "llama", "attention_bias": False, "mlp_bias": False}
_PHI3 = {**_SMALL, "model_type": "phi3", "num_key_value_heads": 4, "tie_word_embeddings": False}
_LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}

LAYOUTS = {
    "qwen2_tied": {**_QWEN2, "tie_word_embeddings": True},
    "qwen2_untied": {**_QWEN2, "tie_word_embeddings": False},
    "qwen2_multi_head": {**_QWEN2, "num_key_value_heads": 4, "tie_word_embeddings": True},
    "llama_tied": {**_LLAMA, "tie_word_embeddings": True},
    "llama3_scaled": {**_LLAMA, "tie_word_embeddings": False, "rope_scaling": _LLAMA3},
    "llama_linear": {**_LLAMA, "tie_word_embeddings": True, "rope_scaling": {"rope_type": "linear", "factor": 2.0}},
    "llama_one_kv_head": {**_LLAMA, "num_key_value_heads": 1, "head_dim": 16, "tie_word_embeddings": True},
    "phi3": _PHI3,
    "phi3_head_96": {**_PHI3, "hidden_size": 192, "num_attention_heads": 2, "num_key_value_heads": 2},
    "phi3_window": {**_PHI3, "sliding_window": 5},
}


def write(folder: pathlib.Path, name: str, dtype=np.float32) -> None:
    """A checkpoint whose weights, norms and biases included, are all random."""
    fields = LAYOUTS[name]
    _, config = layouts.read_config(fields, dtype="float32", parameter_dtype="float32")
    rng = np.random.default_rng(sum(map(ord, name)))
    sizes = layouts.axis_sizes(config)
    shapes: dict[str, list[int]] = {}
    for row in layouts.tensors(fields["model_type"], config):
        for layer in range(config.layers) if row.stacked else (None,):
            shape = [int(np.prod([sizes[axis] for axis in group])) for group in row.axes]
            shapes[row.name(layer)] = [row.start + shape[0], *shape[1:]]
    tensors = {}
    for key, shape in shapes.items():
        value = rng.normal(size=shape) * (0.3 if len(shape) > 1 else 0.1) + (key.endswith("norm.weight"))
        tensors[key] = value.astype(dtype)
    folder.mkdir(parents=True, exist_ok=True)
    architectures = [layouts.ARCHITECTURES[fields["model_type"]]]
    (folder / "config.json").write_text(json.dumps({**fields, "architectures": architectures}))
    save_file(tensors, str(folder / "model.safetensors"), metadata={"format": "pt"})


def batch() -> tuple[np.ndarray, np.ndarray]:
    """Tokens [4, 24] and masks: two whole rows, one padded on the right, one on the left."""
    tokens = np.random.default_rng(7).integers(3, 64, (4, 24)).astype(np.int32)
    mask = np.ones((4, 24), bool)
    mask[2, 17:] = False
    mask[3, :6] = False
    return tokens, mask


def transformers_logits(folder: pathlib.Path, tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """fp32 logits by transformers and torch, on the CPU."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    positions = np.maximum(np.cumsum(mask, axis=1) - 1, 0)
    with torch.no_grad():
        return model(
            input_ids=torch.tensor(tokens, dtype=torch.long),
            attention_mask=torch.tensor(mask, dtype=torch.long),
            position_ids=torch.tensor(positions, dtype=torch.long),
        ).logits.numpy()


def main() -> None:
    import tempfile

    logits = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in LAYOUTS:
            write(pathlib.Path(folder) / name, name)
            values = transformers_logits(pathlib.Path(folder) / name, *batch())
            logits[name] = values[:, ::3].astype(np.float32)  # every third position: small files
    GOLDENS.parent.mkdir(exist_ok=True)
    np.savez_compressed(GOLDENS, **logits)


if __name__ == "__main__":
    main()
