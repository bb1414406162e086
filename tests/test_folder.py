"""Replacing a model folder. The one rule: under its name there is the old folder or the whole new one, whatever stops the
run and when, and nothing that was not made for it is touched."""

import errno
import json
import os
import random
import signal
import stat
import subprocess
import sys
import time

import numpy as np
import pytest
from tersor import convert
from tersor.checkpoint import Writer, _folder, load
from tersor.checkpoint._atomic import is_temporary
from tersor.prune import prune_safetensors

pytestmark = pytest.mark.skipif(os.name != "posix", reason="modes, links and signals")


def write(path, arrays):
    with Writer(path, [(k, "F32", a.shape) for k, a in arrays.items()]) as file:
        for a in arrays.values():
            file.write(a.astype(np.float32))


def model(path, shards=1, value=None, rows=8):
    """A folder of so many files of one weight each, with a tokenizer in it."""
    (path / "tokenizer").mkdir(parents=True)
    (path / "config.json").write_text(json.dumps({"made": str(value)}))
    (path / "tokenizer" / "words.txt").write_text("words")
    names = [f"model-{i:05}-of-{shards:05}.safetensors" for i in range(shards)] if shards > 1 else ["model.safetensors"]
    rng = np.random.default_rng(0)
    for i, name in enumerate(names):
        write(
            path / name, {f"l.{i}.weight": rng.normal(size=(rows, 64)) if value is None else np.full((rows, 64), value)}
        )
    if shards > 1:
        where = {f"l.{i}.weight": name for i, name in enumerate(names)}
        (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    return path


def contents(path):
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def quantize(source, out):
    convert.quantize_safetensors(source, out, "int8-row")


def prune(source, out):
    prune_safetensors(source, out, 0.5)


COMMANDS = pytest.mark.parametrize("command", [prune, quantize], ids=["prune", "quantize"])

CHILD = """
import sys
from tersor import convert, prune
print("ready", flush=True)
if sys.argv[1] == "prune":
    prune.prune_safetensors(sys.argv[2], sys.argv[3], 0.5)
else:
    convert.quantize_safetensors(sys.argv[2], sys.argv[3], "int8-row")
"""


@pytest.mark.serial
@COMMANDS
def test_kills_leave_the_old_folder_or_the_new_one(tmp_path, command, thorough):
    source, whole, out = model(tmp_path / "source", 4, rows=1 << 14), tmp_path / "whole", tmp_path / "out"
    start = time.monotonic()
    command(source, whole)
    seconds, new = time.monotonic() - start, contents(whole)
    old = contents(model(tmp_path / "old", 2, 1.0))
    chance, seen = random.Random(3), set()
    times = 200 if thorough else 20
    for tried in range(times):
        if tried % 4 == 0:  # there is no folder, an old one, or what the run before it left
            subprocess.run(["rm", "-rf", out], check=True)
        if tried % 4 == 1 and not out.exists():
            model(out, 2, 1.0)
        before = contents(out) if out.exists() else None
        running = subprocess.Popen(
            [sys.executable, "-c", CHILD, command.__name__, source, out], stdout=subprocess.PIPE, text=True
        )
        assert running.stdout.readline() == "ready\n"
        time.sleep(chance.uniform(0, 1.5) * seconds)
        running.send_signal(signal.SIGKILL)
        running.communicate()
        now = contents(out) if out.exists() else None
        assert now in (before, new)
        assert before in (None, old, new)
        assert sum(is_temporary(p.name) for p in tmp_path.iterdir()) <= 1
        seen.add("new" if now == new else "old")
    assert "old" in seen
    command(source, out)
    assert contents(out) == new
    assert not any(is_temporary(p.name) for p in tmp_path.iterdir())


@pytest.fixture(params=[True, False], ids=["exchanged", "two renames"])
def swap(request, monkeypatch):
    """Both ways in which two folders change places."""
    if not request.param:
        monkeypatch.setattr(_folder, "exchange", lambda *_: False)


@COMMANDS
@pytest.mark.parametrize(("first", "second"), [(1, 3), (3, 1), (3, 2)])
def test_nothing_of_an_old_result_stays(tmp_path, command, swap, first, second):
    a, b = model(tmp_path / "a", first, 1.0), model(tmp_path / "b", second, 2.0)
    for source in (a, b):
        command(source, tmp_path / "out")
    command(b, tmp_path / "fresh")
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")
    assert convert.load(tmp_path / "out").keys() == load(b).keys()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b", "fresh", "out"]


def test_what_fails_between_two_renames_is_undone(tmp_path, monkeypatch):
    out = model(tmp_path / "out", 1, 1.0)
    before, real = contents(out), os.rename

    def fail(source, target):
        if os.path.basename(target) == "out" and not source.endswith("-old.tersor-tmp"):
            raise OSError(errno.EIO, "Input/output error", source, None, target)
        real(source, target)

    monkeypatch.setattr(_folder, "exchange", lambda *_: False)
    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(OSError, match="Input/output") as caught:
        prune(model(tmp_path / "in", 1, 2.0), out)
    assert "tersor-tmp" not in str(caught.value) and caught.value.filename == str(out)
    assert contents(out) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "out"]


