"""The window of words that a perceptron or multi-layer perceptron sees at one target position.

At target position t: the source words at t-2 ... t+2 (PAD outside the sentence) and the last two target words.

Letters: B batch  S source length  P padded source  T target length  W window slots
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from models.parts.batch import PAD

BEFORE, AFTER = 2, 2  # source words on either side of the current position
SLOTS = BEFORE + 1 + AFTER
RECENT = 2  # target words before the current position; `first_past` holds the one before the previous word


def padded_source(ids_BS: Tensor) -> Tensor:
    """Return ids_BP: PAD (BEFORE times), the source, one PAD for all positions after it."""
    return functional.pad(ids_BS, (BEFORE, 1), value=PAD)


def source_index(position_T: Tensor, padded_length: int) -> Tensor:
    """Return index_TW into the padded source, of the words around each position."""
    slot_W = torch.arange(SLOTS, device=position_T.device)
    return (position_T[:, None] + slot_W).clamp(max=padded_length - 1)


def first_past(like_BX: Tensor) -> tuple[Tensor, Tensor]:
    """Return (position_B, before_B), the position of the first word and the target word before the previous one."""
    position_B = torch.zeros(len(like_BX), dtype=torch.long, device=like_BX.device)
    return position_B, torch.full_like(position_B, PAD)
