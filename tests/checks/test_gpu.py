"""`make gpu` on a machine without a GPU: what it would run, and that no step can stop, delay or hide another."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tarfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from bench.checks import gpu
from bench.checks.gpu import Settings, Step


def python(program: str) -> list[str]:
    return [sys.executable, "-c", program]


def flag(step: Step, name: str) -> str:
    """The value after a flag of a step's command."""
    return step.command[list(step.command).index(name) + 1]


def steps_of(tmp_path: Path, **changed: Any) -> dict[str, Step]:
    settings = replace(Settings("cuda", "multi30k", None, tmp_path), **changed)
    return {step.name: step for step in gpu.plan(settings)}


def test_every_step_uses_the_gpu_and_writes_to_the_results_folder(tmp_path: Path) -> None:
    steps = steps_of(tmp_path)
    assert list(steps) == ["environment", "verify", "speed", "graphs", "run", "report", "contract"]
    for name in ("environment", "verify", "contract"):
        assert flag(steps[name], "--device") == "cuda"
    assert "graphs" not in steps_of(tmp_path, device="cpu"), "CUDA graphs need a GPU"
    for name in ("speed", "graphs", "run"):
        assert flag(steps[name], "--machine.accelerator") == "gpu"
        assert flag(steps[name], "--preset") == "multi30k"
    assert "training.max_pairs" not in " ".join(steps["run"].command)  # a whole run
    assert {"lstm", "gnmt", "convs2s", "transformer-base"} <= set(steps["speed"].command)
    for name, option in (("report", "--export"), ("report", "--out"), ("speed", "--out"), ("contract", "--junitxml")):
        assert Path(flag(steps[name], option)).parent == tmp_path
    assert flag(steps["report"], "--tracking.folder") == flag(steps["run"], "--tracking.folder")


def test_limits_leave_time_for_the_contract_tests_within_ten_minutes(tmp_path: Path) -> None:
    limits = {name: step.limit for name, step in steps_of(tmp_path).items()}
    assert gpu.TOTAL_SECONDS + gpu.GRACE_SECONDS <= 600
    assert sum(limits.values()) - limits["contract"] < gpu.TOTAL_SECONDS


def test_without_multi30k_the_embedded_corpus_is_used(tmp_path: Path) -> None:
    for name in ("run", "speed"):
        assert flag(steps_of(tmp_path, multi30k=tmp_path)[name], "--corpus.path") == str(tmp_path)
        step = steps_of(tmp_path)[name]
        assert flag(step, "--corpus.name") == "grammar-en-de"
        assert int(flag(step, "--text.vocabulary_size")) == 1000  # its words do not fill the preset's 8000
        assert "--corpus.name" not in steps_of(tmp_path, preset="demo")[name].command  # that of the preset
        other = steps_of(tmp_path, flags=["--corpus.name", "multi30k-en-fr"])[name]
        assert other.command.count("--corpus.name") == 1
        assert flag(other, "--corpus.name") == "multi30k-en-fr"


def test_a_step_that_fails_does_not_stop_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    steps = [
        Step("first", python("print('found nothing'); raise SystemExit(3)"), 60),
        Step("second", python("print('done')"), 60),
    ]
    results = gpu.run_steps(steps, tmp_path)
    assert [result.result for result in results] == ["failed: exit code 3", "passed"]
    assert [result.passed for result in results] == [False, True]
    assert (tmp_path / "second.txt").read_text() == "done\n"
    printed = capsys.readouterr().out
    assert "| found nothing" in printed
    assert "| done" not in printed


def test_a_step_over_its_limit_is_ended_with_all_its_processes(tmp_path: Path) -> None:
    child = "import time; time.sleep(60)"
    program = (
        f"import subprocess, sys; c = subprocess.Popen([sys.executable, '-c', {child!r}]); print(c.pid, flush=True)"
    )
    result = gpu.run_step(Step("slow", python(f"{program}; c.wait()"), 2), tmp_path, seconds_left=100)
    assert result.result == "stopped: over its limit of 2 s"
    assert 2 <= result.seconds < 20
    began, pid = time.monotonic(), int((tmp_path / "slow.txt").read_text())
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() - began < 10
        time.sleep(0.05)


