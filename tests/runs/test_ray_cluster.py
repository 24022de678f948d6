"""Workers on a cluster: how many fit, what is said where there is none, and the files of docs/clusters."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from bench.cli.arguments import build_parser
from bench.cli.main import main
from bench.experiment.loading import architectures, resolve
from bench.runs.ray_cluster import RayBackend, room

FILES = Path(__file__).parents[2] / "docs" / "clusters"


@pytest.mark.parametrize(("gpus", "enough"), [(0.25, False), (1.0, False), (2.0, True)])
def test_a_job_on_more_gpus_than_a_worker_has_is_refused(gpus: float, enough: bool) -> None:
    cluster = object.__new__(RayBackend)  # of no Ray
    cluster.gpus = gpus
    path = architectures()["mlp"]
    jobs = [resolve(path, flags=["--machine.devices", "2", "--machine.accelerator", kind]) for kind in ("cpu", "gpu")]
    cluster.check(jobs[:1])
    if enough:
        cluster.check(jobs)
        return
    with pytest.raises(ValueError, match=r"^machine\.devices: 2 GPUs were asked for; .*--gpus_per_trial 2$"):
        cluster.check(jobs)


@pytest.mark.parametrize(
    ("resources", "cpus", "gpus", "workers"),
    [
        ({"CPU": 16.0}, 1, 0.0, 16),
        ({"CPU": 16.0}, 5, 0.0, 3),
        ({"CPU": 64.0, "GPU": 8.0}, 1, 0.25, 32),
        ({"CPU": 16.0, "GPU": 8.0}, 1, 0.25, 16),  # the cores are too few for four on each
        ({"CPU": 64.0, "GPU": 2.0}, 1, 0.4, 4),  # no worker has parts of two GPUs
        ({"CPU": 64.0, "GPU": 8.0}, 1, 2.0, 4),
        ({"CPU": 64.0}, 1, 0.25, 0),
    ],
)
def test_workers_that_fit(resources: dict[str, float], cpus: int, gpus: float, workers: int) -> None:
    assert room(resources, cpus, gpus) == workers


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # importing it fails
    assert main(["suite", "experiments/demo.yaml", "--cluster", "auto"]) == 2
    said = capsys.readouterr().err
    assert said == "bench: --cluster: Ray is not installed; .venv/bin/pip install --editable '.[cluster]'\n"


@pytest.mark.parametrize("flag", ["--gpus_per_trial", "--cpus_per_trial"])
def test_shares_are_for_clusters(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["suite", "experiments/demo.yaml", "--workers", "2", flag, "1"]) == 2
    assert f"{flag}: only a cluster" in capsys.readouterr().err


@pytest.mark.parametrize("path", sorted(FILES.glob("*.yaml")), ids=lambda path: path.name)
def test_a_manifest_is_yaml(path: Path) -> None:
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert "services" in content or content["kind"] in ("RayCluster", "RayJob")


@pytest.mark.parametrize("path", sorted(FILES.glob("*.sbatch")), ids=lambda path: path.name)
def test_a_batch_file_is_bash(path: Path) -> None:
    assert path.read_text(encoding="utf-8").startswith("#!/bin/bash\n")
    subprocess.run(["bash", "-n", path], check=True)


@pytest.mark.parametrize("path", sorted(FILES.iterdir()), ids=lambda path: path.name)
def test_its_commands_have_flags_that_exist(path: Path) -> None:
    """Every `bench suite` and `bench run` in a file: its own flags are known, and what is left are settings."""
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


def test_a_share_of_nothing_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["suite", "experiments/demo.yaml", "--cluster", "auto", "--gpus_per_trial", "-0.5"]) == 2
    assert "--gpus_per_trial: -0.5 is too small; more than 0" in capsys.readouterr().err


def test_a_node_imports_torch_after_its_threads_are_set() -> None:
    program = "import sys, bench.cluster; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
