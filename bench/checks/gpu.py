"""Checks of the whole project on a CUDA GPU, offline and in at most ten minutes: `make gpu` (docs/gpu.md).

    python -m bench.checks.gpu [--device cuda] [--preset multi30k] [--multi30k FOLDER] [--out FOLDER] [--quick]

Each step is a process of its own with a time limit, so a step that fails, hangs or crashes does not stop the others.
All that they print and write is collected in one folder and packed into one archive.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path

from bench.system import streams
from bench.system.files import write_file

ROOT = Path(__file__).parents[2]
ROWS = ("lstm", "gnmt", "convs2s", "transformer-base")
RECORDED = ("bahdanau", "convs2s", "transformer-base")  # the dropout of lstm and the reward of gnmt cannot be recorded
TOTAL_SECONDS = 570.0  # of all steps together, so that the command ends within ten minutes
GRACE_SECONDS = 10.0  # between SIGTERM and SIGKILL for a step that is over its limit
TEST_PACKAGES = ("pytest>=9.0", "pytest-timeout>=2.4")

ARCHIVE = "results.tar.gz"
STORE = "store"
"""The folder of the tracking store. It holds the weights, so it is large and is not packed."""

GRAMMAR = ("--corpus.name", "grammar-en-de", "--corpus.pairs", "8000", "--text.vocabulary_size", "1000")
"""The embedded corpus, for a machine without Multi30k."""

QUICK_DATA = ("--corpus.pairs", "600", "--text.vocabulary_size", "300")
QUICK_RUN = ("--training.max_pairs", "null", "--training.max_updates", "6", "--training.validations", "1")
QUICK_RUN += ("--decoding.beam", "1", "--decoding.extra_length", "3")


@dataclass(frozen=True)
class Settings:
    """What is checked.

    Attributes:
        device: cuda; cpu tries the steps out on a machine without a GPU.
        preset: Of the run and of the updates per second.
        multi30k: Folder of the corpus; None for the embedded corpus.
        out: Folder of the results.
        quick: Least work in every step, to try out the command itself. The numbers mean nothing then.
        flags: Settings for the run and for the updates per second, as `bench run` takes them.
    """

    device: str
    preset: str
    multi30k: Path | None
    out: Path
    quick: bool = False
    flags: Sequence[str] = ()


@dataclass(frozen=True)
class Step:
    """A command with its time limit in seconds. What it prints goes to NAME.txt among the results."""

    name: str
    command: Sequence[str]
    limit: float
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class StepResult:
    """How a step ended: "passed", or why it did not pass."""

    step: str
    result: str
    seconds: float

    @property
    def passed(self) -> bool:
        return self.result == "passed"


def plan(settings: Settings) -> list[Step]:
    """The steps in the order in which they run: the contract tests last, with all the time that is left."""
    out, device = settings.out, settings.device
    bench = [sys.executable, "-m", "bench.cli.main"]
    tracking = ["--tracking.folder", str(out / STORE)]
    shared = ["--preset", settings.preset, *tracking, "--machine.accelerator", "gpu" if device == "cuda" else "cpu"]
    shared += corpus_flags(settings)
    run = [*bench, "run", "experiments/transformer.yaml", *shared, *(QUICK_RUN if settings.quick else ())]
    report = [*bench, "report", "--suite", "runs", *tracking]
    report += ["--out", str(out / "report"), "--export", str(out / "exported")]
    speed = [*bench, "speed", "train", *ROWS, *shared, "--seconds", "0.1" if settings.quick else "10"]
    speed += ["--out", str(out / "speed.json")]
    graphs = [*bench, "speed", "train", *RECORDED, *shared, "--seconds", "5"]
    graphs += ["--machine.cuda_graphs", "true", "--out", str(out / "graphs.json")]
    describe = [
        sys.executable,
        "-m",
        "bench.checks.gpu",
        "--describe",
        str(out / "environment.json"),
        "--device",
        device,
    ]
    verify = [] if settings.quick else [Step("verify", [*bench, "verify", "flops", "--device", device], 110)]
    return [
        Step("environment", describe, 40),
        *verify,
        Step("speed", speed, 80),
        *([Step("graphs", graphs, 60)] if device == "cuda" else []),
        Step("run", run, 220),
        Step("report", report, 50),
        contract_step(settings),
    ]


def corpus_flags(settings: Settings) -> list[str]:
    """Settings of the corpus, for the run and the updates per second alike; those of the command line replace them."""
    if settings.flags:
        return [*settings.flags]
    if settings.quick:
        return ["--corpus.name", "grammar-en-de", *QUICK_DATA]
    if not settings.preset.startswith("multi30k"):
        return []
    return ["--corpus.path", str(settings.multi30k)] if settings.multi30k else [*GRAMMAR]


def contract_step(settings: Settings) -> Step:
    """The contract tests and those of `bench verify`, in several processes if pytest-xdist is installed."""
    files = ["tests/models/test_contract.py", "tests/checks/test_verify.py"]
    command = [sys.executable, "-m", "pytest", *files, "--device", settings.device, "--durations", "10"]
    command += ["-p", "no:cacheprovider", "--junitxml", str(settings.out / "contract.xml")]
    if settings.quick:
        return Step("contract", [*command, "-k", "decode and transformer-base"], 300)
    processes = min(8, (os.cpu_count() or 1) // 2)
    if processes > 1 and installed_version("pytest-xdist"):
        command += ["--numprocesses", str(processes), "--dist", "worksteal"]
    return Step("contract", command, 400, {"OMP_NUM_THREADS": "1"})  # more threads would compete for the cores


def run_step(step: Step, folder: Path, seconds_left: float) -> StepResult:
    """Run a step, with its output in `folder`/NAME.txt, and end it with all its processes at its limit."""
    limit = min(step.limit, seconds_left)
    if limit < 1:
        return StepResult(step.name, "not started: the time for all steps is used up", 0.0)
    environment = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
    environment |= {"MLFLOW_DISABLE_TELEMETRY": "true", "PYTHONUNBUFFERED": "1", **step.environment}
    began = time.monotonic()
    with (folder / f"{step.name}.txt").open("wb") as log:
        process = subprocess.Popen(
            step.command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            code = process.wait(limit)
            result = "passed" if code == 0 else f"failed: exit code {code}"
        except subprocess.TimeoutExpired:
            result = f"stopped: over its limit of {limit:.0f} s"
        finally:
            end_processes(process)
    return StepResult(step.name, result, time.monotonic() - began)


def end_processes(process: subprocess.Popen[bytes]) -> None:
    """End a step's process if it still runs, and what it has started, which would keep the GPU busy."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_SECONDS)
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: PermissionError for a group of zombies
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def run_steps(steps: Sequence[Step], folder: Path, total_seconds: float = TOTAL_SECONDS) -> list[StepResult]:
    """Run all steps, whatever becomes of each, and print how they end."""
    from bench.system import terminal
    from bench.system.visible_text import visible_line

    results, began = list[StepResult](), time.monotonic()
    for number, step in enumerate(steps, start=1):
        terminal.say(f"[{number}/{len(steps)}] {step.name}: {' '.join(['python', *step.command[1:]])}")
        result = run_step(step, folder, total_seconds - (time.monotonic() - began))
        results.append(result)
        terminal.say(f"  {result.result}, {result.seconds:.1f} s")
        log = folder / f"{step.name}.txt"
        if not result.passed and log.exists():
            for line in log.read_text(encoding="utf-8", errors="replace").splitlines()[-5:]:
                terminal.say(f"  | {visible_line(line)[:300]}")
    return results


