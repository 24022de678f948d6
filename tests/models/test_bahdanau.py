"""RNNsearch compared with the equations of its appendix, and with the paper's initial weights."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from models.bahdanau import Config, Model
from models.parts.batch import BOS, EOS, Tokens

SMALL = Config(embedding=5, width=6, alignment=7, maxout=4)


def sentence(*ids: int) -> Tokens:
    return Tokens(torch.tensor([ids]), (len(ids),))


def build() -> Model:
    torch.manual_seed(1)
    model = Model(SMALL, 30, 40).double().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model


def run_gru(gru: torch.nn.GRU, x_SE: Tensor) -> Tensor:
    """Return h_SD from zeros, with the reset gate after the product with U, as in fused kernels."""
    w_x, w_h, b_x, b_h = (gru.get_parameter(f"{name}_l0") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    h_D, h_SD = torch.zeros(w_h.shape[1], dtype=x_SE.dtype), []
    for x_E in x_SE:
        (xr, xz, xn), (hr, hz, hn) = (w_x @ x_E + b_x).chunk(3), (w_h @ h_D + b_h).chunk(3)
        z = torch.sigmoid(xz + hz)
        h_D = (1 - z) * torch.tanh(xn + torch.sigmoid(xr + hr) * hn) + z * h_D
        h_SD.append(h_D)
    return torch.stack(h_SD)


def annotate(model: Model, ids_S: Tensor) -> Tensor:
    """Return the annotations h_S2D of one sentence without padding."""
    x_SE = model.source_embedding(ids_S)
    both = []
    for direction, x in ((model.encoder.forwards, x_SE), (model.encoder.backwards, x_SE.flip(0))):
        both.append(run_gru(direction, x))
    return torch.cat((both[0], both[1].flip(0)), dim=1)


def test_annotations_equal_two_grus_for_each_sentence_alone() -> None:
    model = build()
    ids_BS = torch.tensor([[11, 12, 13, 14, EOS], [15, EOS, 0, 0, 0], [16, 17, 18, EOS, 0]])
    h_BS2D = model.encode(Tokens(ids_BS, (5, 2, 4))).h_BS2D
    for row, length in enumerate((5, 2, 4)):
        wanted_S2D = annotate(model, ids_BS[row, :length])
        torch.testing.assert_close(h_BS2D[row, :length], wanted_S2D, atol=1e-10, rtol=0)


def test_decoder_equals_appendix_a() -> None:
    """s_0, alignment, context in all gates, U [r * s], biases and the maxout readout, one position at a time."""
    model, source, prefix = build(), torch.tensor([11, 12, 13, EOS]), [BOS, 21, 22]
    h_S2D = annotate(model, source)
    get = model.get_parameter
    w_z, w_r, w = get("decoder.W.weight").chunk(3)
    b_z, b_r, b = get("decoder.W.bias").chunk(3)
    c_z, c_r, c = get("decoder.C.weight").chunk(3)
    u_z, u_r = get("decoder.U_gates.weight").chunk(2)
    w_a, u_a, v_a = (get(f"decoder.attention.{name}.weight") for name in ("W_a", "U_a", "v_a"))
    s = torch.tanh(get("W_s.weight") @ h_S2D[0, 6:] + get("W_s.bias"))
    wanted, attention = [], []
    for word in prefix:
        y = model.target_embedding.weight[word]
        e_S = torch.stack([v_a[0] @ torch.tanh(w_a @ s + u_a @ h_2D) for h_2D in h_S2D])
        a_S = e_S.exp() / e_S.exp().sum()
        context = (a_S[:, None] * h_S2D).sum(dim=0)
        z = torch.sigmoid(w_z @ y + u_z @ s + c_z @ context + b_z)
        r = torch.sigmoid(w_r @ y + u_r @ s + c_r @ context + b_r)
        s = (1 - z) * s + z * torch.tanh(w @ y + get("decoder.U.weight") @ (r * s) + c @ context + b)
        pairs = get("U_o.weight") @ s + get("V_o.weight") @ y + get("C_o.weight") @ context + get("U_o.bias")
        wanted.append(torch.maximum(pairs[0::2], pairs[1::2]))
        attention.append(a_S)
    memory = model.encode(Tokens(source[None], (4,)))
    found_TM = model.decode(memory, sentence(*prefix))[0]
    torch.testing.assert_close(found_TM, torch.stack(wanted), atol=1e-10, rtol=0)
    logits_TV = torch.stack(wanted) @ get("output.weight").T + get("output.bias")
    torch.testing.assert_close(model.project(found_TM), logits_TV, atol=1e-10, rtol=0)
    state = model.start(memory)
    for word, a_S in zip(prefix, attention, strict=True):
        _, state, attention_BS = model.step(torch.tensor([word]), state)
        assert attention_BS is not None
        torch.testing.assert_close(attention_BS[0], a_S, atol=1e-10, rtol=0)
        assert a_S.std() > 0.01


def test_initial_attention_is_uniform() -> None:
    """With v_a = 0 every source word has the same weight, and padding has none."""
    model = Model(SMALL, 30, 40).eval()
    ids_BS = torch.tensor([[11, 12, 13, EOS], [14, EOS, 0, 0]])
    step = model.step(torch.tensor([BOS, BOS]), model.start(model.encode(Tokens(ids_BS, (4, 2)))))
    assert step.attention_BS is not None
    assert step.attention_BS.tolist() == [[0.25] * 4, [0.5, 0.5, 0, 0]]


def test_initial_weights_are_those_of_appendix_b() -> None:
    """Recurrent matrices are orthogonal, W_a and U_a ~ N(0, 0.001^2), v_a and all biases 0, all others N(0, 0.01^2)."""
    torch.manual_seed(1)
    model = Model(Config(embedding=62), 500, 500)
    orthogonal, biases = 0, set()
    for name, parameter in model.named_parameters():
        if name.endswith(("weight_hh_l0", "decoder.U_gates.weight", "decoder.U.weight")):
            for square_DD in parameter.split(1000):
                torch.testing.assert_close(square_DD @ square_DD.T, torch.eye(1000), atol=1e-4, rtol=0)
                orthogonal += 1
        elif "v_a" in name or "bias" in name:
            assert parameter.count_nonzero() == 0
            biases.add(name)
        else:
            std = 0.001 if "attention" in name else 0.01
            assert parameter.std().item() == pytest.approx(std, rel=0.02), name
    assert orthogonal == 3 + 3 + 2 + 1
    encoder = {f"encoder.{way}.bias_{part}_l0" for way in ("forwards", "backwards") for part in ("ih", "hh")}
    decoder = {"decoder.W.bias", "W_s.bias", "U_o.bias", "output.bias"}
    assert biases == encoder | decoder | {"decoder.attention.v_a.weight"}