DIES = """
import os, sys
from tersor.checkpoint import _folder
from tersor.prune import prune_safetensors
real, done = os.rename, []
def rename(*names):
    if done:
        os._exit(9)
    done.append(real(*names))
_folder.exchange = lambda *_: False
os.rename = rename
prune_safetensors(sys.argv[1], sys.argv[2], 0.5)
"""


@pytest.mark.parametrize("fails", [True, False])
def test_what_dies_between_two_renames_is_put_right_by_the_next_run(tmp_path, fails):
    source, out = model(tmp_path / "in", 2, 2.0), model(tmp_path / "out", 1, 1.0)
    before = contents(out)
    assert subprocess.run([sys.executable, "-c", DIES, source, out], check=False).returncode == 9
    assert not out.exists()
    if fails:  # the old folder is back even so
        write(source / "model-00001-of-00002.safetensors", {"l.1.weight": np.full((8, 64), np.nan)})
        with pytest.raises(ValueError, match="finite"):
            prune(source, out)
        assert contents(out) == before
    else:
        prune(source, out)
        prune(source, tmp_path / "fresh")
        assert contents(out) == contents(tmp_path / "fresh")
    assert not any(is_temporary(p.name) for p in tmp_path.iterdir())


@COMMANDS
def test_modes_are_kept(tmp_path, command, swap):
    source, out = model(tmp_path / "in"), tmp_path / "out"
    old = os.umask(0o027)
    try:
        command(source, out)
        assert stat.S_IMODE(out.stat().st_mode) == 0o750
        assert stat.S_IMODE((out / "model.safetensors").stat().st_mode) == 0o640
        out.chmod(0o705)
        (out / "model.safetensors").chmod(0o604)
        (out / "tokenizer" / "words.txt").chmod(0o600)
        command(source, out)
    finally:
        os.umask(old)
    modes = [stat.S_IMODE(p.stat().st_mode) for p in (out, out / "model.safetensors", out / "tokenizer" / "words.txt")]
    assert modes == [0o705, 0o604, 0o600]


def hub(path):
    """A snapshot of links to files that are called by the hashes of what is in them."""
    plain = model(path / "plain")
    (path / "blobs").mkdir()
    snapshot = path / "snapshots" / "1"
    snapshot.mkdir(parents=True)
    for i, name in enumerate(("model.safetensors", "config.json")):
        blob = path / "blobs" / (f"{i:064x}" if i == 0 else f"{i:040x}")
        (plain / name).rename(blob)
        (snapshot / name).symlink_to(os.path.relpath(blob, snapshot))
    return snapshot


@COMMANDS
def test_what_is_called_by_its_hash_is_not_written_to(tmp_path, command, swap):
    snapshot = hub(tmp_path)
    before = contents(tmp_path / "blobs")
    if command is prune:  # in place
        prune(snapshot, snapshot)
        assert (snapshot / "config.json").is_symlink()
        assert (load(snapshot)["l.0.weight"] == 0).mean() == 0.5
    else:  # over links of another result
        quantize(model(tmp_path / "other"), snapshot)
    assert not (snapshot / "model.safetensors").is_symlink()
    assert contents(tmp_path / "blobs") == before


