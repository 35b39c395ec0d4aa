"""How fast rows of preference pairs are written and read on the local disk: one JSON line.

    python -m tests.benchmarks.rows [--rows=1000000 --shards=64 --folder=DIR]

One process, rows of about 1.3 KB of random words. Seconds of writing include encoding, compression and fsync, those of
reading the decoding to dicts; a million rows are also told by the rate of fewer, 200,000 say. random_batch: 64 rows of
all shards at a time, as training draws them. Memory is the highest that the process has held until then: flat if it
does not depend on how many rows there are.
"""

import argparse
import json
import pathlib
import random
import resource
import tempfile
import time

import numpy as np
import tensorflow_datasets as tfds

from rstar_jax.files import rows

_FEATURES = {name: tfds.features.Text() for name in ("id", "question", "prefix", "chosen", "rejected", "kind")} | {
    "weight": np.float32
}


def pairs(count: int, first: int):
    """Rows that differ, at little cost."""
    draw = random.Random(first)
    words = [f"{draw.getrandbits(24):x}" for _ in range(3000)]
    texts = [" ".join(draw.choices(words, k=size)) for size in (30, 100, 25, 25) for _ in range(500)]
    for i in range(first, first + count):
        a, b, c, d = (texts[500 * part + i * step % 500] for part, step in enumerate((1, 7, 11, 13)))
        yield {"id": f"{i}/3", "question": a, "prefix": b, "chosen": c, "rejected": d, "kind": "step", "weight": 1.0}


def peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, value in {"rows": 1_000_000, "shards": 64, "batches": 200}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--folder", default=None)
    flags = parser.parse_args()
    each = flags.rows // flags.shards
    with tempfile.TemporaryDirectory(dir=flags.folder) as folder:
        start, cpu, memory = time.perf_counter(), time.process_time(), []
        for shard in range(flags.shards):
            rows.write_shard(folder, shard, flags.shards, pairs(each, shard * each), _FEATURES)
            memory.append(peak_megabytes())
        rows.finish(folder, _FEATURES, {"train": flags.shards})
        writing, writing_cpu = time.perf_counter() - start, time.process_time() - cpu
        with rows.Rows(folder) as read:
            count = size = 0
            start, cpu = time.perf_counter(), time.process_time()
            for row in read:
                count += 1
                size += sum(map(len, map(str, row.values()))) if count <= 1000 else 0
                if count == len(read) // 2:
                    memory.append(peak_megabytes())
            reading, reading_cpu = time.perf_counter() - start, time.process_time() - cpu
            memory.append(peak_megabytes())
            draw = random.Random(0)
            start = time.perf_counter()
            for _ in range(flags.batches):
                read.__getitems__(draw.sample(range(len(read)), 64))
            batches = time.perf_counter() - start
        on_disk = sum(file.stat().st_size for file in pathlib.Path(folder).iterdir())
    line = {
        "rows": count,
        "characters_per_row": size / min(count, 1000),
        "bytes_on_disk_per_row": on_disk / count,
        "seconds_to_write": writing,
        "seconds_to_write_a_million_rows": 1e6 * writing / count,
        "rows_written_per_second": count / writing,
        "rows_written_per_cpu_second": count / writing_cpu,
        "seconds_to_read": reading,
        "seconds_to_read_a_million_rows": 1e6 * reading / count,
        "rows_read_per_second": count / reading,
        "rows_read_per_cpu_second": count / reading_cpu,
        "random_batch_rows_per_second": 64 * flags.batches / batches,
        "megabytes_after_first_and_last_shard_written": [memory[0], memory[flags.shards - 1]],
        "megabytes_after_half_and_all_read": memory[-2:],
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
