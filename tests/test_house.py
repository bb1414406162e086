"""The arrows of the house point down: what stands in docs/design.md, held."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import tersor
from tersor._op import OPS
from tersor._public import COMPOSED as WITHOUT_OPERATORS
from tersor.random import TAGS
from tersor.triton import ABSENT, COMPOSED

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "python/tersor"
#: random numbers are below families, in Rust too
FAMILIES = {op.family for op in OPS.values()} - {"random"}
#: as they are in Python, where a family may be composed of what there is
ALL_FAMILIES = FAMILIES | set(WITHOUT_OPERATORS)
#: families that still look into another one; this list may only shrink
LOOK = {("lorentz", "hyperbolic")}
#: the only module that imports upwards, at first use: it is what keeps torch out of `import tersor`
LAZY = ("tersor._op", "tersor._torch")
#: what stands above families, and the one door that a family offers to it, opened when it is asked for
ABOVE = {"bench", "checkpoint", "cli", "compressed", "convert", "jobs", "nn", "optim", "restore", "summary", "testing"}
DOORS = {("tersor.prune", "tersor.jobs.prune")}
#: in Rust, how often a file of a family walks threads by itself, and how often it is unsafe; this list may only shrink
BY_HAND = {
    "hyperbolic/means/src/midpoint/centres.rs": (1, 1),
    "hyperbolic/means/src/midpoint/gather.rs": (1, 1),
    "hyperbolic/means/src/midpoint/pull.rs": (1, 3),
    "hyperbolic/means/src/midpoint.rs": (1, 0),
    "hyperbolic/pairwise/src/lib.rs": (1, 4),
    "hyperbolic/pairwise/src/slopes.rs": (1, 3),
    "hyperbolic/planes/src/tile.rs": (0, 4),
    "hyperbolic/planes/src/walk.rs": (2, 3),
    "lorentz/src/far.rs": (2, 5),
    "loss/src/lib.rs": (1, 3),
    "project/src/csr.rs": (2, 3),
    "project/src/dense.rs": (2, 2),
    "project/src/fill.rs": (2, 1),
    "project/src/sparse.rs": (3, 2),
    "project/src/sum.rs": (0, 9),
    "quant/src/encode.rs": (2, 2),
    "quant/src/layout.rs": (3, 5),
    "sparse/src/product.rs": (2, 1),
}


def crates():
    found = {}
    for path in (ROOT / "rust").rglob("Cargo.toml"):
        made = tomllib.loads(path.read_text())
        found[made["package"]["name"].removeprefix("tersor-")] = set(made.get("dependencies", {}))
    return found


def test_crates_depend_downwards():
    all_ = crates()
    families = set(all_) - {"base", "drivers", "ops", "py"}
    assert {k.partition("-")[0] for k in families} == FAMILIES | {"random"}
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


def modules():
    found = {}
    for path in PACKAGE.rglob("*.py"):
        name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        found[name.removesuffix(".__init__")] = path
    return found


MODULES = modules()


def imports(name):
    """The modules of the package that a module imports, wherever it does."""
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] == "tersor":
            whole = [f"{node.module}.{a.name}" for a in node.names]
            yield from (full if full in MODULES else node.module for full in whole)
        elif isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name in MODULES)


ARROWS = {name: set(imports(name)) - {"tersor", name} for name in MODULES}


def part(module):
    """The folder or file of the package in which a module is."""
    return module.split(".")[1] if "." in module else ""


def test_families_are_those_that_the_package_offers():
    assert {op.family for op in OPS.values()} | ALL_FAMILIES <= set(tersor.__all__)


def test_no_module_imports_itself_on_a_way():
    arrows = ARROWS | {LAZY[0]: ARROWS[LAZY[0]] - {LAZY[1]}}
    assert LAZY[1] in ARROWS[LAZY[0]]
    for name in MODULES:
        seen, todo = set(), [name]
        while todo:
            new = arrows.get(todo.pop(), set()) - seen
            seen |= new
            todo += new
        assert name not in seen


def test_families_do_not_look_into_each_other():
    seen = {(part(a), part(b)) for a, to in ARROWS.items() for b in to}
    assert {(a, b) for a, b in seen if {a, b} <= ALL_FAMILIES and a != b} == LOOK


def test_families_do_not_look_up():
    assert {(a, b) for a, to in ARROWS.items() for b in to if part(a) in ALL_FAMILIES and part(b) in ABOVE} == DOORS


def test_what_lies_below_knows_no_family():
    below = {"checkpoint", *(p.stem for p in PACKAGE.glob("_*.py"))} - {"__init__", "__main__"}
    assert {
        (a, b) for a, to in ARROWS.items() for b in to if part(a) in below and part(b) in ALL_FAMILIES | {"jobs"}
    } == set()


def by_hand():
    found = {}
    for path in sorted((ROOT / "rust/ops").rglob("*.rs")):
        code = re.sub(r"//[^\n]*", "", path.read_text().partition("#[cfg(test)]\nmod tests {")[0])
        counts = len(re.findall(r"\bpool::", code)), len(re.findall(r"\bunsafe\b", code))
        if any(counts) and path.name != "tests.rs":
            found[str(path.relative_to(ROOT / "rust/ops"))] = counts
    return found


def test_threads_and_unsafe_code_are_the_drivers():
    """What a family does by itself may become less: a file that grew, or is new here, wants a driver."""
    assert by_hand() == BY_HAND


def rows_of(table):
    return {name: int(tag) for tag, name in re.findall(r"^\| (\d+) \| (\w+) \|$", table, re.MULTILINE)}


def test_tags_of_random_words_agree():
    rust = (ROOT / "rust/base/src/random.rs").read_text()
    names = {k.lower(): int(v) for k, v in re.findall(r"pub const (\w+): u8 = (\d+);", rust)}
    assert names.items() <= TAGS.items() and set(names.values()) == set(TAGS.values())
    assert rows_of((ROOT / "docs/bits.md").read_text()) == TAGS
    said = re.findall(r"^(\w+) +(\d+) ", (PACKAGE / "random.py").read_text().split('"""')[1], re.MULTILINE)
    assert {name: int(tag) for name, tag in said} == TAGS