@COMMANDS
def test_a_file_called_by_its_hash_is_not_written_to(tmp_path, command):
    link = hub(tmp_path) / "model.safetensors"
    before = contents(tmp_path / "blobs")
    command(link, link)
    assert not link.is_symlink()
    assert contents(tmp_path / "blobs") == before
    assert sorted(os.listdir(link.parent)) == ["config.json", "model.safetensors"]


@COMMANDS
def test_a_link_to_a_folder_stays_and_its_target_is_replaced(tmp_path, command, swap):
    source, there = model(tmp_path / "in"), model(tmp_path / "disk" / "there", 2, 1.0)
    (tmp_path / "out").symlink_to(there)
    command(source, tmp_path / "out")
    command(source, tmp_path / "fresh")
    assert (tmp_path / "out").is_symlink()
    assert contents(there) == contents(tmp_path / "fresh")
    assert os.listdir(tmp_path / "disk") == ["there"]


def test_links_to_what_lies_outside_are_followed_for_copies(tmp_path):
    source = model(tmp_path / "in")
    (tmp_path / "shared.txt").write_text("shared")
    (source / "shared.txt").symlink_to(tmp_path / "shared.txt")
    prune(source, tmp_path / "out")
    assert (tmp_path / "out" / "shared.txt").read_text() == "shared"
    assert not (tmp_path / "out" / "shared.txt").is_symlink()


@COMMANDS
def test_what_is_no_result_is_left_alone(tmp_path, monkeypatch, command):
    source = model(tmp_path / "in")
    repository, home = model(tmp_path / "repository"), model(tmp_path / "home")
    (repository / ".git").mkdir()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "diary.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    monkeypatch.chdir(home / "tokenizer")
    before = contents(tmp_path)
    for path, says in [
        (repository, "git repository"),
        (tmp_path / "notes", "left alone"),
        (tmp_path / "file", "is a file"),
        (home, "holds the current folder"),
        (home / "tokenizer", "is the current folder"),
        *([("/proc", "mount point")] if os.path.ismount("/proc") else []),
    ]:
        with pytest.raises(OSError, match=says) as caught:
            command(source, path)
        assert caught.value.filename == str(path)
    assert contents(tmp_path) == before


@COMMANDS
@pytest.mark.parametrize("single", [True, False], ids=["file", "folder"])
@pytest.mark.parametrize("call", ["preadv", "write", "fsync"])
def test_errors_name_what_was_read_or_what_is_written(tmp_path, monkeypatch, command, single, call):
    source, out = model(tmp_path / "in"), tmp_path / "out"
    there = "model.safetensors" if single else ""
    real, calls = getattr(os, call), []
    (out.mkdir() if single else model(out, 1, 1.0))
    before = contents(tmp_path)

    def fail(fd, *rest):
        if os.path.isdir(f"/proc/self/fd/{fd}"):
            return real(fd, *rest)
        calls.append(fd)
        if call != "preadv" or len(calls) > 2:  # the header is read, and then no more
            raise OSError(errno.EIO, "Input/output error")
        return real(fd, *rest)

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match="Input/output") as caught:
        command(source / there, out / there)
    monkeypatch.undo()
    named = str(caught.value.filename)
    assert named.startswith(str(source if call == "preadv" else out)) and not is_temporary(os.path.basename(named))
    assert "tersor-tmp" not in named
    assert contents(tmp_path) == before


def test_a_file_that_cannot_be_read_while_it_is_copied_is_named(tmp_path, monkeypatch):
    source = model(tmp_path / "in")
    real = open

    def opened(path, *rest, **options):
        file = real(path, *rest, **options)
        if str(path).endswith("words.txt"):
            file.close()
            return real("/proc/self/mem", "rb", buffering=0)  # reading its start is an input/output error
        return file

    monkeypatch.setattr("builtins.open", opened)
    with pytest.raises(OSError, match="Input/output") as caught:
        prune(source, tmp_path / "out")
    assert caught.value.filename == str(source / "tokenizer" / "words.txt")
    assert not (tmp_path / "out").exists()
