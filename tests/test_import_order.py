"""Who may import whom: models < bench < reports, the order inside bench/, and one file for each heavy dependency."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import bench

ROOT = Path(__file__).parents[1]

ORDER = re.findall(r"^(\w+)  +\w", bench.__doc__ or "", re.MULTILINE)
"""The packages of bench/, as its docstring lists them: each imports only those before it, and itself."""

ONLY_IN = {
    "mlflow": ("bench/tracking/", "bench/evaluation/serving.py"),  # the second is run by MLflow
    "optuna": ("bench/sweep/",),
    "ray": ("bench/runs/ray_cluster.py",),
}

FILES = sorted(path for folder in ("models", "bench", "reports") for path in (ROOT / folder).rglob("*.py"))
BENCH = [path for path in FILES if path.is_relative_to(ROOT / "bench") and path != ROOT / "bench" / "__init__.py"]


def imported(path: Path) -> Iterator[str]:
    """Full names of the modules that a file imports, wherever in it. `from a import b` gives a.b."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import; write it in full"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def place(module: str) -> int:
    """Where a module of bench stands in the order."""
    return ORDER.index(module.split(".")[1])


def own(path: Path) -> str:
    return path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", FILES, ids=name)
def test_houses_import_to_the_left_only(path: Path) -> None:
    house = path.relative_to(ROOT).parts[0]
    tops = {module.split(".")[0] for module in imported(path)}
    if house == "models":
        assert not tops & {"bench", "reports", "tests"}
    if house == "bench" and not path.is_relative_to(ROOT / "bench" / "cli"):
        assert not tops & {"reports", "tests"}
    assert "tests" not in tops


@pytest.mark.parametrize("path", [path for path in FILES if path.is_relative_to(ROOT / "models")], ids=name)
def test_models_know_torch_and_lightning_only(path: Path) -> None:
    allowed = {"models", "torch", "pytorch_lightning", *sys.stdlib_module_names}
    assert {module.split(".")[0] for module in imported(path)} <= allowed


@pytest.mark.parametrize("path", BENCH, ids=name)
def test_bench_imports_what_stands_above(path: Path) -> None:
    me = own(path)
    assert me.split(".")[1] in ORDER, f"{path.name} has no place in the order: give it one here and in design"
    for module in imported(path):
        if module.startswith("bench."):
            same = module.split(".")[1] == me.split(".")[1]
            assert same or place(module) < place(me), f"{me} imports {module}, which stands below it"


@pytest.mark.parametrize(("package", "home"), ONLY_IN.items())
def test_heavy_dependencies_have_one_home(package: str, home: tuple[str, ...]) -> None:
    users = [name(path) for path in FILES if any(module.split(".")[0] == package for module in imported(path))]
    assert [user for user in users if not user.startswith(home)] == []


def test_no_file_is_long() -> None:
    assert [name(path) for path in FILES if len(path.read_text(encoding="utf-8").splitlines()) > 400] == []


def test_a_report_waits_for_no_torch() -> None:
    program = (
        "import sys, reports.gathering.gather_runs, reports.gathering.snapshot, reports.write; print(*sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "pytorch_lightning", "optuna"} & set(loaded)


def test_the_command_imports_nothing_heavy_at_the_top() -> None:
    tree = ast.parse((ROOT / "bench" / "cli" / "main.py").read_text(encoding="utf-8"))
    top = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    modules = {node.module if isinstance(node, ast.ImportFrom) else node.names[0].name for node in top}
    assert modules <= {
        "__future__",
        "bench.cli.arguments",
        "argparse",
        "os",
        "sys",
        "collections.abc",
        "pathlib",
        "typing",
    }
