"""Facts about code and machine that are recorded with every run. What cannot be read is recorded as unknown."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

UNKNOWN = "unknown"
"""Recorded in place of a fact that could not be read. It is equal to nothing: two unknown commits may differ."""

RESULTS = "reports/results"
"""The folder of committed results in this repository."""

COMMIT, UNCOMMITTED_CHANGES = "mlflow.source.git.commit", "git.dirty"
"""Tags of the code's state: the commit's SHA-1, and whether tracked files differ from it (true or false)."""

PACKAGES = (
    "attention-ladder",
    "torch",
    "pytorch-lightning",
    "mlflow",
    "optuna",
    "sacrebleu",
    "sentencepiece",
    "pandas",
)

GIT_SECONDS = 20.0
"""Time limit of a git command, for large repositories on slow network disks."""

REPOSITORY_VARIABLES = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY")
"""Variables that name a repository. A command that is started by a hook of another repository has them."""


def fact(read: Callable[[], object]) -> str:
    """Return what `read` returns, as text; UNKNOWN if it fails or returns None or nothing."""
    try:
        value = read()
    except Exception:  # whatever a machine cannot tell must not cost the run
        return UNKNOWN
    return UNKNOWN if value in (None, "") else str(value)


def environment_tags(device: torch.device) -> dict[str, str]:
    """Return the tags that, with the configuration, allow repeating a run: commit, versions, hardware, threads."""
    import torch  # here, because reports read the constants of this file and do not need torch

    from bench.system.machine import GPU_SHARE

    on_gpu = device.type == "cuda"
    return {
        **code_state(Path(__file__)),
        "python": platform.python_version(),
        **{f"version.{package}": fact(lambda package=package: version(package)) for package in PACKAGES},
        "hardware.cpu": fact(cpu_name),
        "hardware.cores": fact(os.cpu_count),
        "hardware.gpu": fact(lambda: torch.cuda.get_device_name(device)) if on_gpu else "none",
        "hardware.gpu_share": os.environ.get(GPU_SHARE, "1") if on_gpu else "none",
        "threads": str(torch.get_num_threads()),
    }


def code_state(file: Path) -> dict[str, str]:
    """Return the commit of the repository that tracks `file`, and whether tracked files of it have other content.

    Committed results do not count: a suite whose results are in the repository replaces them while it runs.

    Both are UNKNOWN if git is missing or refuses (a clone of another user, as in a container), or if no repository
    tracks the file: an installed package may lie inside the repository of another project.
    """
    file = file.resolve()
    if _git(file.parent, "ls-files", "--error-unmatch", "--", file.name) is None:
        return {COMMIT: UNKNOWN, UNCOMMITTED_CHANGES: UNKNOWN}
    changes = _git(file.parent, "status", "--porcelain", "--untracked-files=no", "--", ":/", f":(top,exclude){RESULTS}")
    return {
        COMMIT: fact(lambda: _git(file.parent, "rev-parse", "--verify", "HEAD")),
        UNCOMMITTED_CHANGES: UNKNOWN if changes is None else str(changes != "").lower(),
    }


def _git(folder: Path, *arguments: str) -> str | None:
    """The output of a git command in `folder`; None if it fails."""
    command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
    environment = {name: value for name, value in os.environ.items() if name not in REPOSITORY_VARIABLES}
    try:
        done = subprocess.run(
            command, capture_output=True, check=True, env=environment, stdin=subprocess.DEVNULL, timeout=GIT_SECONDS
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode("utf-8", "replace").strip()


def cpu_name() -> str:
    """Return the name of the processor, or of its architecture if the system does not name it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:  # not Linux, or a container without /proc
        pass
    return platform.processor() or platform.machine()
