"""Parts of recurrent architectures: what a GPU would do, told to a pretended tensor."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from models.parts.recurrent import run_fused


def on(device: str, name: str) -> Any:
    return SimpleNamespace(device=torch.device(device), float=lambda: f"{name} in fp32")


def layers(x: Any, states: Any) -> Any:
    return x, states


@pytest.mark.parametrize("several", [False, True])
def test_fused_layers_leave_autocast_on_a_gpu(several: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, bool]] = []

    def autocast(device: str, enabled: bool) -> contextlib.nullcontext[None]:
        told.append((device, enabled))
        return contextlib.nullcontext()

    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: device == "cuda")
    monkeypatch.setattr(torch, "autocast", autocast)
    states: Any = (on("cuda", "h"), on("cuda", "c")) if several else on("cuda", "h")
    found = run_fused(layers, on("cuda", "x"), states)
    assert found == ("x in fp32", ("h in fp32", "c in fp32") if several else "h in fp32")
    assert told == [("cuda", False)]


def test_fused_layers_are_themselves_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    x, h = on("cpu", "x"), on("cpu", "h")
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda _: True)
    assert run_fused(layers, x, h) == (x, h)
    x, h = on("cuda", "x"), on("cuda", "h")
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda _: False)
    assert run_fused(layers, x, h) == (x, h)
