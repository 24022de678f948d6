"""Base class for small translators in tests, which implement only the methods that their test needs."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from models.parts.batch import Tokens
from models.parts.flops import Flops
from models.parts.translator import State, Step, Translator


class Partial(Translator):
    """Every method fails the test that calls it, unless a subclass implements it."""

    def encode(self, source: Tokens) -> Any:
        raise AssertionError("encode was called")

    def decode(self, memory: Any, target: Tokens) -> Tensor:
        raise AssertionError("decode was called")

    def start(self, memory: Any) -> State:
        raise AssertionError("start was called")

    def step(self, previous_B: Tensor, state: State) -> Step:
        raise AssertionError("step was called")

    def flops_encode(self, source_length: int) -> Flops:
        raise AssertionError("flops_encode was called")

    def flops_step(self, source_length: int, position: int) -> Flops:
        raise AssertionError("flops_step was called")