def test_a_stopped_command_leaves_no_step_behind(tmp_path: Path) -> None:
    program = (
        "import sys; from bench.checks import gpu; s = [gpu.Step('slow', [sys.executable, '-c', sys.argv[2]], 60)]; "
        "gpu.plan = lambda _: s; sys.exit(gpu.main(['--device', 'cpu', '--out', sys.argv[1]]))"
    )
    child = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    command = [*python(program), str(tmp_path), child]
    log = tmp_path / "slow.txt"
    with subprocess.Popen(command, cwd=gpu.ROOT, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None and not (log.exists() and log.read_text().endswith("\n")):
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 143
    assert not psutil.pid_exists(int(log.read_text()))


def test_the_time_of_all_steps_together_is_limited(tmp_path: Path) -> None:
    steps = [Step("long", python("import time; time.sleep(60)"), 60), Step("next", python(""), 60)]
    results = gpu.run_steps(steps, tmp_path, total_seconds=1.5)
    assert results[0].result.startswith("stopped: over its limit")
    assert results[1].result == "not started: the time for all steps is used up"
    assert not any(result.passed for result in results)


def test_steps_do_not_write_to_the_users_tracking_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///elsewhere.db")
    program = "import os; print(os.environ.get('MLFLOW_TRACKING_URI'), os.environ['A'])"
    assert gpu.run_step(Step("step", python(program), 60, {"A": "b"}), tmp_path, 60).passed
    assert (tmp_path / "step.txt").read_text() == "None b\n"


@pytest.mark.parametrize(("programs", "code"), [(["", ""], 0), (["", "raise SystemExit(1)"], 1)])
def test_summary_archive_and_exit_code(
    programs: list[str],
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "results"
    steps = [Step(f"step-{number}", python(program), 60) for number, program in enumerate(programs)]
    monkeypatch.setattr(gpu, "plan", lambda settings: steps)
    monkeypatch.delenv("MULTI30K", raising=False)
    (out / "store").mkdir(parents=True)
    (out / "store" / "weights").write_text("large")
    assert gpu.main(["--device", "cpu", "--out", str(out)]) == code
    summary = json.loads((out / "summary.json").read_text())
    assert [result["step"] for result in summary["results"]] == ["step-0", "step-1"]
    assert summary["results"][0]["result"] == "passed"
    with tarfile.open(out / "results.tar.gz") as archive:
        names = archive.getnames()
    assert set(names) == {f"results/{name}" for name in ("step-0.txt", "step-1.txt", "summary.json")}
    printed = capsys.readouterr().out
    assert "MULTI30K is not set" in printed
    last = printed.splitlines()[-3:]  # the summary table
    assert [line.split()[0] for line in last] == ["step", "step-0", "step-1"]
    assert ("failed: exit code 1" in last[2]) == bool(code)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main(["--out", str(tmp_path / "results")]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("gpu: no CUDA GPU is visible to torch")
    assert "docs/gpu.md" in printed
    assert printed.count("\n") == 1
    assert not (tmp_path / "results").exists()


def test_a_missing_corpus_folder_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = tmp_path / "nowhere"
    assert gpu.main(["--device", "cpu", "--multi30k", str(missing), "--out", str(tmp_path / "results")]) == 2
    printed = capsys.readouterr().err
    assert f"--multi30k: folder not found: {missing}" in printed
    assert printed.count("\n") == 1
    assert not (tmp_path / "results").exists()


def test_missing_and_old_packages_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gpu.unmet(gpu.requirements()) == []
    monkeypatch.setattr(gpu, "requirements", lambda: ["torch>=999", "no-such-package[extra]>=2", "rich>=1"])
    assert gpu.main(["--device", "cpu", "--out", str(tmp_path / "results")]) == 2
    printed = capsys.readouterr().err
    assert f"torch>=999 ({torch.__version__})" in printed
    assert "no-such-package>=2 (not installed)" in printed
    assert "rich" not in printed
    assert printed.count("\n") == 1


def test_the_wheels_of_the_page_are_the_tested_versions() -> None:
    def pins(path: Path) -> set[str]:
        return {line for line in path.read_text().splitlines() if line and not line.startswith("#")}

    assert pins(gpu.ROOT / "docs" / "gpu-wheels-3.12.txt") <= pins(gpu.ROOT / "constraints-3.12.txt")
