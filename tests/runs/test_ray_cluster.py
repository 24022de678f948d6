"""Workers on a cluster: how many fit, the messages without a cluster, and the files of docs/clusters."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from bench.cli.arguments import build_parser
from bench.cli.main import main
from bench.experiment.loading import resolve, row_files
from bench.runs.ray_cluster import RayBackend, workers_per_node

FILES = Path(__file__).parents[2] / "docs" / "clusters"


@pytest.mark.parametrize(("gpus", "fits"), [(0.25, False), (1.0, False), (2.0, True)])
def test_a_job_that_needs_more_gpus_than_a_worker_has_is_refused(gpus: float, fits: bool) -> None:
    backend = object.__new__(RayBackend)  # without a connection to Ray
    backend.gpus = gpus
    path = row_files()["mlp"]
    jobs = [resolve(path, flags=["--machine.devices", "2", "--machine.accelerator", kind]) for kind in ("cpu", "gpu")]
    backend.check(jobs[:1])
    if fits:
        backend.check(jobs)
        return
    with pytest.raises(ValueError, match=r"^machine\.devices: 2 GPUs were requested, .*--gpus_per_trial 2$"):
        backend.check(jobs)


@pytest.mark.parametrize(
    ("resources", "cpus", "gpus", "workers"),
    [
        ({"CPU": 16.0}, 1, 0.0, 16),
        ({"CPU": 16.0}, 5, 0.0, 3),
        ({"CPU": 64.0, "GPU": 8.0}, 1, 0.25, 32),
        ({"CPU": 16.0, "GPU": 8.0}, 1, 0.25, 16),  # the cores do not suffice for four workers on each GPU
        ({"CPU": 64.0, "GPU": 2.0}, 1, 0.4, 4),  # the share of a worker lies on one GPU
        ({"CPU": 64.0, "GPU": 8.0}, 1, 2.0, 4),
        ({"CPU": 64.0}, 1, 0.25, 0),
    ],
)
def test_workers_that_fit_on_a_node(resources: dict[str, float], cpus: int, gpus: float, workers: int) -> None:
    assert workers_per_node(resources, cpus, gpus) == workers


def test_without_ray_the_message_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # importing it fails
    assert main(["suite", "experiments/demo.yaml", "--cluster", "auto"]) == 2
    message = capsys.readouterr().err
    assert message == (
        "bench: --cluster: Ray is not installed; install it: .venv/bin/pip install --editable '.[cluster]'\n"
    )


@pytest.mark.parametrize("flag", ["--gpus_per_trial", "--cpus_per_trial"])
def test_flags_of_cluster_workers_need_a_cluster(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["suite", "experiments/demo.yaml", "--workers", "2", flag, "1"]) == 2
    assert f"{flag}: only the workers of a cluster have this setting" in capsys.readouterr().err


@pytest.mark.parametrize("path", sorted(FILES.glob("*.yaml")), ids=lambda path: path.name)
def test_a_manifest_is_yaml(path: Path) -> None:
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert "services" in content or content["kind"] in ("RayCluster", "RayJob")


@pytest.mark.parametrize("path", sorted(FILES.glob("*.sbatch")), ids=lambda path: path.name)
def test_a_batch_file_is_bash(path: Path) -> None:
    assert path.read_text(encoding="utf-8").startswith("#!/bin/bash\n")
    subprocess.run(["bash", "-n", path], check=True)


@pytest.mark.parametrize("path", sorted(FILES.iterdir()), ids=lambda path: path.name)
def test_commands_in_a_file_have_existing_flags(path: Path) -> None:
    """The flags of each `bench suite` and `bench run` are those of the command, or one of three settings."""
    text = path.read_text(encoding="utf-8").replace("\\\n", " ").replace("\n    --", " --")
    count = 0
    for line in text.splitlines():
        if line.lstrip().startswith("#") or not (found := re.search(r"bench ((?:run|suite) .*)", line)):
            continue
        count += 1
        words = re.sub(r'"\$\{1:[^"]*"', "a.yaml", found[1]).replace('"$SLURM_ARRAY_TASK_ID"', "1").rstrip("'").split()
        _, rest = build_parser().parse_known_args(words)
        flags = [word for word in rest if word.startswith("-")]
        assert set(flags) <= {"--tracking.folder", "--machine.devices", "--machine.num_nodes"}, line
    assert count or path.name in ("Dockerfile", "servers.yaml", "raycluster.yaml"), (
        "no command was found: is the pattern still right?"
    )


def test_a_negative_share_of_a_gpu_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["suite", "experiments/demo.yaml", "--cluster", "auto", "--gpus_per_trial", "-0.5"]) == 2
    assert "--gpus_per_trial: -0.5 is too small; more than 0" in capsys.readouterr().err


def test_the_module_does_not_import_torch() -> None:
    """A node imports it before `run_worker` sets the number of threads, which torch reads when it is imported."""
    program = "import sys, bench.runs.ray_cluster; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