def collect(results: Sequence[StepResult], settings: Settings) -> Path:
    """Write summary.json and pack all results but the store into one archive; returns its path."""
    summary = asdict(settings) | {"results": [asdict(result) for result in results]}
    write_file(settings.out / "summary.json", json.dumps(summary, indent=1, default=str))
    archive = settings.out / ARCHIVE
    with tarfile.open(archive, "w:gz") as packed:
        for path in sorted(settings.out.iterdir()):
            if path.name not in (STORE, ARCHIVE):
                packed.add(path, arcname=f"{settings.out.name}/{path.name}")
    return archive


# --- before anything runs ---------------------------------------------------------------------------------------------


def installed_version(package: str) -> str | None:
    """The version of an installed package; None if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def requirements() -> list[str]:
    """What pyproject.toml requires, and what the contract tests need beside it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [*project["dependencies"], *TEST_PACKAGES]


def unmet(required: Sequence[str]) -> list[str]:
    """The requirements that this Python does not meet, each with the version that is there."""
    if not installed_version("packaging"):
        return ["packaging (not installed)"]
    from packaging.requirements import Requirement

    found = []
    for requirement in map(Requirement, required):
        version = installed_version(requirement.name)
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            found.append(f"{requirement.name}{requirement.specifier} ({version or 'not installed'})")
    return found


