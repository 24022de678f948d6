"""Joules from counters, on a fake machine, because few test machines allow reading real counters."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bench.measures import energy
from bench.measures.energy import Energy
from bench.measures.measure import Measure


def open_counters(device: str, count: int = 1) -> Energy:
    meter = Energy()
    meter.open(device, count)
    return meter


def polled(meter: Energy) -> Measure:
    meter.poll()
    return meter.measure()


@pytest.fixture
def rapl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Creates two packages and the cores of one of them, which must not be counted twice."""
    for zone, name in (("intel-rapl:0", "package-0"), ("intel-rapl:1", "package-1"), ("intel-rapl:0:0", "core")):
        folder = tmp_path / zone
        folder.mkdir()
        (folder / "name").write_text(name + "\n")
        (folder / "max_energy_range_uj").write_text("9999999\n")
        (folder / "energy_uj").write_text("1000000\n")
    monkeypatch.setattr(energy, "RAPL", tmp_path)
    return tmp_path


def test_rapl_sums_packages(rapl: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The average power covers the intervals that count: 0.5 s and 1 s, with 10 s between them that do not."""
    times = iter((0.0, 0.5, 10.5, 11.5))
    monkeypatch.setattr(energy, "time", SimpleNamespace(perf_counter=lambda: next(times)))
    meter = open_counters("cpu")
    meter.poll()
    meter.skip()
    (rapl / "intel-rapl:0" / "energy_uj").write_text("3500000")
    (rapl / "intel-rapl:1" / "energy_uj").write_text("1500000")
    (rapl / "intel-rapl:0:0" / "energy_uj").write_text("9000000")
    measure = polled(meter)
    assert (measure.value, measure.unit) == (pytest.approx(3.0), "J")
    assert measure.provenance == "RAPL, CPU packages; updates only, 1.5 s, 2.0 W on average"


def test_rapl_counters_wrap(rapl: Path) -> None:
    """The counter wraps at 10 J: from 1 J by 9 J to 0, then by 4 J."""
    meter = open_counters("cpu")
    (rapl / "intel-rapl:0" / "energy_uj").write_text("0")
    meter.poll()
    (rapl / "intel-rapl:0" / "energy_uj").write_text("4000000")
    assert polled(meter).value == pytest.approx(13.0)


def test_only_updates_count_and_a_resumed_run_adds_up(rapl: Path) -> None:
    """1 J in an update, 2 J in a validation, 0.5 J in the next process's update."""
    counter = rapl / "intel-rapl:0" / "energy_uj"
    meter = open_counters("cpu")
    meter.skip()
    counter.write_text("2000000")
    meter.poll()
    counter.write_text("4000000")
    meter.skip()
    state = meter.state_dict()
    counter.write_text("5000000")  # this update is lost with its process
    meter.poll()
    resumed = Energy()
    resumed.load_state_dict(state)
    resumed.open("cpu")
    counter.write_text("5500000")
    assert polled(resumed).value == pytest.approx(1.5)


def test_a_resumed_run_has_no_value_if_an_earlier_process_could_not_read(rapl: Path) -> None:
    meter = open_counters("meta")
    resumed, old = Energy(), Energy()
    resumed.load_state_dict(meter.state_dict())
    old.load_state_dict(None)
    for each, reason in (
        (resumed, "no energy counter for meta"),
        (old, "the counters were not read when the run began"),
    ):
        each.open("cpu")
        measure = polled(each)
        assert (measure.value, measure.provenance) == (None, f"not measured: {reason}")
    assert Energy().measure().provenance == "not measured: nothing has been read"


def test_an_unreadable_counter_gives_none_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy, "RAPL", tmp_path / "nowhere")
    measure = polled(open_counters("cpu"))
    assert (measure.metric, measure.value) == ("energy_j", None)
    assert measure.provenance == "not measured: no RAPL package counter on this machine"
    assert polled(open_counters("meta")).provenance == "not measured: no energy counter for meta"


def test_a_counter_that_disappears_gives_none(rapl: Path) -> None:
    meter = open_counters("cpu")
    (rapl / "intel-rapl:1" / "energy_uj").unlink()
    assert polled(meter).value is None


def test_a_counter_without_a_number_gives_none(rapl: Path) -> None:
    (rapl / "intel-rapl:1" / "energy_uj").write_text("")
    assert polled(open_counters("cpu")).value is None


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Fakes two GPUs. The test changes their counters, in millijoules."""
    counters = {"GPU-aa": 1_000, "GPU-bb": 5_000}

    class NVMLError(Exception):
        pass

    def read(handle: str) -> int:
        if handle not in counters:
            raise NVMLError("Not Supported")
        return counters[handle]

    fake: Any = SimpleNamespace(
        NVMLError=NVMLError,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda uuid: uuid,
        nvmlDeviceGetTotalEnergyConsumption=read,
    )
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda n: SimpleNamespace(uuid=("aa", "bb")[n]))
    return counters


def test_nvml_sums_the_devices_of_a_run(nvml: dict[str, int]) -> None:
    meter, one = open_counters("cuda", 2), open_counters("cuda")
    nvml["GPU-aa"] += 2_500
    nvml["GPU-bb"] += 500
    measure = polled(meter)
    assert measure.value == pytest.approx(3.0)
    assert "2 devices" in measure.provenance
    assert polled(one).value == pytest.approx(2.5)


def test_a_resumed_run_may_have_other_devices(nvml: dict[str, int]) -> None:
    one = open_counters("cuda")
    nvml["GPU-aa"] += 1_000
    one.poll()
    resumed = Energy()
    resumed.load_state_dict(one.state_dict())
    resumed.open("cuda", 2)
    nvml["GPU-bb"] += 1_000
    resumed.poll()
    again = Energy()
    again.load_state_dict(resumed.state_dict())
    again.open("cuda", 2)
    measure = again.measure()
    assert measure.value == pytest.approx(2.0)
    assert measure.provenance.startswith(
        "NVML total-energy counter, 1 devices, then NVML total-energy counter, 2 devices; up"
    )


def test_nvml_without_a_counter(nvml: dict[str, int]) -> None:
    del nvml["GPU-bb"]
    assert polled(open_counters("cuda", 2)).provenance == "not measured: NVML: Not Supported"


def test_without_the_extra_gpu_there_is_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert "extra `gpu`" in polled(open_counters("cuda")).provenance
