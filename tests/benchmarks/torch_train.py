"""The peer of `tests.benchmarks.train`: python torch_train.py MODEL STEPS prints {"seconds": the least of a step}."""

import json
import os
import sys
import time

import torch
from transformers import AutoModelForCausalLM

ROWS, LENGTH = 8, 256


def main() -> None:
    model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
    model.train()
    torch.set_num_threads(os.cpu_count())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    tokens = torch.randint(0, 1000, (ROWS, LENGTH), generator=torch.Generator().manual_seed(0))
    seconds = []
    for _ in range(int(sys.argv[2]) + 1):
        start = time.perf_counter()
        loss = model(input_ids=tokens, labels=tokens).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()
        seconds.append(time.perf_counter() - start)
    print(json.dumps({"seconds": min(seconds[1:])}))


if __name__ == "__main__":
    main()
