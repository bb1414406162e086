"""Pruning a file and being stopped. The one rule: whatever stops it, and whenever, the destination holds the old bytes or the
new ones, and the next run clears away what the stopped one left."""

import errno
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from tersor.checkpoint import Writer, _atomic
from tersor.prune import prune_safetensors

pytestmark = [pytest.mark.serial, pytest.mark.skipif(os.name != "posix", reason="POSIX signals")]

SHAPES = [(1024, 1024)] * 6 + [(1024,)]  # 24 MB
CHILD = """
import sys
from tersor.prune import prune_safetensors
print("ready", flush=True)
prune_safetensors(sys.argv[1], sys.argv[2], 0.5)
print("done", flush=True)
"""


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """(source, file of the destination's old bytes, digest of the new bytes, seconds of work)"""
    where = tmp_path_factory.mktemp("kill")
    src, old, new = where / "in.safetensors", where / "old.safetensors", where / "new.safetensors"
    rng = np.random.default_rng(0)
    for path in (src, old):
        with Writer(path, [(f"w{i}", "F32", s) for i, s in enumerate(SHAPES)]) as file:
            for shape in SHAPES:
                file.write(rng.standard_normal(shape, np.float32))
    start = time.monotonic()
    prune_safetensors(src, new, 0.5)
    return src, old, digest(new), time.monotonic() - start


def digest(path):
    """What a file holds, or None where there is none: bytes that differ would be explained for an hour."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None


def child(src, dst):
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(src), str(dst)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n", process.communicate()
    return process


def temporaries(folder):
    return [n for n in os.listdir(folder) if _atomic.is_temporary(n)]


def kills(case, tmp_path, times):
    src, old, new, seconds = case
    dst = tmp_path / "out.safetensors"
    rng = random.Random(times)
    seen, most = set(), 0
    for i in range(times):
        in_place = i % 4 == 3
        shutil.copyfile(src if in_place else old, dst)
        if i == times - 1:
            dst.unlink()
        before = digest(dst)
        process = child(dst if in_place else src, dst)
        time.sleep(rng.uniform(0, 1.3 * seconds))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        now = digest(dst)
        assert now in (before, new), f"kill {i}: the destination is broken"
        seen.add("new" if now == new else "old")
        most = max(most, len(temporaries(tmp_path)))
    assert most <= 1, "a run did not clear away what the one before it left"
    assert seen == {"old", "new"} or times < 10 or "old" in seen
    prune_safetensors(src, dst, 0.5)
    assert digest(dst) == new and not temporaries(tmp_path)


def test_killed_twenty_times(case, tmp_path):
    kills(case, tmp_path, 20)


@pytest.mark.full
@pytest.mark.timeout(3000)
def test_killed_two_hundred_times(case, tmp_path):
    kills(case, tmp_path, 200)


@pytest.mark.parametrize("moment", [0.2, 0.5, 0.8])
def test_interrupted(case, tmp_path, moment):
    src, old, new, seconds = case
    dst = tmp_path / "out.safetensors"
    shutil.copyfile(old, dst)
    process = child(src, dst)
    time.sleep(moment * seconds)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    # between the file's new name and the word of it lies a moment, and an interrupt may fall into it
    assert digest(dst) in ([new] if out else [digest(old), new]) and not temporaries(tmp_path)
    assert out or (process.returncode == -signal.SIGINT and "KeyboardInterrupt" in err)


FULL = """
import resource, signal, sys
from tersor.prune import prune_safetensors
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
for limit in map(int, sys.argv[3:]):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        prune_safetensors(sys.argv[1], sys.argv[2], 0.5)
    except OSError as error:
        print(error.errno)
"""


def test_no_room_at_twenty_offsets(case, tmp_path):
    src, old, _, _ = case
    dst = tmp_path / "out.safetensors"
    shutil.copyfile(old, dst)
    size = dst.stat().st_size  # as the new file's: pruning writes zeros
    limits = [*random.Random(0).sample(range(size), 18), 1, size - 1]
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(src), str(dst), *map(str, limits)],
        capture_output=True, text=True, timeout=240, check=True,
    )  # fmt: skip
    assert done.stdout.split() == [str(errno.EFBIG)] * 20, done.stdout
    assert digest(dst) == digest(old) and not temporaries(tmp_path)


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
@pytest.mark.parametrize("in_place", [False, True])
def test_a_failing_disk(case, tmp_path, monkeypatch, call, in_place):
    src, old, _, _ = case
    dst = tmp_path / "out.safetensors"
    shutil.copyfile(old, dst)
    real, left = getattr(os, call), [3 if call == "write" else 0]

    def fail(*args):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*args)

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match="No space"):
        prune_safetensors(dst if in_place else src, dst, 0.5)
    monkeypatch.undo()
    assert digest(dst) == digest(old) and os.listdir(tmp_path) == ["out.safetensors"]


def test_two_writers_at_once(case, tmp_path):
    """One of their files, whole."""
    src, _, new, _ = case
    dst = tmp_path / "out.safetensors"
    both = [child(src, dst) for _ in range(2)]
    for process in both:
        out, err = process.communicate(timeout=120)
        assert out == "done\n", err
    assert digest(dst) == new and not temporaries(tmp_path)
