"""Contract tests: what every architecture must do, tested for every row of every architecture's YAML in experiments/.

Unless a test says otherwise it uses the demo preset, a vocabulary of a few tokens, evaluation mode and float64, and
adds noise to the initial weights, because zeros and small numbers would hide mistakes.

On a GPU: python -m pytest tests/models/test_contract.py --device cuda.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten
from torch.utils.flop_counter import FlopCounterMode

from bench.data.batches import PairBatches
from bench.data.encoded_pairs import Pairs, Sentences
from bench.decoding import concurrent_batches
from bench.decoding.beam_search import DecodingSettings, greedy, translate
from bench.decoding.recorded_steps import recorded_steps
from bench.experiment.loading import resolve, row_files
from bench.experiment.spec import Experiment
from bench.system.machine import MachineSettings, bf16_fallback
from bench.training.checkpoints import Signals
from bench.training.recorded_updates import RecordedUpdates
from bench.training.reward import without_dropout
from bench.training.trainer import Status, TrainingHooks, TrainingResult, train
from bench.training.validation import Score
from models.parts.batch import BOS, EOS, UNK, Batch, Tokens
from models.parts.flops import Flops
from models.parts.mixture_of_experts import MixtureOfExperts
from models.parts.optimization import OptimizationSettings
from models.parts.translator import Translator
from tests.helpers.repeated_calls import repeated

FILES = row_files()
ROWS = sorted(FILES)
SOURCE_LENGTHS, TARGET_LENGTHS = (6, 3, 8, 2, 7), (5, 7, 2, 9, 1)

MEMORIZED = dict.fromkeys(ROWS, 8)
"""The number of eight training sentences that a row must translate without an error."""


@functools.cache
def experiment(row: str, preset: str = "demo") -> Experiment:
    """The row with the settings of its file, so that the recipes of a new search change no test."""
    return resolve(FILES[row], preset=preset, row=row, tuned=False)


def vocabularies(job: Experiment) -> tuple[int, int]:
    """Return different sizes for source and target, so that confusing the two fails, unless they share one table."""
    return (23, 23) if getattr(job.model, "shared_embeddings", False) else (29, 23)


def build(row: str, seed: int = 1, noise: bool = True, device: torch.device | str = "cpu") -> Translator:
    """Return the row's model; `noise` moves every weight away from its initial value."""
    job = experiment(row)
    torch.manual_seed(seed)
    model = job.build(*vocabularies(job)).eval()
    model.optimization = job.training
    if noise:
        for parameter in model.parameters():
            parameter.data += 0.1 * torch.randn(parameter.shape)
    return model.to(device)


def tokens(lengths: tuple[int, ...], vocabulary: int = 23, seed: int = 1) -> Tokens:
    """Return random words, with EOS at the end of each sentence and PAD after it."""
    ids_BS = torch.zeros(len(lengths), max(lengths), dtype=torch.long)
    generator = torch.Generator().manual_seed(seed)
    for row_S, length in zip(ids_BS, lengths, strict=True):
        row_S[: length - 1] = torch.randint(UNK + 1, vocabulary, (length - 1,), generator=generator)
        row_S[length - 1] = EOS
    return Tokens(ids_BS, lengths)


def batch(device: torch.device | str = "cpu") -> Batch:
    return Batch(tokens(SOURCE_LENGTHS, seed=1), tokens(TARGET_LENGTHS, seed=2)).to(device)


def single(side: Tokens, row: int) -> Tokens:
    """Return one sentence of a batch, without padding."""
    length = side.lengths_B[row]
    return Tokens(side.ids_BS[row : row + 1, :length], (length,))


def decode_all(model: Translator, pairs: Batch) -> Tensor:
    """Return hidden_BTD by `decode`."""
    return model.decode(model.encode(pairs.source), pairs.prefix)


