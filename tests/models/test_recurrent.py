"""Precision of fused recurrent layers on a GPU, tested without a GPU by fake tensors with a device attribute."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from models.parts.recurrent import run_fused


def fake_tensor(device: str, name: str) -> Any:
    return SimpleNamespace(device=torch.device(device), float=lambda: f"{name} in fp32")


def layers(x: Any, states: Any) -> Any:
    return x, states


@pytest.mark.parametrize("several", [False, True])
def test_fused_layers_run_in_fp32_under_autocast_on_a_gpu(several: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, bool]] = []

    def autocast(device: str, enabled: bool) -> contextlib.nullcontext[None]:
        calls.append((device, enabled))
        return contextlib.nullcontext()

    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: device == "cuda")
    monkeypatch.setattr(torch, "autocast", autocast)
    states: Any = (fake_tensor("cuda", "h"), fake_tensor("cuda", "c")) if several else fake_tensor("cuda", "h")
    found = run_fused(layers, fake_tensor("cuda", "x"), states)
    assert found == ("x in fp32", ("h in fp32", "c in fp32") if several else "h in fp32")
    assert calls == [("cuda", False)]


def test_fused_layers_are_unchanged_on_a_cpu_or_without_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    x, h = fake_tensor("cpu", "x"), fake_tensor("cpu", "h")
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda _: True)
    assert run_fused(layers, x, h) == (x, h)
    x, h = fake_tensor("cuda", "x"), fake_tensor("cuda", "h")
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda _: False)
    assert run_fused(layers, x, h) == (x, h)
