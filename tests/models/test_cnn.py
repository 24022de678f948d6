"""RCTM I: the sentence model and the recurrent decoder compared with their equations; padding."""

from __future__ import annotations

import torch

from models.cnn import Config, Model
from models.parts.batch import BOS, EOS, Tokens

SMALL = Config(embedding=5, layers=3, channels=6, hidden=7)


def build() -> Model:
    torch.manual_seed(1)
    return Model(SMALL, 30, 40).double().eval()


def test_sentence_model_equals_its_equations_for_any_padding() -> None:
    """Kernels of 2, 3 and 4, tanh after each, and the maximum over positions."""
    model, ids_BS = build(), torch.tensor([[11, 12, 13, 14, EOS], [15, EOS, 0, 0, 0], [EOS, 0, 0, 0, 0]])
    lengths = (5, 2, 1)
    found_BC = model.encode(Tokens(ids_BS, lengths))
    assert [layer.kernel for layer in model.csm] == [2, 3, 4]
    for row, length in enumerate(lengths):
        x_SC = model.source_embedding(ids_BS[row, :length])
        for layer in model.csm:
            padded = torch.cat((x_SC, torch.zeros(layer.kernel - 1, x_SC.shape[1], dtype=x_SC.dtype)))
            columns = [padded[j : j + layer.kernel].flatten() for j in range(length)]
            x_SC = torch.stack([torch.tanh(layer.K.weight @ column + layer.K.bias) for column in columns])
        torch.testing.assert_close(found_BC[row], x_SC.max(dim=0).values, atol=1e-12, rtol=0)


def test_decoder_equals_its_equations() -> None:
    """h_{i+1} = tanh(R h_i + I v(f_{i+1}) + s) with s = S csm(e) at every position; h_1 has no term with R."""
    model, ids_T = build(), torch.tensor([BOS, 21, 22, 23])
    csm_C = model.encode(Tokens(torch.tensor([[11, 12, EOS]]), (3,)))[0]
    found_TD = model.decode(csm_C[None], Tokens(ids_T[None], (4,)))[0]
    i_s, r = (model.recurrence.get_parameter(name) for name in ("weight_ih_l0", "weight_hh_l0"))
    i, s = i_s[:, :5], i_s[:, 5:] @ csm_C
    h_D = torch.tanh(i @ model.target_embedding(ids_T[0]) + s)
    torch.testing.assert_close(found_TD[0], h_D, atol=1e-12, rtol=0)
    for position in (1, 2, 3):
        h_D = torch.tanh(r @ h_D + i @ model.target_embedding(ids_T[position]) + s)
        torch.testing.assert_close(found_TD[position], h_D, atol=1e-12, rtol=0)


@torch.no_grad()
def test_memory_is_one_vector_for_any_source_length() -> None:
    model = build()
    for length in (1, 4, 9):
        source = Tokens(torch.tensor([[*range(11, 10 + length), EOS]]), (length,))
        assert model.encode(source).shape == (1, 6)