def bound(path):
    """The names that a module binds, without importing it."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef):
            yield node.name
        elif isinstance(node, ast.ImportFrom):
            yield from (a.asname or a.name for a in node.names)
        elif isinstance(node, ast.Assign):
            yield from (n.id for t in node.targets for n in ast.walk(t) if isinstance(n, ast.Name))


def defined(path):
    """The functions of a module."""
    return (node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef))


def source(name):
    """The text of a module and of all that is in it."""
    return "".join(path.read_text() for module, path in MODULES.items() if f"{module}.".startswith(f"{name}."))


def test_an_operator_has_a_gpu_kernel_or_a_reason():
    launchers = {}
    for op in OPS.values():
        module = MODULES.get(f"tersor.triton.{op.family}")
        if op.family not in launchers:
            launchers[op.family] = set(bound(module)) if module else set()
    without = {op.key for op in OPS.values() if op.name not in launchers[op.family]}
    assert without == set(ABSENT)
    assert all(ABSENT.values())
    # kernels of its own, or those of a driver, which are told what to find
    kernel = re.compile("triton.jit|from tersor.triton import .*_segments")
    kernels = {family for family in launchers if kernel.search(source(f"tersor.triton.{family}"))}
    made = {
        f"{name.split('.')[2]}.{f}"
        for name, path in MODULES.items()
        if re.fullmatch(r"tersor\.triton\.\w+\.(composed|packing)", name)
        for f in defined(path)
    }
    assert {op.key for op in OPS.values() if op.family not in kernels or op.key in made} - without == COMPOSED


def test_torch_has_room_for_a_hundred_operators_more():
    (sixteens,) = re.findall(r"sixteens!\(([\d ]+)\)", (ROOT / "rust/py/src/torch.rs").read_text())
    assert len(OPS) + 100 <= 16 * len(sixteens.split())


def test_torch_knows_the_library_by_one_door():
    """What a graph names stands in one library, registered from declarations or by `_library.opaque`."""
    made = re.compile(r"custom_op|triton_op|library\.Library\(|LIBRARY\.define|register_autograd")
    found = {(name, word) for name, path in MODULES.items() for word in made.findall(path.read_text())}
    assert found == {
        ("tersor._library", "library.Library("),
        ("tersor._library", "LIBRARY.define"),
        ("tersor._library", "register_autograd"),
        ("tersor._torch", "LIBRARY.define"),
    }


def test_the_package_brings_no_library_but_numpy():
    """Who has arrays alone does not wait for torch; what wants a library imports it when it is called."""
    code = "import sys, tersor; print(*sorted({'torch', 'triton', 'scipy', 'transformers', 'networkx'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
