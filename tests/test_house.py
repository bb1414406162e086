"""The arrows of the house point down: what stands in docs/design.md, held."""

import ast
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
FAMILIES = {"hyperbolic", "lorentz", "loss", "project", "prune", "quant", "sparse"}
#: families that still look into another one; this list may only shrink
LOOK = {("lorentz", "hyperbolic")}


def crates():
    found = {}
    for path in (ROOT / "rust").rglob("Cargo.toml"):
        made = tomllib.loads(path.read_text())
        found[made["package"]["name"].removeprefix("tersor-")] = set(made.get("dependencies", {}))
    return found


def test_crates_depend_downwards():
    all_ = crates()
    families = set(all_) - {"base", "drivers", "ops", "py"}
    assert {k.partition("-")[0] for k in families} == FAMILIES
    assert not all_["base"] & set(all_)
    assert all_["drivers"] & set(all_) == {"base"}
    for family in families:
        assert all_[family] & set(all_) <= {"base", "drivers"}, family
    assert all_["ops"] & set(all_) == families | {"base"}
    assert all_["py"] & set(all_) == {"base", "ops"}


def test_crates_whose_tests_are_not_compiled_have_none():
    for path in (ROOT / "rust").rglob("Cargo.toml"):
        if tomllib.loads(path.read_text()).get("lib", {}).get("test", True) is False:
            sources = path.parent.glob("src/**/*.rs")
            assert not [p for p in sources if "#[test]" in p.read_text()], path.parent


def imports(path):
    """The modules of the package that a file imports, wherever it does."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] == "tersor":
            yield from (f"{node.module}.{a.name}" for a in node.names) if node.module == "tersor" else (node.module,)
        elif isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.startswith("tersor."))


def family(module):
    part = module.split(".")[1] if "." in module else ""
    return part if part in FAMILIES else None


def test_families_do_not_look_into_each_other():
    package = ROOT / "python/tersor"
    seen = set()
    for name in FAMILIES:
        for path in [package / f"{name}.py", *(package / name).glob("**/*.py")]:
            if path.exists():
                seen |= {(name, to) for m in imports(path) if (to := family(m)) not in (None, name)}
    assert seen == LOOK


def test_what_lies_below_knows_no_family():
    package = ROOT / "python/tersor"
    for path in (
        *(package / "checkpoint").glob("*.py"),
        package / "_op.py",
        package / "_torch.py",
        package / "_arrays.py",
    ):
        assert not {f for m in imports(path) if (f := family(m))}, path
