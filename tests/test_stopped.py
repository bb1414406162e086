"""Commands that are stopped half-way, by a disk that is full or by somebody. The one rule: OUT is what it was, nothing of the
stopped run is left but what --resume asks for, and one line says what happened."""

import errno
import os
import signal

import pytest

pytest.importorskip("click")

from tersor.checkpoint._atomic import SUFFIX
from tersor.cli import main
from tersor.jobs import _journal
from test_folder import contents, model

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals")

COMMANDS = {"prune": ["prune", "--sparsity", "0.5"], "quantize": ["quantize", "--scheme", "int8-row"]}
ENDS = {"full": (2, "No space left on device"), "SIGINT": (130, "interrupted"), "SIGTERM": (143, "terminated")}


@pytest.fixture
def run(monkeypatch, capsys):
    """The command line in this process, in which something happens when so many bytes have been written: its status, and the
    one line that it said of it."""
    real = os.write

    def ran(what, left, *arguments):
        def write(fd, data):
            nonlocal left
            left -= len(data)
            if left < 0:
                if what == "full":
                    raise OSError(errno.ENOSPC, "No space left on device")
                left = 1 << 60
                os.kill(os.getpid(), getattr(signal, what))
            return real(fd, data)

        before = signal.getsignal(signal.SIGTERM)
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", write)
            try:
                with pytest.raises(SystemExit) as end:
                    main([str(a) for a in arguments])
            finally:
                signal.signal(signal.SIGTERM, before)
        said = capsys.readouterr().err.strip()
        assert "Traceback" not in said and "\n" not in said and bool(said) == bool(end.value.code), said
        return end.value.code, said

    return ran


@pytest.mark.parametrize("what", ENDS)
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("single", [True, False], ids=["file", "folder"])
def test_nothing_is_lost(run, tmp_path, command, what, single):
    source, out = model(tmp_path / "in", 1 if single else 4), tmp_path / ("out.safetensors" if single else "out")
    given = source / "model.safetensors" if single else source
    for old in (False, True):
        if old:
            (out.write_bytes(b"old") if single else model(out, 2, 1.0))
        before = contents(tmp_path)
        # 2 kB of a file, or its fourth part of four files
        status, said = run(what, 300 if single else 1500, *COMMANDS[command], given, "-o", out)
        assert status == ENDS[what][0] and ENDS[what][1] in said, said
        assert what != "full" or said.startswith(f"tersor: {out}"), said
        assert contents(tmp_path) == before and not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("what", ENDS)
@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_done_is_kept_on_request(run, tmp_path, command, what):
    source, out, whole = model(tmp_path / "in", 4), tmp_path / "out", tmp_path / "whole"
    assert run("full", 1 << 60, *COMMANDS[command], source, "-o", whole)[0] == 0
    seen = 0
    for left in (200, 3500, 6500, 200):
        status, said = run(what, left, *COMMANDS[command], source, "-o", out, "--resume")
        if not status:
            break
        assert status == ENDS[what][0] and not out.exists(), said
        halves = list(tmp_path.glob(f".out.*{SUFFIX}"))
        assert len(halves) == 1
        seen = max(seen, len(list(halves[0].glob("[!.]*.safetensors"))))
    assert seen
    assert run("full", 1 << 60, *COMMANDS[command], source, "-o", out, "--resume")[0] == 0
    assert contents(out) == contents(whole) and not list(tmp_path.glob(".*")) and _journal.NAME not in contents(out)


@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_no_model(run, tmp_path, command):
    """Folders without weights, and what must not even be opened for reading: a pipe would wait for ever."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "config.json").write_text("{}")
    (tmp_path / "folder.safetensors").mkdir()
    (tmp_path / "piped").mkdir()
    os.mkfifo(tmp_path / "piped" / "model.safetensors")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "index").mkdir()
    (tmp_path / "index" / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-1.safetensors"}}')
    for name, status, said in (
        ("empty", 2, "no model here: no safetensors file"),
        ("notes", 2, "no model here: no safetensors file"),
        ("folder.safetensors", 2, "no model here: no safetensors file"),
        ("piped", 2, "piped/model.safetensors: is not a regular file"),
        ("pipe", 2, "pipe: is not a regular file"),
        ("index", 2, "index/model-1.safetensors: No such file"),
    ):
        got, line = run("full", 1 << 60, *COMMANDS[command], tmp_path / name, "-o", tmp_path / "out")
        assert got == status and said in line, line
    assert not (tmp_path / "out").exists()
