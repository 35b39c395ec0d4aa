"""Leases: one process a job, another if it dies, and the first one is told when it wakes up."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from rstar_jax import files
from rstar_jax.files import process
from rstar_jax.files.lease import _Holder

from .bucket import Bucket

HOLDER = """
import sys
from tests.files import bucket
from rstar_jax import files
lease = files.Lease(sys.argv[1], seconds=0.8)
with lease:
    print("held", flush=True)
    sys.stdin.readline()
    try:
        lease.check()
        print("kept", flush=True)
    except files.Lost as error:
        print(f"lost: {error}", flush=True)
"""

WORKER = """
import os, random, sys, time
from etils import epath
from tests.files import bucket
from rstar_jax import files
folder, jobs = epath.Path(sys.argv[1]), int(sys.argv[2])
leases = [files.Lease(folder / f"{job}.lease", seconds=20) for job in range(jobs)]
while missing := [job for job in range(jobs) if f"{job}.done" not in files.names(folder)]:
    random.shuffle(missing)
    for job in missing:
        if not leases[job].acquire():
            continue
        if not files.exists(folder / f"{job}.done"):
            assert files.create(folder / f"{job}.busy", str(os.getpid())), "two at once"
            time.sleep(0.01)
            files.remove(folder / f"{job}.busy")
            leases[job].check()
            assert files.create(folder / f"{job}.done", str(os.getpid())), "done twice"
        leases[job].release()
"""


def start(code, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def elsewhere(holder: dict, **changes) -> str:
    """What the file of a holder on another machine says."""
    return json.dumps({**holder, "machine": "ffffffff", "host": "elsewhere", **changes})


@pytest.fixture
def held(folder):
    """A lease, and what the file of a live one of it says."""
    path = folder / "job.lease"
    with files.Lease(path, seconds=0.4):
        holder = json.loads(files.read(path))
    return path, holder


def test_a_lease_is_taken_once_and_given_back(folder):
    path = folder / "job.lease"
    with files.Lease(path) as lease:
        lease.check()
        other = files.Lease(path)
        assert not other.acquire() and f"process {os.getpid()} on" in other.holder
        with pytest.raises(files.Held, match=f"job.lease: held by process {os.getpid()} on .*, since 20"), other:
            pass
    assert files.names(folder) == []
    with pytest.raises(KeyError), files.Lease(path):
        raise KeyError
    assert files.names(folder) == []
    with pytest.raises(RuntimeError, match="not taken"):
        lease.check()


def test_workers_share_jobs(folder):
    workers = [start(WORKER, folder, 24) for _ in range(4)]
    assert [worker.wait(50) for worker in workers] == [0] * 4
    done = files.markers(folder, ".done")
    assert len(done) == 24 and files.names(folder) == sorted(done)


def test_a_killed_process_is_replaced_at_once(folder):
    with start(HOLDER, folder / "job.lease") as killed:
        assert killed.stdout.readline() == "held\n"
        with pytest.raises(files.Held, match=f"process {killed.pid}"), files.Lease(folder / "job.lease"):
            pass
        killed.send_signal(signal.SIGKILL)
        killed.wait()
    lease = files.Lease(folder / "job.lease")
    assert lease.acquire()
    lease.release()
    again = files.Lease(folder / "job.lease")
    assert again.acquire(), "a lease that was taken over is given back too"
    again.release()


def test_a_process_that_stood_still_is_told(folder):
    with start(HOLDER, folder / "job.lease") as slept:
        assert slept.stdout.readline() == "held\n"
        slept.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        with files.Lease(folder / "job.lease", seconds=0.8, wait=True) as lease:
            assert time.monotonic() - began > 0.4
            slept.send_signal(signal.SIGCONT)
            slept.stdin.write("\n")
            slept.stdin.flush()
            assert slept.stdout.readline().startswith("lost: ")
            slept.wait(10)
            lease.check()


def test_a_holder_elsewhere_is_watched_until_it_stands_still(held):
    path, holder = held
    for taken in ("1970-01-01T00:00:00+00:00", "2099-01-01T00:00:00+00:00"):  # clocks of hosts are not compared
        files.publish(path, elsewhere(holder, taken=taken))
        began = time.monotonic()
        with files.Lease(path, seconds=0.4) as lease:
            assert time.monotonic() - began >= 0.4
            lease.check()
        path.with_name("job.lease.1").unlink()


def test_a_holder_elsewhere_that_lives_is_left_alone(held):
    path, holder = held
    files.publish(path, elsewhere(holder))
    lease = files.Lease(path)
    for beat in range(20):
        assert not lease.acquire()
        files.publish(path, elsewhere(holder, beat=beat))
        time.sleep(0.05)
    assert lease.holder.startswith(f"process {holder['pid']} on elsewhere, since ")
    time.sleep(0.45)
    assert not lease.acquire(), "it was refreshed once more since the last look"
    time.sleep(0.45)
    assert lease.acquire()
    lease.release()


def test_the_taker_of_a_turn_is_one(folder):
    """Of many who find the same lease standing still, one gets it."""
    path = folder / "job.lease"
    dead = _Holder("here", process.machine(), 1 << 30, "1", 60.0, "2020", "word")
    files.publish(path, json.dumps(dataclasses.asdict(dead)))
    leases = [files.Lease(path) for _ in range(8)]
    looks = [lease._last() for lease in leases]
    assert len({look for look in looks}) == 1
    for lease, look in zip(leases, looks, strict=True):
        lease._last = lambda start=0, look=look: look  # all looked before the first of them wrote
    taken = [lease for lease in leases if lease.acquire()]
    assert len(taken) == 1
    del taken[0]._last
    taken[0].check()
    taken[0].release()


def test_what_is_no_lease_goes_stale_too(folder):
    files.publish(folder / "job.lease", "\0 half a")
    began = time.monotonic()
    with files.Lease(folder / "job.lease", seconds=0.3) as lease:
        assert time.monotonic() - began >= 0.3
        assert lease.holder == "somebody"


def test_a_lease_whose_file_was_removed_is_lost(folder):
    with files.Lease(folder / "job.lease") as lease:
        files.remove(folder / "job.lease")
        with pytest.raises(files.Lost, match="nobody"):
            lease.check()


def test_a_store_that_is_out_of_reach_for_a_while(bucket, monkeypatch):
    with files.Lease(bucket / "job.lease", seconds=0.2) as lease:
        with monkeypatch.context() as patch:
            patch.setattr(Bucket, "is_out_of_reach", True)
            time.sleep(0.2)
        before = files.read(bucket / "job.lease")
        time.sleep(0.2)
        assert not lease.lost and files.read(bucket / "job.lease") != before
    assert files.names(bucket) == []
    lease = files.Lease(bucket / "job.lease", seconds=0.2)
    assert lease.acquire()
    monkeypatch.setattr(Bucket, "is_out_of_reach", True)
    lease.release()  # nothing to be done about it: it goes stale
    monkeypatch.setattr(Bucket, "is_out_of_reach", False)
    with files.Lease(bucket / "job.lease", seconds=0.2, wait=True):
        pass


def test_processes_have_a_number_and_a_birth():
    with start("input()") as child:
        born = process.born(child.pid)
        assert born and process.born(child.pid) == born
        child.kill()
        time.sleep(0.1)
        assert process.born(child.pid) is None, "not waited for, but it runs no more"
    assert process.born(child.pid) is None and process.born(1 << 40) is None
    assert process.born(1) is not None and process.machine() == process.machine()
