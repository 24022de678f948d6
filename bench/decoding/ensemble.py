"""Ensembles: several models that translate together. An ensemble is a `Translator`, so it is used like one model."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from models.parts.batch import Tokens
from models.parts.flops import NO_FLOPS, Flops
from models.parts.stack import Stack
from models.parts.translator import Routing, State, Step, Translator


class Ensemble(Translator):
    """P(y_t | y_<t, X) = 1/M sum_m P_m(y_t | y_<t, X): the probabilities of the members are averaged at every step.

    The mean is arithmetic, as in fairseq. Members can have any architecture; they share one source and one target
    vocabulary. The hidden state is the concatenation of the members' hidden states, and the decoder state a tree of
    their states. `project` returns log P, which a log-softmax leaves unchanged. Attention is the mean over members if
    all of them have attention. Costs are sums over members.
    """

    def __init__(self, members: Sequence[Translator]) -> None:
        super().__init__()
        self.members: Stack[Translator] = Stack(members)

    def encode(self, source: Tokens) -> Any:
        return tuple(member.encode(source) for member in self.members)

    def decode(self, memory: Any, target: Tokens) -> Tensor:
        pairs = zip(self.members, memory, strict=True)
        return torch.cat([member.decode(member_memory, target) for member, member_memory in pairs], dim=-1)

    def project(self, hidden: Tensor) -> Tensor:
        """Logarithms of the mean probabilities, in fp32 or higher precision."""
        parts = hidden.split([member.output.in_features for member in self.members], dim=-1)
        logits = [member.project(part) for member, part in zip(self.members, parts, strict=True)]
        dtype = torch.promote_types(logits[0].dtype, torch.float32)
        log_probabilities = torch.stack(
            [torch.log_softmax(member_logits, dim=-1, dtype=dtype) for member_logits in logits]
        )
        return log_probabilities.logsumexp(dim=0) - math.log(len(logits))

    def start(self, memory: Any) -> State:
        states = [member.start(member_memory) for member, member_memory in zip(self.members, memory, strict=True)]
        return State(tuple(state.source for state in states), tuple(state.past for state in states))

    def step(self, previous_B: Tensor, state: State) -> Step:
        pairs = zip(self.members, state.source, state.past, strict=True)
        steps = [member.step(previous_B, State(source, past)) for member, source, past in pairs]
        attention = [step.attention_BS for step in steps if step.attention_BS is not None]
        return Step(
            torch.cat([step.hidden_BD for step in steps], dim=-1),
            State(tuple(step.state.source for step in steps), tuple(step.state.past for step in steps)),
            torch.stack(attention).mean(dim=0) if len(attention) == len(steps) else None,
        )

    def flops_encode(self, source_length: int) -> Flops:
        return sum((member.flops_encode(source_length) for member in self.members), NO_FLOPS)

    def flops_decode(self, source_length: int, target_length: int) -> Flops:
        return sum((member.flops_decode(source_length, target_length) for member in self.members), NO_FLOPS)

    def flops_start(self, source_length: int) -> Flops:
        return sum((member.flops_start(source_length) for member in self.members), NO_FLOPS)

    def flops_step(self, source_length: int, position: int) -> Flops:
        return sum((member.flops_step(source_length, position) for member in self.members), NO_FLOPS)

    def flops_project(self) -> Flops:
        return sum((member.flops_project() for member in self.members), NO_FLOPS)

    def is_repeatable(self, *, training: bool) -> bool:
        """Return whether all members are."""
        return all(member.is_repeatable(training=training) for member in self.members)

    def set_routing(self, routing: Routing) -> None:
        for member in self.members:
            member.set_routing(routing)

    def pop_routing_statistics(self) -> dict[str, float]:
        """Return the sums over the members."""
        total = Counter[str]()
        for member in self.members:
            total.update(member.pop_routing_statistics())
        return dict(total)

    def multiplied_parameters(self) -> int:
        return sum(member.multiplied_parameters() for member in self.members)

    def parameter_counts(self) -> tuple[int, int]:
        counts = [member.parameter_counts() for member in self.members]
        return sum(total for total, _ in counts), sum(core for _, core in counts)