def decode_stepwise(model: Translator, pairs: Batch) -> tuple[Tensor, list[Tensor | None]]:
    """Return (hidden_BTD, attention_BS of each step) by `start` and `step`."""
    state, hidden, attention = model.start(model.encode(pairs.source)), [], []
    for previous_B in pairs.prefix.ids_BS.unbind(dim=1):
        hidden_BD, state, attention_BS = model.step(previous_B, state)
        hidden.append(hidden_BD)
        attention.append(attention_BS)
    return torch.stack(hidden, dim=1), attention


def select_rows(tree: Any, rows_N: Tensor) -> Any:
    """Return the state of some sentences; every tensor of the tree must have one row per sentence."""
    if isinstance(tree, Tensor):
        assert tree.shape[0] == len(SOURCE_LENGTHS)
        return tree.index_select(0, rows_N)
    if tree is None:
        return None
    branches = [select_rows(branch, rows_N) for branch in tree]
    return type(tree)(*branches) if hasattr(tree, "_fields") else tuple(branches)


def dtypes(tree: Any) -> Iterator[torch.dtype]:
    """Yield the dtype of every tensor of a tree."""
    if isinstance(tree, Tensor):
        yield tree.dtype
    elif isinstance(tree, (tuple, list)):
        for branch in tree:
            yield from dtypes(branch)


def assert_equal_at_real_positions(found_BTD: Tensor, wanted_BTD: Tensor, tolerance: float) -> None:
    assert found_BTD.shape == wanted_BTD.shape
    for row, length in enumerate(TARGET_LENGTHS):
        difference = (found_BTD[row, :length] - wanted_BTD[row, :length]).abs().max().item()
        assert difference <= tolerance, f"sentence {row}"


