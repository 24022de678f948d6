"""Table 2 of "Attention Is All You Need" recomputed, and the measured rate of the machine."""

from __future__ import annotations

import math

import pytest
import torch

from bench.measures import costs, published
from bench.measures.measure import Measure


def test_the_nine_single_model_costs_are_reproduced() -> None:
    singles = [row for row in published.verify() if "x single" not in row.clock]
    assert len(singles) == 9
    assert all(row.agrees for row in singles), singles
    computed = {(row.row, row.direction): row.computed for row in singles}
    # GNMT: 1 day x 86,400 s x 96 K80 x 2.8e12; the base model: half a day on 8 P100.
    assert computed["GNMT + RL", "en-de"] == pytest.approx(2.322432e19, rel=1e-12)
    assert computed["Transformer (base)", "both"] == pytest.approx(0.5 * 86_400 * 8 * 9.5e12, rel=1e-12)


def test_ensembles_cost_eight_single_models() -> None:
    ensembles = [row for row in published.verify() if "x single" in row.clock]
    assert {row.row for row in ensembles} == {
        "Deep-Att + PosUnk Ensemble",
        "GNMT + RL Ensemble",
        "ConvS2S Ensemble",
    }
    assert len(ensembles) == 5
    assert all(row.agrees for row in ensembles)


def test_a_wrong_cost_is_found() -> None:
    assert not published.RecomputedCost("x", "en-de", "", published=1.0e20, computed=1.026e20).agrees
    assert published.RecomputedCost("x", "en-de", "", published=1.0e20, computed=1.025e20).agrees


def test_the_ceiling_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(costs, "SIDE", 128)  # as other tests do for speed; it must not affect the next measurement
        assert "128 x 128, float32" in costs.ceiling("cpu", torch.float32).provenance
    ceiling = costs.ceiling("cpu", torch.float32)
    assert ceiling is costs.ceiling("cpu", torch.float32)
    assert ceiling.value is not None
    assert 1e8 < ceiling.value < 1e15
    assert "128 x 128" not in ceiling.provenance


def test_matrices_are_smaller_where_products_are_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]

    def product(left: torch.Tensor, right: torch.Tensor) -> None:
        clock[0] += 0.2 if len(left) >= 512 else 0.01

    monkeypatch.setattr(torch, "mm", product)
    monkeypatch.setattr(costs.time, "perf_counter", lambda: clock[0])
    measured = costs._ceiling.__wrapped__("cpu", torch.float32, 1, costs.SIDE)
    assert "products of 512 x 512" in measured.provenance
    assert measured.value == pytest.approx(2 * 512**3 / 0.2)


def test_the_costs_of_a_run_equal_a_manual_calculation() -> None:
    """10 s on 2 devices at 3e9 FLOP/s are 6e10; 1.5e10 model FLOPs are a quarter of that."""
    ceiling = Measure("ceiling_flops_per_s", 3e9, "FLOP/s")
    found = {measure.metric: measure.value for measure in costs.costs(15 * 10**9, 10.0, ceiling, devices=2)}
    assert found["clock_flops"] == pytest.approx(6e10)
    assert found["mfu"] == pytest.approx(0.25)


def test_the_rate_of_a_shared_gpu_is_that_of_its_fastest_product(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nineteen of twenty products wait for their turn."""
    clock, done = [0.0], [0]

    def product(left: torch.Tensor, _right: torch.Tensor) -> None:
        done[0] += 1
        clock[0] += 0.001 if done[0] % 20 == 0 else 0.05

    monkeypatch.setattr(torch, "mm", product)
    monkeypatch.setattr(costs.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "H200")
    measured = costs._ceiling.__wrapped__("meta", torch.bfloat16, 1, costs.GPU_SIDE)
    assert measured.value == pytest.approx(2 * 8192**3 / 0.001)
    assert measured.provenance == "fastest of 20 products of 8192 x 8192, bfloat16, H200, spread 98%"


def test_a_run_that_was_faster_than_the_ceiling_has_no_estimate() -> None:
    """1e11 FLOPs in 10 s on 2 devices are 5 GFLOP/s on each, but the products ran at 3."""
    ceiling = Measure("ceiling_flops_per_s", 3e9, "FLOP/s", provenance="median of five")
    first, *none = costs.costs(10**11, 10.0, ceiling, devices=2)
    assert first is ceiling
    assert [(measure.metric, measure.value) for measure in none] == [("clock_flops", None), ("mfu", None)]
    reason = "not measured: updates ran at 5.0 GFLOP/s, above the ceiling of 3.0 (median of five)"
    assert {measure.provenance for measure in none} == {reason}


def test_without_training_time_there_is_no_estimate() -> None:
    for measure in costs.costs(10, 0.0, Measure("ceiling_flops_per_s", 3e9, "FLOP/s")):
        assert measure.value is None
        assert "not measured" in measure.provenance


def test_the_published_table_is_read_unchanged() -> None:
    rows = published.table()
    assert len(rows) == 10
    assert [row["bleu_en_de"] for row in rows if row["row"] == "Transformer (big)"] == ["28.4"]
    assert math.isclose(published.read_clock("18.5 d x 1 x M40"), 9.5904e18)
