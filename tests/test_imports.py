"""Who may import whom. A room is a folder or a file directly below the package."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

import pyramidvit

ROOT = Path(pyramidvit.__file__).parent


def module_name(path: Path) -> str:
    """The dotted name: empty for the package itself, "cli" and "cli.train" for modules in it."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


MODULES = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}

TASK_ROOMS = {
    *("structures", "task", "options", "errors", "files"),
    *("ops", "nn", "backbones", "necks", "weights", "models", "data"),
}
ENGINE_ROOMS = {"structures", "task", "options", "errors", "files", "weights", "data"}
ALLOWED = {  # a room may import itself, and these
    "structures": set(),
    "errors": set(),
    "files": {"errors"},
    "options": {"errors"},
    "task": {"structures"},
    "ops": {"structures"},
    "nn": set(),
    "backbones": {
        "nn",
        "errors",
        "files",
        "weights",
        "",
    },  # weights: see below
    "weights": {"backbones", "errors", "files"},
    "necks": {"nn"},
    "data": {"structures", "errors", "ops"},
    "models": {"backbones", "weights", "errors", "tasks"},  # tasks: see below
    "timm_models": {"backbones", "models", "errors"},
    "tasks": TASK_ROOMS,
    "engine": ENGINE_ROOMS | {""},  # "" for the version alone, see below
    "export": {"errors", "files"},
    "inference": {"nn", "backbones", "errors", ""},
    "costs": {"errors", "backbones", "models", "weights", "export", "inference"},
    "cli": {
        *ENGINE_ROOMS,
        *("nn", "backbones", "models", "tasks", "engine", "export", "inference", "costs", ""),
    },
    "__main__": {"cli"},
    "": {"backbones", "inference", "models", "timm_models", "weights", "tasks"},
}


class Import(NamedTuple):
    target: str  # a module of ours, "" for the package itself
    name: str  # what is taken from it
    runs: bool  # when the module is loaded, not in a function nor for the type checker alone


def our_imports(module: str) -> list[Import]:
    """Every import that a module makes from the package."""
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    is_package = MODULES[module].name == "__init__.py"
    here = module.split(".") if module else []
    found = []
    for node, runs in walk(tree, runs=True):
        if isinstance(node, ast.Import):
            ours = [a.name for a in node.names if a.name.split(".")[0] == "pyramidvit"]
            assert not ours, f"{module}: write imports of our own as relative ones"
        if not isinstance(node, ast.ImportFrom):
            continue
        assert node.level or (node.module or "").split(".")[0] != "pyramidvit", module
        if node.level:
            up = node.level - is_package
            base = [*here[: len(here) - up], *(node.module or "").split(".")]
            origin = ".".join(part for part in base if part)
            for alias in node.names:
                inner = f"{origin}.{alias.name}".lstrip(".")
                found.append(Import(inner if inner in MODULES else origin, alias.name, runs))
    return found


def walk(node: ast.AST, *, runs: bool) -> Iterator[tuple[ast.AST, bool]]:
    """All nodes below one, and whether they run when the module is loaded."""
    for child in ast.iter_child_nodes(node):
        yield child, runs
        later = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        typing_only = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
        yield from walk(child, runs=runs and not later and not typing_only)


def room(module: str) -> str:
    return module.split(".")[0]


def test_the_imports_are_found() -> None:
    assert Import("nn.attention", "SpatialReductionAttention", True) in our_imports(
        "backbones.pvt_v2"
    )
    assert Import("cli", "VERBS", True) in our_imports("cli.kinds")
    assert Import("engine.run", "build_run", False) in our_imports("cli.train")
    assert Import("models", "create_model", False) in our_imports("")
    assert Import("backbones.pvt_v1", "pvt_v1", True) in our_imports("models")


def test_every_room_has_a_rule() -> None:
    assert {room(module) for module in MODULES} == set(ALLOWED)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module or "pyramidvit")
def test_a_module_imports_only_the_rooms_that_its_own_may_see(module: str) -> None:
    seen = {room(found.target) for found in our_imports(module)}
    assert seen <= ALLOWED[room(module)] | {room(module)}


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module or "pyramidvit")
def test_of_the_package_itself_only_the_version_is_imported(module: str) -> None:
    names = {found.name for found in our_imports(module) if found.target == ""}
    assert names <= {"__version__"}


def test_a_backbone_reads_weights_only_when_it_is_saved_or_loaded() -> None:
    for module in MODULES:
        if room(module) == "backbones":
            found = [found for found in our_imports(module) if room(found.target) == "weights"]
            assert not found or module in ("backbones.hub", "backbones.description"), module
            assert not any(found.runs for found in found)


def test_models_by_name_load_a_task_only_when_its_heads_are_asked_for() -> None:
    # Tasks build their models by name, so the one import must wait; and backbones stay light.
    found = [found for found in our_imports("models") if room(found.target) == "tasks"]
    assert found
    assert not any(one.runs for one in found)


def test_no_task_imports_another() -> None:
    for module in MODULES:
        if room(module) == "tasks" and module != "tasks":
            task = module.split(".")[1]
            others = {
                found.target
                for found in our_imports(module)
                if room(found.target) == "tasks" and found.target.split(".")[1:2] != [task]
            }
            assert not others, module


def test_no_two_modules_wait_for_each_other() -> None:
    graph = {
        module: {found.target for found in our_imports(module) if found.runs} - {module}
        for module in MODULES
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"import cycle: {' -> '.join(map(str, error.args[1]))}")


@pytest.mark.parametrize(
    "code",
    [
        "import pyramidvit; dir(pyramidvit)",
        "from pyramidvit.cli import main; assert main(['--help']) == 0",
        "from pyramidvit.cli import main; assert main(['--version']) == 0",
        "from pyramidvit.cli import main; assert main(['evaluat']) == 2",
        "from pyramidvit.cli import train; train.make_parser()",
    ],
)
def test_what_needs_no_torch_loads_none(code: str) -> None:
    check = "import sys; heavy = {'torch', 'numpy', 'timm', 'matplotlib'} & set(sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{check}\nassert not heavy, heavy"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
