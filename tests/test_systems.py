"""The published systems of examples/systems: what they say of themselves is so, and their claims hold."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("sklearn")
ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "examples/systems"
sys.path.insert(0, str(FOLDER))
import _common  # noqa: E402

ENTRIES = _common.entries()
SHORT = {"seconds": 1}


@pytest.mark.parametrize("path", ENTRIES, ids=lambda p: p.stem)
def test_what_an_entry_says(path):
    system = ENTRIES[path]
    assert all(map(callable, map(_common.named, system["functions"])))
    assert len(path.read_text().splitlines()) <= 150
    others = {p.stem for p in ENTRIES} - {path.stem}
    imported = [n.module for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.ImportFrom)]
    assert not others & set(imported)
    assert system["claims"] and system["evidence"] in "VvSAU"


def test_rows_stand_once():
    import tomllib

    rows = tomllib.loads((FOLDER / "rows.toml").read_text()).get("row", [])
    numbers = [row["n"] for row in rows] + [s["row"] for s in ENTRIES.values()]
    assert len(set(numbers)) == len(numbers) and all(1 <= n <= 208 for n in numbers)
    for row in rows:
        assert all(map(callable, map(_common.named, row["functions"])))
        path, _, test = row["shown_by"].partition("::")
        assert f"def {test}(" in (ROOT / path).read_text() if test else (ROOT / path).exists()


def test_the_page_is_that_of_the_entries():
    done = subprocess.run(
        [sys.executable, "-m", "examples.systems", "--check"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", ENTRIES, ids=lambda p: p.stem)
def test_claims_hold(path):
    """Within the entry's limit of processor time; another start and another split are the command line's."""
    row = str(ENTRIES[path]["row"])
    done = subprocess.run(
        [sys.executable, "-m", "examples.systems", "--only", row], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_fails_is_said(tmp_path):
    """A claim that does not hold and a function that is not called are failures of an entry."""
    text = (FOLDER / "s187_rsq.py").read_text()
    numbers = dict.fromkeys((c[0] for c in _common.header(FOLDER / "s187_rsq.py")["claims"]), 0.0)
    numbers |= {"accuracy": 1.0, "of_rounding": 1.0}
    path = tmp_path / "s187_rsq.py"
    body = f"{text[: text.index('def run')]}def run(seed, split):\n    return {numbers}\n\n\nmain(SYSTEM, run)\n"
    path.write_text(f"import sys\n\nsys.path.insert(0, {str(FOLDER)!r})\n{body}")
    done = subprocess.run([sys.executable, path], capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert "FAIL of_rounding <= 0.5" in done.stdout and "FAIL tersor.quant.gptq is called" in done.stdout
    assert "ok   heavy_ratio" in done.stdout


def test_an_entry_is_ended_at_its_limit(tmp_path):
    path = tmp_path / "s001_endless.py"
    path.write_text("while True:\n    pass\n")
    code = f"import pathlib; from examples.systems import run; print(run(pathlib.Path({str(path)!r}), {SHORT}, 0, 0))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert "more than 1 s of processor time" in done.stdout, done.stderr
