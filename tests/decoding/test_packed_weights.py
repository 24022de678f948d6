"""Packed weights give the results of the plain layers, are used where they should be, and never outlive their block."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from bench.decoding import packed_weights as packed
from bench.decoding.beam_search import DecodingSettings, translate
from bench.decoding.packed_weights import has_kernels, packed_weights
from bench.measures.latency import LatencyBenchmark
from models import transformer

pytestmark = pytest.mark.skipif(not has_kernels(), reason="this build of PyTorch has no oneDNN kernels")


class Doubled(nn.Linear):
    """A layer whose weights are not its product."""

    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


def is_packed(layer: nn.Module) -> bool:
    return "forward" in vars(layer)


def random_model(seed: int) -> transformer.Model:
    torch.manual_seed(seed)
    return transformer.Model(transformer.Config(layers=2, width=32, inner=48, heads=2), 50, 50)


@pytest.fixture
def packed_layers(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Every layer is large enough; the weights of those that are packed."""
    weights = list[Tensor]()

    def recorded(layer: nn.Linear, fewest_rows: int) -> Callable[..., Tensor]:
        weights.append(layer.weight)
        return product(layer, fewest_rows)

    product = packed.packed_product
    monkeypatch.setattr(packed, "SMALLEST", 1)
    monkeypatch.setattr(packed, "packed_product", recorded)
    return weights


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(256,), (0, 256), (1, 256), (5, 256), (3, 1, 256), (2, 40, 256)])
def test_a_packed_layer_computes_the_same_product(shape: tuple[int, ...], bias: bool) -> None:
    torch.manual_seed(1)
    layer, x = nn.Linear(256, 520, bias=bias), torch.randn(*shape[:-1], 512)[..., ::2]
    with torch.inference_mode(), packed_weights(layer):
        assert is_packed(layer)
        found = layer(x)
    torch.testing.assert_close(found, layer(x).detach(), atol=2e-6, rtol=0)


def test_only_large_plain_linear_layers_in_single_precision_are_packed() -> None:
    large, small, subclass, double = (
        nn.Linear(512, 256),
        nn.Linear(511, 256),
        Doubled(512, 256),
        nn.Linear(512, 256),
    )
    hooked = nn.Linear(512, 256)
    hooked.register_forward_pre_hook(lambda *_: None)
    model = nn.Sequential(large, small, subclass, double.double(), hooked)
    with packed_weights(model):
        assert [is_packed(layer) for layer in model] == [True, False, False, False, False]
    with torch.autocast("cpu", torch.bfloat16), packed_weights(model):
        assert not any(is_packed(layer) for layer in model)


def test_input_in_half_precision_is_computed_as_by_a_plain_layer() -> None:
    layer, x = nn.Linear(512, 256), torch.randn(3, 512)
    with packed_weights(layer), torch.autocast("cpu", torch.bfloat16):
        found = layer(x.bfloat16())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(found, layer(x.bfloat16()))


@pytest.mark.parametrize(("in_cache", "plain_rows"), [(packed.IN_CACHE, [1]), (1, [])])
def test_a_single_row_is_packed_in_large_models_only(
    in_cache: int, plain_rows: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def recorded(x_BA: Tensor, *weights: Tensor) -> Tensor:
        plain.append(len(x_BA))
        return linear(x_BA, *weights)

    layer, plain, linear = nn.Linear(512, 256), list[int](), packed.functional.linear
    monkeypatch.setattr(packed, "IN_CACHE", in_cache)
    with torch.inference_mode(), packed_weights(layer):
        monkeypatch.setattr(packed.functional, "linear", recorded)
        for rows in (1, 2, 3):
            layer(torch.zeros(rows, 512))
    assert plain == plain_rows


def test_layers_are_plain_again_after_an_error_and_after_an_inner_block() -> None:
    layer = nn.Linear(512, 256)
    with pytest.raises(RuntimeError, match="stop"), packed_weights(layer):
        raise RuntimeError("stop")
    assert not is_packed(layer)
    with packed_weights(layer):
        with packed_weights(layer):
            pass
        assert is_packed(layer)
    assert not is_packed(layer)


@pytest.mark.parametrize("beam", [1, 4])
def test_translations_are_those_of_plain_layers(
    beam: int, packed_layers: list[Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, sources = random_model(3), [[5, 6, 7], [8], [9, 10, 11, 12, 13]]
    settings = DecodingSettings(beam=beam, extra_length=5)
    found = translate(model, sources, settings)
    assert len(packed_layers) == sum(type(module) is nn.Linear for module in model.modules())
    monkeypatch.setattr(packed, "SMALLEST", 10**9)
    for ours, plain in zip(found, translate(model, sources, settings), strict=True):
        assert [hypothesis.ids for hypothesis in ours] == [hypothesis.ids for hypothesis in plain]
        for one, other in zip(ours, plain, strict=True):
            assert one.log_probability == pytest.approx(other.log_probability, abs=1e-4)


def test_a_translation_uses_the_weights_of_its_time(packed_layers: list[Tensor]) -> None:
    """Also if they were changed in a way that PyTorch does not notice."""
    model, other = random_model(3), random_model(4)
    sources, settings = [[5, 6, 7], [8, 9]], DecodingSettings(beam=2, extra_length=5)
    before = translate(model, sources, settings)
    for parameter, replacement in zip(model.parameters(), other.parameters(), strict=True):
        parameter.data.copy_(replacement.data)
    assert translate(model, sources, settings) == translate(other, sources, settings) != before
    assert packed_layers


def test_a_latency_benchmark_packs_the_weights_once(packed_layers: list[Tensor]) -> None:
    model = random_model(3)
    settings = DecodingSettings(beam=2)
    LatencyBenchmark(model, [[5, 6], [7]], [3, 2], settings).time_single_sentences(0.0)
    assert len(packed_layers) == sum(type(module) is nn.Linear for module in model.modules())