@pytest.fixture(params=ROWS)
def row(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def model(row: str, device: torch.device) -> Translator:
    return build(row, device=device).double()


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def without_cudnn() -> Iterator[None]:
    """Disable cuDNN, whose recurrent layers have no backward pass in evaluation mode."""
    with torch.backends.cudnn.flags(enabled=False):
        yield


# --- `decode` and `step` give the same numbers ------------------------------------------------------------------------


@torch.no_grad()
def test_step_by_step_equals_decode(model: Translator) -> None:
    pairs = batch(model.device)
    wanted_BTD, (found_BTD, _) = decode_all(model, pairs), decode_stepwise(model, pairs)
    assert wanted_BTD.std() > 1e-3  # otherwise a constant result would pass
    assert_equal_at_real_positions(found_BTD, wanted_BTD, 1e-8)


@torch.no_grad()
def test_step_by_step_equals_decode_in_fp32(row: str, device: torch.device) -> None:
    """In fp32 other kernels run: oneDNN for an LSTM on a CPU, fused attention on a GPU."""
    model, pairs = build(row, device=device), batch(device)
    assert_equal_at_real_positions(decode_stepwise(model, pairs)[0], decode_all(model, pairs), 1e-4)


def test_batches_decoded_at_the_same_time_are_those_decoded_in_turn(
    model: Translator, two_threads: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(concurrent_batches, "LEAST_FLOPS", 0)
    sources = [side.ids_BS[0, :-1].tolist() for side in (tokens((2 + seed % 7,), seed=seed) for seed in range(16))]
    settings = DecodingSettings(beam=2, extra_length=5, batch_sentences=2)
    model.pop_routing_statistics()
    together = translate(model, sources, settings)
    statistics = model.pop_routing_statistics()
    torch.set_num_threads(1)
    in_turn = translate(model, sources, settings)
    assert statistics == model.pop_routing_statistics()
    for found, wanted in zip(together, in_turn, strict=True):
        assert [hypothesis.ids for hypothesis in found] == [hypothesis.ids for hypothesis in wanted]
        assert [hypothesis.score for hypothesis in found] == pytest.approx([h.score for h in wanted], abs=1e-9)


@torch.no_grad()
def test_padding_and_other_sentences_change_nothing(model: Translator) -> None:
    pairs = batch(model.device)
    batch_BTD, (stepwise_BTD, batch_attention) = decode_all(model, pairs), decode_stepwise(model, pairs)
    for row, (source_length, target_length) in enumerate(zip(SOURCE_LENGTHS, TARGET_LENGTHS, strict=True)):
        pair = Batch(single(pairs.source, row), single(pairs.target, row))
        single_1TD = decode_all(model, pair)
        torch.testing.assert_close(batch_BTD[row : row + 1, :target_length], single_1TD, atol=1e-8, rtol=0)
        steps_1TD, attention = decode_stepwise(model, pair)
        torch.testing.assert_close(stepwise_BTD[row : row + 1, :target_length], steps_1TD, atol=1e-8, rtol=0)
        for weights_1S, weights_BS in zip(attention, batch_attention[:target_length], strict=True):
            if weights_1S is None or weights_BS is None:
                assert weights_1S is weights_BS
                continue
            assert weights_BS[row].shape == (max(SOURCE_LENGTHS),)
            assert weights_BS[row, source_length:].abs().sum() == 0
            torch.testing.assert_close(weights_BS[row, :source_length], weights_1S[0], atol=1e-8, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("row", [row for row in ROWS if not row.endswith("-ensemble")])
@torch.no_grad()
def test_sentences_longer_than_any_table_of_positions(row: str, device: torch.device) -> None:
    """1,100 tokens on both sides: more than the positions that ConvS2S (1,024) and location scores have learned."""
    model = build(row, device=device)
    long = Batch(tokens((1100,), seed=1), tokens((1100,), seed=2)).to(device)
    hidden_BTD = decode_all(model, long)
    assert hidden_BTD.shape[1] == 1100
    assert hidden_BTD.isfinite().all()


def test_losses_are_ordered_by_sentence(model: Translator) -> None:
    pairs = batch(model.device)
    each = [
        model.token_losses(Batch(single(pairs.source, row), single(pairs.target, row)))
        for row in range(len(SOURCE_LENGTHS))
    ]
    torch.testing.assert_close(model.token_losses(pairs), torch.cat(each), atol=1e-8, rtol=0)


# --- which words a position sees --------------------------------------------------------------------------------------


@torch.no_grad()
def test_no_position_sees_a_later_word(model: Translator) -> None:
    source, length = tokens((6,)).to(model.device), 8
    ids_1T = tokens((length,), seed=3).ids_BS.to(model.device)
    memory = model.encode(source)
    before_1TD = model.decode(memory, Tokens(ids_1T, (length,)))
    for position in range(1, length):
        changed_1T = ids_1T.clone()
        changed_1T[0, position:] = (changed_1T[0, position:] + 5) % 19 + 4
        assert (changed_1T[0, position:] != ids_1T[0, position:]).all()
        after_1TD = model.decode(memory, Tokens(changed_1T, (length,)))
        torch.testing.assert_close(after_1TD[:, :position], before_1TD[:, :position], atol=1e-8, rtol=0)
        assert (after_1TD[0, position] - before_1TD[0, position]).abs().max() > 1e-6  # the word itself is seen


@pytest.mark.usefixtures("without_cudnn")
def test_later_words_get_no_gradient(model: Translator) -> None:
    """The same by the gradients of the embeddings, as in nanodo. Frozen features (perceptron) have no gradients."""
    source, length = tokens((6,)).to(model.device), 6
    prefix = tokens((length,), seed=3).to(model.device)
    memory = model.encode(source)
    recorded: list[Tensor] = []

    def record(_module: nn.Module, _inputs: Any, words_1TE: Tensor) -> None:
        recorded.append(words_1TE)

    hooks = [module.register_forward_hook(record) for module in model.modules() if isinstance(module, nn.Embedding)]
    hidden_1TD = model.decode(memory, prefix)
    for hook in hooks:
        hook.remove()
    if not hidden_1TD.requires_grad:
        assert not hooks
        return
    words = [words_1TE for words_1TE in recorded if words_1TE.shape[1] >= length]
    assert words
    for position in range(length):
        target = (hidden_1TD[0, position] * torch.arange(1, hidden_1TD.shape[2] + 1, device=model.device)).sum()
        for gradient_1TE in torch.autograd.grad(target, words, retain_graph=True):
            gradient_T = gradient_1TE[0, -length:].abs().amax(dim=1)
            assert gradient_T[position] > 0
            assert (gradient_T[position + 1 :] == 0).all()


@torch.no_grad()
def test_every_source_word_is_seen(model: Translator) -> None:
    source, target = (tokens((6,), seed=seed).to(model.device) for seed in (1, 2))
    before_1TD = decode_all(model, Batch(source, target))
    for position in range(5):
        ids_1S = source.ids_BS.clone()
        ids_1S[0, position] = 4 + (ids_1S[0, position] - 3) % 19
        assert ids_1S[0, position] != source.ids_BS[0, position]
        after_1TD = decode_all(model, Batch(Tokens(ids_1S, (6,)), target))
        assert (after_1TD - before_1TD).abs().max() > 1e-6, f"source word {position} changes nothing"


# --- states and files -------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_beams_can_be_reordered(model: Translator) -> None:
    """Rows selected from the state, in another order and repeated, give the same results as in the original order."""
    pairs, rows_N = batch(model.device), torch.tensor([3, 0, 0, 4], device=model.device)
    state = model.start(model.encode(pairs.source))
    prefix_BT = tokens((4,) * 5, seed=7).ids_BS.to(model.device)
    _, state, _ = model.step(prefix_BT[:, 0], state)
    _, state, _ = model.step(prefix_BT[:, 1], state)
    wanted = model.step(prefix_BT[:, 2], state)
    found = model.step(prefix_BT[rows_N, 2], select_rows(state, rows_N))
    torch.testing.assert_close(found.hidden_BD, wanted.hidden_BD[rows_N], atol=1e-8, rtol=0)
    found_BD = model.step(prefix_BT[rows_N, 3], found.state).hidden_BD
    wanted_BD = model.step(prefix_BT[:, 3], wanted.state).hidden_BD
    torch.testing.assert_close(found_BD, wanted_BD[rows_N], atol=1e-8, rtol=0)


@torch.no_grad()
@pytest.mark.usefixtures("same_bits")
def test_saved_weights_give_the_same_bits(row: str, device: torch.device) -> None:
    (model, other), pairs = (build(row, seed=seed, device=device) for seed in (1, 2)), batch(device)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    wanted_BTV = model.project(decode_all(model, pairs))
    assert not torch.equal(other.project(decode_all(other, pairs)), wanted_BTV)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(other.project(decode_all(other, pairs)), wanted_BTV)


class Killed(BaseException):
    """Ends the training like kill -9: no handler writes anything after it."""


def run_training(
    row: str, folder: Path, device: torch.device, killed_after: int | None = None
) -> tuple[list[int], TrainingResult]:
    """Return (updates reported, result) of 5 updates with the row's own settings, with dropout if the row has it."""
    job = experiment(row)
    if hasattr(job.model, "dropout"):
        job = resolve(FILES[row], row=row, flags=["--model.dropout", "0.3"])
    torch.manual_seed(1)
    model, reported = job.build(*vocabularies(job)), []
    sources, targets = (
        Sentences.of([single(side, sentence).ids_BS[0, :-1].tolist() for sentence in range(6)])
        for side in (tokens((7, 5, 6, 8, 4, 6), seed=seed) for seed in (1, 2))
    )

    def report(status: Status) -> None:
        reported.append(status.updates)
        if status.updates == killed_after:
            raise Killed

    signals = Signals()
    with signals.installed():
        done = train(
            model,
            PairBatches(Pairs(sources, targets), 16, seed=1),
            replace(job.training, max_pairs=None, max_updates=5, validations=1, batch_tokens=16),
            MachineSettings(
                "gpu" if device.type == "cuda" else "cpu", checkpoint_seconds=60.0 if killed_after is None else 0.0
            ),
            TrainingHooks(lambda sentences: ["" for _ in sentences], lambda _: Score(1.0, 1.0, 1.0), on_status=report),
            seed=1,
            folder=folder,
            signals=signals,
        )
    return reported, done


@pytest.mark.usefixtures("same_bits")
def test_killed_and_resumed_gives_the_same_bits(row: str, device: torch.device, tmp_path: Path) -> None:
    """Compares five updates with three, a kill and two more; tests/training/test_trainer.py tests other kills."""
    _, uninterrupted = run_training(row, tmp_path / "uninterrupted", device)
    with pytest.raises(Killed):
        run_training(row, tmp_path / "killed", device, killed_after=3)
    reported, resumed = run_training(row, tmp_path / "killed", device)
    assert reported == [4, 5]
    assert uninterrupted.weights.keys() == resumed.weights.keys()
    changed = [name for name, weight in uninterrupted.weights.items() if not torch.equal(weight, resumed.weights[name])]
    assert not changed


# --- training ---------------------------------------------------------------------------------------------------------


def update(model: Translator, optimizer: Any, pairs: Batch, clip: float | None) -> None:
    model.training_step(pairs, 0).backward()
    if clip:
        nn.utils.clip_grad_norm_(model.parameters(), clip)
    optimizer["optimizer"].step()
    optimizer["optimizer"].zero_grad()
    optimizer["lr_scheduler"]["scheduler"].step()


def test_five_updates_change_every_tensor(row: str, device: torch.device) -> None:
    """Starts from the initial weights without noise and uses the row's own optimization settings."""
    model, job = build(row, noise=False, device=device).train(), experiment(row)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = model.configure_optimizers()
    for _ in range(5):
        update(model, optimizer, batch(device), job.training.clip)
    assert before
    unchanged = [name for name, parameter in model.named_parameters() if torch.equal(parameter, before[name])]
    assert not unchanged
    assert all(parameter.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("normalization", ["token", "sentence"])
def test_accumulated_gradients_are_those_of_the_whole_batch(
    model: Translator, device: torch.device, normalization: Literal["token", "sentence"]
) -> None:
    def step(parts: int) -> tuple[Tensor, Tensor]:
        model.optimization = OptimizationSettings(normalization=normalization, label_smoothing=0.1, accumulate=parts)
        model.zero_grad()
        loss = model.training_step(batch(device), 0)
        loss.backward()
        return loss.detach(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    with without_dropout(model.train()):
        whole, whole_P = step(1)
        if any(isinstance(module, MixtureOfExperts) for module in model.modules()):
            pytest.skip("a mixture of experts looks at the whole batch")
        for parts in (2, 5, 60):
            found, found_P = step(parts)
            torch.testing.assert_close(found, whole, rtol=1e-12, atol=0)
            torch.testing.assert_close(found_P, whole_P, rtol=0, atol=1e-12 * whole_P.abs().max().item())


@pytest.mark.parametrize("normalization", ["token", "sentence"])
@pytest.mark.parametrize("parts", [1, 2])
def test_a_recorded_update_is_that_of_the_batch(
    model: Translator, device: torch.device, normalization: Literal["token", "sentence"], parts: int
) -> None:
    """The second batch has other words and other lengths in the recorded shape."""
    first, second = batch(device), Batch(tokens((8, 7, 1, 4, 2), seed=3), tokens((1, 2, 9, 3, 3), seed=4)).to(device)
    model.optimization = OptimizationSettings(normalization=normalization, label_smoothing=0.1, accumulate=parts)
    with without_dropout(model.train()):
        if not model.is_repeatable(training=True):
            pytest.skip("the row cannot be recorded")

        def gradients(pairs: Batch) -> Tensor:
            model.zero_grad()
            loss = model.training_step(pairs, 0)
            loss.backward()
            found = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
            return torch.cat((loss.detach()[None], *found))

        wanted = [gradients(pairs) for pairs in (first, second)]
        model.differentiate = recorded = RecordedUpdates(model, None if device.type == "cuda" else repeated)
        for number, pairs in enumerate((first, first, second, first)):
            found_P, wanted_P = gradients(pairs), wanted[int(pairs is second)]
            torch.testing.assert_close(found_P, wanted_P, rtol=0, atol=1e-12 * wanted_P.abs().max().item())
            assert parts > 1 or recorded.launches == number
        assert recorded.launches


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_a_recorded_update_draws_the_numbers_of_the_usual_one(
    row: str, device: torch.device, precision: torch.dtype
) -> None:
    """With dropout, in the precisions of training, whose kernels are not those of float64."""
    model, pairs = build(row, device=device).train(), batch(device)
    if not model.is_repeatable(training=True):
        pytest.skip("the row cannot be recorded")
    updates = RecordedUpdates(model, None if device.type == "cuda" else repeated)
    losses = list[float]()
    with bf16_fallback(device), torch.autocast(device.type, torch.bfloat16, enabled=precision == torch.bfloat16):
        for seed in (1, 2, 1, 2, 1):
            torch.manual_seed(seed)
            loss, gradients = updates(pairs)
            assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
            losses.append(loss.item())
    assert updates.launches == 4
    assert losses[2:] == pytest.approx([losses[0], losses[1], losses[0]], rel=1e-5)


class NothingFromTheHost(TorchDispatchMode):
    """Fails if an operation moves a tensor from the host to the device. Nothing can be read back from "meta" anyway."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        inputs, _ = tree_flatten((args, kwargs))
        on_host = any(isinstance(each, Tensor) and each.device.type == "cpu" for each in inputs)
        on_device = any(isinstance(each, Tensor) and each.is_meta for each in tree_flatten(found)[0])
        assert not (on_host and on_device), f"{func} reads from the host"
        return found


def test_a_recorded_update_reads_nothing_but_tensors_of_the_device(row: str) -> None:
    """A CUDA graph would repeat a copy from the host with the address that it had when it was recorded."""
    model = build_on_meta(row, "demo", 400, 400).train()
    if not model.is_repeatable(training=True):
        pytest.skip("the row cannot be recorded")
    source, target, weight = meta_tokens(3, 7).ids_BS, meta_tokens(3, 5).ids_BS, torch.ones((), device="meta")
    with NothingFromTheHost():
        loss, *gradients = RecordedUpdates(model, repeated).compute(source, target, weight)
    assert loss is not None
    assert all(gradient is not None for gradient in gradients)


def test_a_recorded_step_reads_nothing_but_tensors_of_the_device(row: str) -> None:
    model = build_on_meta(row, "demo", 400, 400).eval()
    if not model.is_repeatable(training=False):
        pytest.skip("the row cannot be recorded")
    source, previous_B = Tokens(meta_tokens(3, 7).ids_BS, ()), meta_tokens(3, 1).ids_BS[:, 0]
    with torch.inference_mode(), NothingFromTheHost():
        state = model.start(model.encode(source))
        for _ in range(3):
            hidden_BD, state, _ = model.step(previous_B, state)
            model.project(hidden_BD)


@pytest.mark.parametrize("beam", [1, 3])
def test_recorded_steps_write_the_same_translations(model: Translator, device: torch.device, beam: int) -> None:
    sources = [[5, 6, 7], [8, 9], [5], [9, 8, 7, 6, 5, 4]] * 2
    settings = DecodingSettings(beam, extra_length=6, batch_sentences=1)
    wanted = translate(model, sources, settings, attention=True)
    with recorded_steps(model, True, None if device.type == "cuda" else repeated):
        assert ("step" in vars(model)) == model.is_repeatable(training=False)
        for _ in range(3):
            found = translate(model, sources, settings, attention=True)
            for ours, theirs in zip(found, wanted, strict=True):
                assert [one.ids for one in ours] == [one.ids for one in theirs]
                assert [one.score for one in ours] == pytest.approx([one.score for one in theirs], rel=1e-12)
                for one, other in zip(ours, theirs, strict=True):
                    assert (one.attention_TS is None) == (other.attention_TS is None)
                    if one.attention_TS is not None and other.attention_TS is not None:
                        assert one.attention_TS == pytest.approx(other.attention_TS, abs=1e-6)
    assert "step" not in vars(model)


def test_the_guard_notices_a_copy_from_the_host() -> None:
    with NothingFromTheHost(), pytest.raises(AssertionError, match="from the host"):
        assert len(meta_tokens(3, 7).real_index_N) == 21


def test_bf16_mixed_trains_and_writes(row: str, device: torch.device) -> None:
    """No module computes in fp16. cuDNN's recurrent layers would under autocast, but no loss is scaled for it."""
    model, pairs = build(row, device=device).train(), batch(device)
    recorded = set[torch.dtype]()
    for module in model.modules():
        module.register_forward_hook(lambda _module, _inputs, output: recorded.update(dtypes(output)))
    with bf16_fallback(device), torch.autocast(device.type, torch.bfloat16):
        loss = model.training_step(pairs, 0)
    loss.backward()
    gradients = [parameter.grad for parameter in model.parameters()]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
    model.eval()
    with torch.no_grad(), bf16_fallback(device), torch.autocast(device.type, torch.bfloat16):
        decoded_BTD, (stepwise_BTD, _) = decode_all(model, pairs), decode_stepwise(model, pairs)
    exact_BTD = decode_all(model, pairs)
    scale = exact_BTD.abs().max().item()
    assert_equal_at_real_positions(decoded_BTD.float(), exact_BTD.detach(), 0.1 * scale)
    assert_equal_at_real_positions(stepwise_BTD.float(), exact_BTD.detach(), 0.1 * scale)
    assert recorded
    assert torch.float16 not in recorded


def test_a_tiny_corpus_is_memorized(row: str, device: torch.device) -> None:
    """Eight random targets, which only the source distinguishes, are translated without an error after training."""
    model, job = build(row, noise=False, device=device).train(), experiment(row)
    pairs = Batch(tokens((4, 5, 6, 7, 4, 5, 6, 7), seed=5), tokens((6, 5, 4, 7, 5, 6, 7, 4), seed=6)).to(device)
    optimizer = model.configure_optimizers()

    def words(side: Tokens) -> list[list[int]]:
        rows = zip(side.ids_BS.tolist(), side.lengths_B, strict=True)
        return [ids[: length - 1] for ids, length in rows]

    def correct() -> int:
        hypotheses = (hypothesis.ids for hypothesis in greedy(model, words(pairs.source), extra_length=5))
        return sum(found == wanted for found, wanted in zip(hypotheses, words(pairs.target), strict=True))

    assert correct() == 0
    for _ in range(16):  # 800 updates: on a processor without AVX-512 the row with one head needed more than 400
        for _ in range(50):
            update(model, optimizer, pairs, job.training.clip)
        if correct() >= MEMORIZED[row]:
            return
    pytest.fail(f"{correct()} of 8 sentences are correct after 800 updates")


# --- cost and size ----------------------------------------------------------------------------------------------------


def build_on_meta(row: str, preset: str, source_vocabulary: int, target_vocabulary: int) -> Translator:
    with torch.device("meta"):
        return experiment(row, preset).build(source_vocabulary, target_vocabulary).eval()


def meta_tokens(sentences: int, length: int) -> Tokens:
    return Tokens(torch.ones(sentences, length, dtype=torch.long, device="meta") * BOS, (length,) * sentences)


@pytest.mark.parametrize(("source_length", "target_length"), [(7, 5), (3, 6)])
def test_closed_form_flops_equal_the_counted_ones(row: str, source_length: int, target_length: int) -> None:
    job, sentences = experiment(row), 2
    model = build_on_meta(row, "demo", *vocabularies(job))
    pairs = Batch(meta_tokens(sentences, source_length), meta_tokens(sentences, target_length))
    closed: Flops = model.flops(source_length, target_length) * sentences
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model.token_losses(pairs)
    assert counter.get_total_flops() == closed.forward > 0
    with counter:
        model.training_step(pairs, 0).backward()
    assert counter.get_total_flops() == closed.training
    with torch.no_grad():
        with counter:
            memory = model.encode(pairs.source)
        assert counter.get_total_flops() == model.flops_encode(source_length).forward * sentences
        with counter:
            state = model.start(memory)
        assert counter.get_total_flops() == model.flops_start(source_length).forward * sentences
        for position in range(3):
            with counter:
                hidden_BD, state, _ = model.step(pairs.target.ids_BS[:, 0], state)
            assert counter.get_total_flops() == model.flops_step(source_length, position).forward * sentences
            with counter:
                model.project(hidden_BD)
            assert counter.get_total_flops() == model.flops_project().forward * sentences


def test_multiplied_parameters_are_those_of_body_and_softmax(row: str) -> None:
    """A token is looked up in embeddings, not multiplied with them; a mixture's idle experts are in test_moe.py."""
    job = experiment(row, "demo")
    model = build_on_meta(row, "demo", 400, 400)
    if job.members or job.architecture == "moe":
        pytest.skip("the sum over members, or without idle experts")
    softmax = sum(parameter.numel() for parameter in model.output.parameters())
    assert model.multiplied_parameters() == model.parameter_counts()[1] + softmax


OTHER_SIZES = {
    "perceptron": {"demo": 0, "multi30k-cpu": 0, "multi30k": 0},  # only the softmax is trained
    "moe": {"demo": 0.53e6, "multi30k-cpu": 2.63e6, "multi30k": 23.3e6},  # a token uses fewer: test_moe.py
    "transformer-big": {"demo": 4 * 0.3e6, "multi30k-cpu": 4 * 1.5e6, "multi30k": 4 * 5e6},  # twice base's width
}
"""Rows whose size is not that of the other rows of their preset; their notes say so."""


@pytest.mark.parametrize(("preset", "goal"), [("demo", 0.3e6), ("multi30k-cpu", 1.5e6), ("multi30k", 5e6)])
def test_presets_have_their_target_size(row: str, preset: str, goal: float) -> None:
    job = experiment(row, preset)
    _, outside = build_on_meta(row, preset, 400, 400).parameter_counts()
    outside //= max(1, len(job.members))
    assert outside == pytest.approx(OTHER_SIZES.get(row, {}).get(preset, goal), rel=0.2), f"{outside:,} parameters"
    assert ("the preset's size" in job.about.note.lower()) is (row in OTHER_SIZES)


@pytest.mark.parametrize("row", ["bahdanau", "deep-att"])
def test_a_recurrence_that_is_written_out_keeps_its_state_in_fp32_under_bf16(row: str) -> None:
    """As fused layers do on a GPU. Rows whose decoder begins with the state of a fused encoder get fp32 from there."""
    model, pairs = build(row).float(), batch()
    with torch.no_grad(), bf16_fallback(torch.device("cpu")), torch.autocast("cpu", torch.bfloat16):
        state = model.start(model.encode(pairs.source))
        for previous_B in pairs.prefix.ids_BS[:, :3].unbind(dim=1):
            _, state, _ = model.step(previous_B, state)
    floating = [leaf for leaf in tree_flatten(state.past)[0] if leaf.is_floating_point()]
    assert {leaf.dtype for leaf in floating} == {torch.float32}
