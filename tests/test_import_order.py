"""Import rules: models < bench < reports, the order of packages in bench/, one home for each heavy dependency."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import bench

ROOT = Path(__file__).parents[1]

ORDER = re.findall(r"^(\w+)  +\w", bench.__doc__ or "", re.MULTILINE)
"""The packages of bench/, as its docstring lists them: each imports only those before it, and itself."""

ONLY_IN = {
    "mlflow": ("bench/tracking/", "bench/evaluation/serving.py"),  # MLflow itself runs serving.py
    "optuna": ("bench/sweep/",),
    "ray": ("bench/runs/ray_cluster.py",),
}

FILES = sorted(path for folder in ("models", "bench", "reports") for path in (ROOT / folder).rglob("*.py"))
BENCH = [path for path in FILES if path.is_relative_to(ROOT / "bench") and path != ROOT / "bench" / "__init__.py"]


def imports_of(path: Path) -> Iterator[str]:
    """Return the full names of everything that a file imports, at any depth. `from a import b` gives a.b."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import; write it in full"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def package_of(module: str) -> str:
    """Return the package of bench/ that a module belongs to: bench.data.batches gives data."""
    return module.split(".")[1]


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", FILES, ids=name)
def test_models_bench_and_reports_import_in_this_order(path: Path) -> None:
    folder = path.relative_to(ROOT).parts[0]
    tops = {module.split(".")[0] for module in imports_of(path)}
    if folder == "models":
        assert not tops & {"bench", "reports", "tests"}
    if folder == "bench" and not path.is_relative_to(ROOT / "bench" / "cli"):
        assert not tops & {"reports", "tests"}
    assert "tests" not in tops


def test_every_imported_package_is_a_declared_dependency() -> None:
    """A package that only another one brings along can disappear with its next version."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    required = [
        *project["dependencies"],
        *(one for group in project["optional-dependencies"].values() for one in group),
    ]
    declared = {canonicalize_name(Requirement(text).name) for text in required}
    of_module = packages_distributions()
    imported = {module.split(".")[0] for path in FILES for module in imports_of(path)} - set(sys.stdlib_module_names)
    imported -= {"models", "bench", "reports", "lightning_fabric"}  # the last is a part of pytorch-lightning
    assert len(imported) > 15
    missing = {
        module for module in imported if not {canonicalize_name(one) for one in of_module.get(module, ())} & declared
    }
    assert missing == set()


@pytest.mark.parametrize("path", [path for path in FILES if path.is_relative_to(ROOT / "models")], ids=name)
def test_models_import_torch_and_lightning_only(path: Path) -> None:
    allowed = {"models", "torch", "pytorch_lightning", *sys.stdlib_module_names}
    assert {module.split(".")[0] for module in imports_of(path)} <= allowed


@pytest.mark.parametrize("path", BENCH, ids=name)
def test_packages_of_bench_import_only_packages_above_them(path: Path) -> None:
    package = path.relative_to(ROOT).parts[1]
    assert package in ORDER, f"{package}/ is missing in the list of packages in bench/__init__.py: add it there"
    for module in imports_of(path):
        if module.startswith("bench."):
            imported = package_of(module)
            assert ORDER.index(imported) <= ORDER.index(package), f"{name(path)} imports {module}, which is below it"


@pytest.mark.parametrize("path", [path for path in FILES if path.name == "__init__.py"], ids=name)
def test_importing_a_package_loads_nothing(path: Path) -> None:
    """Else a report, which needs one module of a package, would load torch. bench/tracking sets MLflow's variables."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert {module.split(".")[0] for module in imports_of(path)} <= {"__future__", "os"}
    if path.parent.name != "tracking":
        assert [node for node in tree.body if not isinstance(node, ast.Expr)] == []


@pytest.mark.parametrize(("package", "home"), ONLY_IN.items())
def test_heavy_dependencies_have_one_home(package: str, home: tuple[str, ...]) -> None:
    users = [name(path) for path in FILES if any(module.split(".")[0] == package for module in imports_of(path))]
    assert [user for user in users if not user.startswith(home)] == []


def test_a_report_does_not_import_torch() -> None:
    program = "import sys, reports.gathering.gather_runs, reports.write; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "pytorch_lightning", "optuna"} & set(loaded)


@pytest.mark.parametrize("file", ["main.py", "reporting.py"])
def test_the_command_imports_nothing_heavy_at_its_top(file: str) -> None:
    tree = ast.parse((ROOT / "bench" / "cli" / file).read_text(encoding="utf-8"))
    top = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    modules = {node.module if isinstance(node, ast.ImportFrom) else node.names[0].name for node in top}
    assert modules <= {
        "__future__",
        "bench.cli",
        "bench.cli.arguments",
        "bench.system",  # streams, of the standard library alone
        "bench.system.home",
        "bench.system.visible_text",
        "argparse",
        "contextlib",
        "errno",
        "os",
        "shlex",
        "sys",
        "collections.abc",
        "pathlib",
        "typing",
    }


def test_libraries_do_not_print_their_log() -> None:
    """Libraries set the level of their loggers when they are imported, so ours has to be set after that."""
    program = "import logging, bench.training.trainer, bench.tracking.store, bench.sweep.settings\n"
    program += "names = 'mlflow', 'alembic', 'optuna', 'pytorch_lightning'\n"
    program += "print(*(logging.getLogger(name).level >= logging.ERROR for name in names))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True"] * 4