def obstacle(settings: Settings) -> str:
    """Why nothing can be checked here, in one line; empty if it can."""
    if lacking := unmet(requirements()):
        return (
            f"packages are missing in {sys.executable}: {', '.join(lacking)}; install them from wheels, offline too: "
            "docs/gpu.md says how"
        )
    import torch

    if settings.device == "cuda" and not torch.cuda.is_available():
        return (
            f"no CUDA GPU is visible to torch {torch.__version__}; a machine with an NVIDIA GPU and a CUDA build of "
            "torch is needed (docs/gpu.md); --device cpu --preset demo --quick tries the steps out without one"
        )
    if settings.multi30k and not settings.multi30k.is_dir():
        return (
            f"--multi30k: folder not found: {settings.multi30k}; it should hold train.en.gz and so on; correct "
            "the path (or the variable MULTI30K), or leave it out to use the embedded corpus"
        )
    return ""


def describe(device: str) -> dict[str, object]:
    """Versions and hardware, for environment.json."""
    import torch

    from bench.system.facts import environment_tags, fact

    facts: dict[str, object] = {
        "platform": platform.platform(),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        **environment_tags(torch.device(device)),
        "packages": {dist.metadata["Name"]: dist.version for dist in importlib.metadata.distributions()},
    }
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        facts |= {
            "gpu.memory_bytes": properties.total_memory,
            "gpu.multiprocessors": properties.multi_processor_count,
            "gpu.capability": f"{properties.major}.{properties.minor}",
        }
    if smi := shutil.which("nvidia-smi"):
        query = [smi, "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
        facts["nvidia-smi"] = fact(
            lambda: subprocess.run(query, capture_output=True, check=True).stdout.decode().strip()
        )
    return facts


def _interrupt(number: int, _: object) -> None:
    raise KeyboardInterrupt(number)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all steps. Exit codes: 0 all passed, 1 a step did not pass, 2 nothing can be checked, 130 or 143 stopped."""
    streams.prepare()
    parser = argparse.ArgumentParser(prog="python -m bench.checks.gpu", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--device", choices=["cuda", "cpu"], default="cuda", help="cpu tries the steps out (default: cuda)"
    )
    parser.add_argument("--preset", default="multi30k", help="of the run and of the speeds (default: multi30k)")
    parser.add_argument("--multi30k", type=Path, help="folder of the corpus (default: the variable MULTI30K)")
    parser.add_argument("--out", type=Path, help="folder of the results (default: runs/gpu/DATE-TIME)")
    parser.add_argument("--quick", action="store_true", help="least work in every step, to try out the command")
    parser.add_argument("--describe", type=Path, metavar="FILE", help="only write versions and hardware to a JSON file")
    known, flags = parser.parse_known_args(arguments)
    if known.describe:
        write_file(known.describe, json.dumps(describe(known.device), indent=1))
        return 0
    multi30k = known.multi30k or (Path(os.environ["MULTI30K"]) if os.environ.get("MULTI30K") else None)
    out = known.out or ROOT / "runs" / "gpu" / datetime.now().strftime("%Y-%m-%d-%H%M%S")
    settings = Settings(known.device, known.preset, multi30k and multi30k.resolve(), out.resolve(), known.quick, flags)
    if reason := obstacle(settings):
        print(f"gpu: {reason}", file=sys.stderr)
        return 2
    from bench.system import terminal

    settings.out.mkdir(parents=True, exist_ok=True)
    if settings.preset.startswith("multi30k") and not (settings.multi30k or settings.quick or settings.flags):
        terminal.say("MULTI30K is not set: the embedded corpus grammar-en-de is used, with 1,000 subwords, instead.")
    before = signal.signal(
        signal.SIGTERM, _interrupt
    )  # the default would end this process and leave the step's running
    try:
        results = run_steps(plan(settings), settings.out)
    except KeyboardInterrupt as interruption:
        return 128 + (interruption.args[0] if interruption.args else signal.SIGINT)
    finally:
        signal.signal(signal.SIGTERM, before)
    terminal.say(f"results: {collect(results, settings)}")
    rows = [[result.step, result.result, f"{result.seconds:.1f}"] for result in results]
    terminal.table([("step", "left"), ("result", "left"), ("seconds", "right")], rows)
    return 0 if all(result.passed for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
