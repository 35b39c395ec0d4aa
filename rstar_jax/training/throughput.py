"""How fast a training is: tokens a second, the share of the devices' peak, and of the time that it waited for data."""

import time

import jax
import numpy as np

from rstar_jax.models.config import DecoderConfig
from rstar_jax.training.batches import Batch

# bf16 operations a second of a device, by the kind that JAX names: from the vendors' data sheets.
PEAK = {
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5": 459e12,
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
    "NVIDIA A100": 312e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200": 989e12,
    "NVIDIA L4": 121e12,
    "Tesla T4": 65e12,
}


def peak(device_kind: str) -> float | None:
    """Of the longest name in `PEAK` that a device's begins with; None for those that are not known, such as CPUs."""
    known = [name for name in PEAK if device_kind.startswith(name)]
    return PEAK[max(known, key=len)] if known else None


def operations(model: DecoderConfig, batch: Batch) -> float:
    """Of the matrix products of a step, forward and backward, that the batch cannot do without; recomputing is none.

    Two a multiplication of a weight by a token's vector, and of a query by a key that it sees; three times as many with
    the backward pass, twice where weights are frozen beside adapters. Tokens are those that are no padding.
    """
    counts = [np.unique(row[row > 0], return_counts=True)[1] for row in np.asarray(batch["segments"])]
    lengths = np.concatenate(counts) if counts else np.zeros(0)
    matrices = model.layers * model.embed * (2 * model.heads + 2 * model.kv_heads) * model.head
    matrices += model.layers * 3 * model.embed * model.mlp
    head = model.vocabulary_size * model.embed if "learn" in batch else 0
    seen = np.sum(lengths * (lengths + 1) / 2)  # of the triangle; a window or branches hide some
    passes = 3 if model.lora is None else 2
    attention = 3 * 2 * seen * model.layers * model.heads * model.head
    return 2.0 * (passes * float(np.sum(lengths)) * (matrices + head) + attention)


class Meter:
    """Measures the steps of a training as they end."""

    def __init__(self, model: DecoderConfig | None):
        """model: of which operations are counted; None: tokens alone."""
        self._model, self._devices = model, jax.device_count()
        self._peak = peak(jax.devices()[0].device_kind)
        self._last, self.waited = time.perf_counter(), 0.0

    def measure(self, batch: Batch) -> dict[str, float]:
        """What the step of `batch` did a second, since the one before it ended."""
        now = time.perf_counter()
        seconds, waited = max(now - self._last, 1e-9), self.waited
        self._last, self.waited = now, 0.0
        found = {
            "tokens_per_second": float(np.count_nonzero(batch["segments"])) / seconds,
            "waiting_for_data": waited / seconds,
        }
        if self._model is not None and self._peak is not None:
            found["mfu"] = operations(self._model, batch) / seconds / self._devices / self._peak
        return found
