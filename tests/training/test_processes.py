"""`rstar train_policy` as a job: in several processes, killed, ended by a signal, gone on with by other ones."""

import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from rstar_jax import files, models
from rstar_jax.partitioning import processes
from tests import checkpoints

GIN = """
from __gin__ import dynamic_registration
from rstar_jax.evolution import config as evolution
from rstar_jax.partitioning import mesh as partitioning
from rstar_jax.training import config as training
evolution.TrainingRun:
    policy = @training.TrainingConfig()
    mesh = @partitioning.MeshConfig()
    dtype = 'float32'
partitioning.MeshConfig:
    data = 1
    fsdp = -1
training.TrainingConfig:
    steps = %STEPS
    batch = 8
    learning_rate = 1e-5
    buckets = (128,)
    packed = True
    checkpoint_every = 10
STEPS = 60
"""
STEPS, EPOCH = 60, 5  # steps of 8 of the 40 examples


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A gin file, a model that knows the markers, and rows."""
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "run.gin").write_text(GIN)
    base = models.load(checkpoints.write(folder / "checkpoint"), dtype="float32")
    models.save(models.with_markers(base), folder / "policy")
    rng = np.random.default_rng(0)
    words = [" ".join(rng.choice(list("abcdefghij"), size)) for size in rng.integers(1, 9, 40)]
    rows = [{"question": word, "response": f"<code>\n{word}\n<end_of_code>"} for word in words]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def start(inputs, output, processes=1, devices=2, *more):
    """The processes of one training."""
    with socket.socket() as own:
        own.bind(("localhost", 0))
        port = own.getsockname()[1]
    command = [sys.executable, "-m", "rstar_jax.main", "train_policy", f"--gin_file={inputs / 'run.gin'}"]
    command += [f"--policy={inputs / 'policy'}", f"--data={inputs / 'rows.jsonl'}", f"--output={output}", *more]
    flags = f"--xla_force_host_platform_device_count={devices}"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    jobs = []
    for index in range(processes):
        joined = [f"--coordinator=localhost:{port}", f"--process={index}/{processes}"] if processes > 1 else []
        log = open(pathlib.Path(f"{output}-{index}.log"), "a")
        jobs.append(subprocess.Popen([*command, *joined], env=environment, stdout=log, stderr=log))
    return jobs


def end(jobs, seconds=240):
    """Their exit statuses; all are killed if they do not end."""
    deadline = time.monotonic() + seconds
    try:
        return [job.wait(timeout=max(deadline - time.monotonic(), 0.1)) for job in jobs]
    finally:
        for job in jobs:
            job.kill()
            job.wait()


def until(condition, jobs, seconds=240):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline and all(job.poll() is None for job in jobs), "ended before"
        time.sleep(0.002)


def steps_of(output):
    """The checkpoints of a training that are whole."""
    return sorted(int(name) for name in files.names(output / "training") if name.isdecimal())


def log(output):
    return pathlib.Path(f"{output}-0.log").read_text()


def same(one, other):
    """All parameters to 1e-6, but for biases of keys, on which next to nothing depends: Adam makes steps of noise."""

    def check(path, a, b):
        tolerance = 2 * STEPS * 1e-5 if path[-1].key == "key_bias" else 1e-6
        np.testing.assert_allclose(a, b, atol=tolerance, rtol=0)

    one, other = (models.load(own, dtype="float32").parameters for own in (one, other))
    jax.tree_util.tree_map_with_path(check, one, other)


@pytest.fixture(scope="module")
def whole(inputs, tmp_path_factory):
    """What one process finds that nobody has disturbed, on a mesh of two devices."""
    output = tmp_path_factory.mktemp("whole") / "model"
    assert end(start(inputs, output)) == [0], log(output)
    return output


def test_what_is_written_while_it_trains(whole):
    rows = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(STEPS))
    wanted = {"loss", "token_accuracy", "gradient_norm", "update_norm", "tokens_per_second", "waiting_for_data"}
    assert wanted <= rows[0].keys()
    first, last = (np.mean([row["loss"] for row in own]) for own in (rows[:EPOCH], rows[-EPOCH:]))
    assert last < first - 0.02
    assert list((whole / "tensorboard").iterdir())
    assert not (whole / "training").exists()


@pytest.mark.slow  # that one that is killed and begun again is the same is seen below
def test_processes_train_as_one(inputs, whole, tmp_path):
    output = tmp_path / "model"
    assert end(start(inputs, output, processes=2, devices=1)) == [0, 0], log(output)
    same(output, whole)


def test_a_signal_ends_a_training_at_a_step_and_other_devices_go_on(inputs, whole, tmp_path):
    output = tmp_path / "model"
    jobs = start(inputs, output)
    until(lambda: steps_of(output), jobs)
    jobs[0].send_signal(signal.SIGTERM)
    assert end(jobs) == [42], log(output)
    (step,) = steps_of(output)
    said = re.search(r"ended by a signal after step (\d+)", log(output))
    assert step < STEPS and int(said[1]) + 1 == step
    assert "the same command goes on from here" in log(output)
    assert end(start(inputs, output, devices=4)) == [0], log(output)
    same(output, whole)
    rows = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(STEPS))


@pytest.mark.slow
def test_a_signal_to_one_process_ends_all_and_the_same_command_goes_on(inputs, whole, tmp_path):
    output = tmp_path / "model"
    jobs = start(inputs, output, processes=2, devices=1)
    until(lambda: steps_of(output), jobs)
    jobs[1].send_signal(signal.SIGTERM)
    assert end(jobs) == [42, 42], log(output)
    assert steps_of(output)
    assert end(start(inputs, output)) == [0], log(output)
    same(output, whole)


def test_a_process_that_is_killed_while_it_saves_loses_nothing(inputs, whole, tmp_path):
    output = tmp_path / "model"
    jobs = start(inputs, output, processes=2, devices=1)
    until(lambda: steps_of(output) and any("tmp" in name for name in files.names(output / "training")), jobs)
    jobs[1].kill()
    time.sleep(1.0)
    jobs[0].kill()  # as a launcher does; alone it would wait for the other
    end(jobs)
    assert steps_of(output)
    assert end(start(inputs, output)) == [0], log(output)  # in one process
    same(output, whole)
    rows = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(STEPS))


def test_a_folder_of_another_training_or_of_a_model_is_refused(inputs, whole, tmp_path):
    assert end(start(inputs, whole)) == [2]
    assert "holds a model; expected a new folder" in log(whole)
    output = tmp_path / "model"
    jobs = start(inputs, output)
    until(lambda: (output / "config.gin").exists(), jobs)
    jobs[0].kill()
    end(jobs)
    assert end(start(inputs, output, 1, 2, "--gin.TrainingConfig.learning_rate=1e-4")) == [2]
    assert "learning_rate = 0.0001" in log(output)
    (inputs / "other.jsonl").write_text((inputs / "rows.jsonl").read_text())
    assert end(start(inputs, output, 1, 2, f"--data={inputs / 'other.jsonl'}")) == [2]
    assert "other.jsonl" in log(output)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((None, "0/2"), "--process=0/2: expected a --coordinator beside it"),
        (("here", "0/2"), "--coordinator=here: expected HOST:PORT, or auto"),
        (("localhost:1", "2/2"), "--process=2/2: expected INDEX/COUNT"),
        (("localhost:1", None), "--process=None: expected INDEX/COUNT"),
    ],
)
def test_processes_that_cannot_meet_are_named(flags, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        processes.join(*flags)
