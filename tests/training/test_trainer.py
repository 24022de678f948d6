"""Training under a budget. A run that was killed and resumed gives the same bits as an uninterrupted run."""

from __future__ import annotations

import itertools
import math
import os
import random
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from bench.data.batches import PairBatches
from bench.data.encoded_pairs import Pairs, Sentences
from bench.data.vocabulary import text_only
from bench.measures.selection import Selection
from bench.system.machine import MachineSettings
from bench.training import checkpoints
from bench.training.budget import Curve, Diverged
from bench.training.checkpoints import Interrupted, Signals
from bench.training.reward import RewardSettings
from bench.training.trainer import Status, TrainingHooks, TrainingResult, TrainingSettings, train
from bench.training.validation import Score
from models.parts.optimization import LearningRateSchedule, OptimizerSettings
from models.parts.translator import Translator
from models.transformer import Config, Model

VOCABULARY = 23
BATCH_TOKENS = 60


class Killed(BaseException):
    """Stands for kill -9: nothing is written after it."""


def do_nothing(*_: object) -> None:
    pass


def pairs() -> Pairs:
    rng = random.Random(1)
    sources, targets = (
        Sentences.of([[rng.randrange(4, VOCABULARY) for _ in range(rng.randint(2, 9))] for _ in range(50)])
        for _ in range(2)
    )
    return Pairs(sources, targets)


def settings(**changes: Any) -> TrainingSettings:
    defaults: dict[str, Any] = {
        "max_updates": 20,
        "batch_tokens": BATCH_TOKENS,
        "validations": 4,
        "label_smoothing": 0.1,
        "optimizer": OptimizerSettings("Adam", 0.01),
        "schedule": LearningRateSchedule(warmup=5, decay="inverse_sqrt"),
    }
    return TrainingSettings(**(defaults | changes))


def model() -> Model:
    torch.manual_seed(1)
    return Model(Config(layers=1, width=16, inner=32, heads=2, dropout=0.3), VOCABULARY, VOCABULARY)


def weights_of(module: Translator) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


@dataclass
class Attempts:
    """A run in one folder, started as often as needed. Records the arguments of all calls of its hooks."""

    folder: Path
    settings: TrainingSettings = field(default_factory=settings)
    checkpoint_seconds: float = 60.0
    cuda_graphs: bool = False
    points_saved: Curve = field(default_factory=list)
    resumed: Curve = field(default_factory=list)
    reported: list[Status] = field(default_factory=list)
    validated: dict[int, dict[str, torch.Tensor]] = field(default_factory=dict)

    def train(
        self,
        *,
        on_status: Callable[[Status], bool | None] = do_nothing,
        score: Callable[[int], object] = do_nothing,
        selection: Selection | None = None,
        on_points_saved: Callable[[Curve], None] = do_nothing,
        module: Translator | None = None,
    ) -> TrainingResult:
        def record_score(module: Translator) -> Score:
            update = module.trainer.global_step
            self.validated[update] = weights_of(module)
            value = score(len(self.validated))
            if isinstance(value, Score):
                return value
            bleu = value if isinstance(value, (int, float)) else module.output.weight.detach().abs().sum().item()
            return Score(float(bleu), 50.0, 1.0)

        def record_points(points: Curve) -> None:
            on_points_saved(points)
            self.points_saved += points

        def record_status(status: Status) -> bool | None:
            self.reported.append(status)
            return on_status(status)

        signals = Signals()
        with signals.installed():
            return train(
                module or model(),
                PairBatches(pairs(), self.settings.batch_tokens, seed=3),
                self.settings,
                MachineSettings("cpu", checkpoint_seconds=self.checkpoint_seconds, cuda_graphs=self.cuda_graphs),
                TrainingHooks(
                    decode_text=lambda sentences: [" ".join(map(str, text_only(sentence))) for sentence in sentences],
                    score=record_score,
                    selection=selection or Selection(),
                    on_points_saved=record_points,
                    on_resumed=self.resumed.extend,
                    on_status=record_status,
                ),
                seed=3,
                folder=self.folder,
                signals=signals,
            )


def kill_at(update: int) -> Callable[[Status], None]:
    def on_status(status: Status) -> None:
        if status.updates == update:
            raise Killed

    return on_status


def kill(*_: object) -> None:
    raise Killed


def kill_in_second_validation(number: int) -> None:
    if number == 2:
        raise Killed


def without_seconds(curve: Curve) -> Curve:
    return [point for point in curve if point[1] != "train/seconds"]


def assert_same(one: TrainingResult, other: TrainingResult) -> None:
    assert one.weights.keys() == other.weights.keys()
    for name, tensor in one.weights.items():
        assert torch.equal(tensor, other.weights[name]), name
    assert without_seconds(one.curve) == without_seconds(other.curve)
    assert one.best_update == other.best_update
    for count in ("updates", "pairs", "source_tokens", "target_tokens"):
        assert getattr(one.budget, count) == getattr(other.budget, count), count
    assert one.budget.flop_counter.state_dict() == other.budget.flop_counter.state_dict()


VARIANTS = {
    "32-true": {},
    "bf16-mixed": {"precision": "bf16-mixed"},
    "reward": {"reward": RewardSettings(share=0.5, samples=3, lr_factor=0.5)},  # from update 11
    "reward, bf16-mixed": {"precision": "bf16-mixed", "reward": RewardSettings(share=0.5, samples=3)},
    "plateau": {
        "schedule": LearningRateSchedule(warmup=5, decay="plateau", floor=0.0005)
    },  # all validation losses are 1.0
    "shares": {
        "schedule": LearningRateSchedule(warmup_share=0.2, decay="linear"),
        "reward": RewardSettings(share=0.5, samples=3, lr_factor=0.5),
    },
}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TrainingResult]:
    return {
        variant: Attempts(tmp_path_factory.mktemp("uninterrupted"), settings(**changes)).train()
        for variant, changes in VARIANTS.items()
    }


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("checkpoint_seconds", [0.0, 60.0])
@pytest.mark.parametrize(
    "hooks",
    [
        {"on_status": kill_at(2)},  # before the first validation
        {"on_status": kill_at(13)},
        {"on_status": kill_at(20)},  # after the last update
        {"score": kill_in_second_validation},
        {"on_points_saved": kill},  # a checkpoint is written, but its points have not been passed on
    ],
    ids=["2", "13", "20", "validation", "points-saved"],
)
def test_a_killed_and_resumed_run_equals_an_uninterrupted_run(
    tmp_path: Path, uninterrupted: dict[str, TrainingResult], variant: str, checkpoint_seconds: float, hooks: dict
) -> None:
    attempts = Attempts(tmp_path, settings(**VARIANTS[variant]), checkpoint_seconds)
    with pytest.raises(Killed):
        attempts.train(**hooks)
    before = attempts.reported[-1].seconds if attempts.reported else 0.0
    attempts.reported.clear()
    trained = attempts.train()
    assert_same(trained, uninterrupted[variant])
    steps = [point[:2] for point in attempts.points_saved]
    assert len(steps) == len(set(steps)), "a step has two values"
    assert {*steps, *(point[:2] for point in attempts.resumed)} == {point[:2] for point in trained.curve}
    if checkpoint_seconds == 0.0 and attempts.reported:
        assert attempts.reported[0].seconds > before, "the time before the kill is included"


def test_the_reward_phase_has_a_curve_and_adds_flops(uninterrupted: dict[str, TrainingResult]) -> None:
    plain, rewarded = uninterrupted["32-true"], uninterrupted["reward"]
    updates = [update for update, name, _ in rewarded.curve if name == "train/reward"]
    assert updates == list(range(11, 21))
    assert without_seconds(rewarded.curve)[:10] == without_seconds(plain.curve)[:10]
    assert rewarded.budget.pairs == plain.budget.pairs
    assert rewarded.budget.flop_counter.model_flops > plain.budget.flop_counter.model_flops
    rates = {update: value for update, name, value in rewarded.curve if name == "train/lr"}
    before = {update: value for update, name, value in plain.curve if name == "train/lr"}
    assert rates == {
        update: rate * (0.5 if update >= 10 else 1) for update, rate in before.items()
    }  # of the next update


def test_plateau_decay_divides_the_rate_by_ten_down_to_the_floor(uninterrupted: dict[str, TrainingResult]) -> None:
    rates = {update: value for update, name, value in uninterrupted["plateau"].curve if name == "train/lr"}
    assert rates == pytest.approx(  # validations at 5, 10, 15 and 20; a rate is that of the next update
        {update: 0.002 * (update + 1) for update in range(1, 5)}
        | dict.fromkeys(range(5, 10), 0.01)
        | dict.fromkeys(range(10, 15), 0.001)
        | dict.fromkeys(range(15, 21), 0.0005)
    )


def test_after_the_first_plateau_every_validation_lowers_the_rate(tmp_path: Path) -> None:
    """Also those with a new lowest loss: "after each epoch" (Gehring et al. 2017, section 4.2)."""
    losses = (4.0, 5.0, 3.0, 2.0)
    attempts = Attempts(tmp_path, settings(schedule=LearningRateSchedule(warmup=1, decay="plateau")))
    attempts.train(score=lambda number: Score(0.0, 0.0, losses[number - 1]))
    rates = {update: value for update, name, value in attempts.points_saved if name == "train/lr"}
    assert [rates[update] for update in (5, 9, 10, 15)] == pytest.approx([0.01, 0.01, 0.001, 0.0001])


@pytest.mark.parametrize(
    "budget", [{"max_updates": 20}, {"max_updates": None, "max_pairs": 150}, {"max_updates": None, "max_flops": 6e7}]
)
@pytest.mark.parametrize("decay", ["linear", "one_minus_sqrt"])
def test_a_schedule_in_shares_ends_at_zero_for_a_budget_of_any_kind(budget: dict, decay: Any, tmp_path: Path) -> None:
    """The rate of an update depends on the share of the budget before it; the first one has the rate 0."""
    schedule = LearningRateSchedule(warmup_share=0.25, decay=decay)
    attempts, shares = Attempts(tmp_path, settings(**budget, schedule=schedule)), [0.0]
    attempts.train(on_status=lambda status: shares.append(status.fraction), module=(module := model()))
    rates = {update: value for update, name, value in attempts.points_saved if name == "train/lr"}
    assert rates == pytest.approx({update: 0.01 * schedule.factor_at(shares[update]) for update in rates})
    assert rates[len(shares) - 1] == 0.0 == schedule.factor_at(shares[0])
    assert max(rates.values()) == pytest.approx(0.01, rel=0.3)
    assert module.optimization.schedule == schedule


def test_a_schedule_in_shares_is_the_same_for_a_budget_of_twice_the_size(tmp_path: Path) -> None:
    """A warm-up in updates gives a run of 10 updates and one of 20 different rates at half of their budgets."""
    rates = []
    for updates in (10, 20):
        schedule = LearningRateSchedule(warmup_share=0.2, decay="linear")
        attempts = Attempts(tmp_path / str(updates), settings(max_updates=updates, schedule=schedule))
        attempts.train()
        rates.append({update / updates: value for update, name, value in attempts.points_saved if name == "train/lr"})
    assert len(rates[0]) == 10
    assert all(rates[1][share] == pytest.approx(rate) for share, rate in rates[0].items())


def test_random_numbers_differ_between_processes_and_updates() -> None:
    numbers = set()
    for rank, update in itertools.product(range(3), range(3)):
        # Typed as Any because they have only the attributes that the callback reads.
        trainer: Any = SimpleNamespace(global_step=update)
        module: Any = SimpleNamespace(device=torch.device("cpu"))
        checkpoints.SeedPerUpdate(5, rank).on_train_batch_start(trainer, module, cast(Any, None), 0)
        numbers.add(torch.rand(1).item())
    assert len(numbers) == 9


def test_a_run_that_is_killed_several_times_equals_an_uninterrupted_run(
    tmp_path: Path, uninterrupted: dict[str, TrainingResult]
) -> None:
    attempts = Attempts(tmp_path)
    for update in (3, 6, 9, 11, 19):
        with pytest.raises(Killed):
            attempts.train(on_status=kill_at(update))
    assert_same(attempts.train(), uninterrupted["32-true"])


def test_a_run_with_a_used_up_budget_does_not_train_further(
    tmp_path: Path, uninterrupted: dict[str, TrainingResult]
) -> None:
    attempts = Attempts(tmp_path)
    attempts.train()
    attempts.reported.clear()
    attempts.validated.clear()
    again = attempts.train()  # as if the process had been killed during the evaluation
    assert attempts.reported == []
    assert attempts.validated == {}
    assert_same(again, uninterrupted["32-true"])


def test_repeated_updates_are_counted_separately(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "PROGRESS_INTERVAL_S", 0.0)
    attempts = Attempts(tmp_path)  # checkpoints at 5, 10, 15, 20
    partial_file = tmp_path / ".last.ckpt.1234"
    partial_file.write_bytes(b"PK")
    repeated = []
    for update in (3, 8, 14):
        with pytest.raises(Killed):
            attempts.train(on_status=kill_at(update))
        repeated.append(update % 5)
    trained = attempts.train()
    assert not partial_file.exists()
    assert trained.repeated_work.updates == sum(repeated)
    assert 0 < trained.repeated_work.seconds < 60
    assert trained.budget.updates == 20
    assert Attempts(tmp_path / "other").train().repeated_work.updates == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_the_run_and_it_can_be_resumed(
    tmp_path: Path, uninterrupted: dict[str, TrainingResult], number: signal.Signals
) -> None:
    before = signal.getsignal(number)
    attempts = Attempts(tmp_path)

    def send_signal(status: Status) -> None:
        if status.updates == 7:
            os.kill(os.getpid(), number)

    message = f"{number.name}: the run is saved; run the same command again to resume"
    with pytest.raises(Interrupted, match=message) as raised:
        attempts.train(on_status=send_signal)
    assert raised.value.number == number
    assert signal.getsignal(number) == before
    attempts.reported.clear()
    assert_same(attempts.train(), uninterrupted["32-true"])
    assert attempts.reported[0].updates == 9  # the update during which the signal came was finished and saved


def test_a_status_callback_ends_the_training_at_a_validation(tmp_path: Path) -> None:
    """So a pruner ends a trial; after 20 updates with 4 validations, the second is at update 10."""
    result = Attempts(tmp_path).train(on_status=lambda status: len(status.validations) == 2)
    assert (result.completed, result.budget.updates, len(result.scores)) == (False, 10, 2)


def test_gradients_are_clipped_to_their_norm(tmp_path: Path) -> None:
    """One update of SGD with rate 1 moves the weights by the gradient."""
    moved = {}
    for clip in (None, 0.01):
        of_sgd = {"optimizer": OptimizerSettings("SGD", 1.0), "schedule": LearningRateSchedule()}
        changed = settings(max_updates=1, validations=1, clip=clip, **of_sgd)
        module = model()
        before = [parameter.detach().clone() for parameter in module.parameters()]
        Attempts(tmp_path / str(clip), changed).train(module=module)
        steps = [(new - old).detach() for new, old in zip(module.parameters(), before, strict=True)]
        moved[clip] = math.sqrt(sum(float(step.square().sum()) for step in steps))
    assert moved[0.01] == pytest.approx(0.01, rel=1e-3)
    assert moved[None] > 0.1


def test_a_signal_outside_a_deferred_block_raises_at_once() -> None:
    continued = []

    def outside() -> None:
        with Signals().installed():
            os.kill(os.getpid(), signal.SIGTERM)
            continued.append("outside")

    def inside() -> None:
        with Signals().installed() as signals, signals.deferred():
            os.kill(os.getpid(), signal.SIGTERM)
            continued.append("inside")  # raised at the end of the block

    for case in (outside, inside):
        with pytest.raises(Interrupted):
            case()
    assert continued == ["inside"]


@pytest.mark.parametrize(
    ("patient", "expected"),
    [(False, (-signal.SIGTERM, b"deferred")), (True, (7, b"deferred, continued"))],
    ids=["command", "worker"],
)
def test_a_second_signal_ends_a_command_at_once_and_no_worker(patient: bool, expected: tuple[int, bytes]) -> None:
    """In a forked process, because a new one would take seconds to import torch.

    A scheduler signals a worker, and then its driver stops it, too: that must not end it before its run is saved.
    """
    read_end, write_end = os.pipe()
    child = os.fork()
    if not child:
        try:
            Signals.patient = patient
            with Signals().installed() as signals, signals.deferred():
                os.kill(os.getpid(), signal.SIGTERM)
                os.write(write_end, b"deferred")
                os.kill(os.getpid(), signal.SIGTERM)
                os.write(write_end, b", continued")
        except Interrupted:
            os._exit(7)
        finally:
            os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        written = pipe.read()
    _, status = os.waitpid(child, 0)
    assert (os.waitstatus_to_exitcode(status), written) == expected


@pytest.mark.parametrize(
    ("limits", "limit_reached"),
    [
        ({"max_updates": 7}, lambda budget: budget.updates == 7),
        ({"max_pairs": 60}, lambda budget: budget.pairs >= 60),
        ({"max_flops": 2e6}, lambda budget: budget.flop_counter.model_flops >= 2e6),
        ({"max_seconds": 0.05}, lambda budget: budget.seconds >= 0.05),
        ({"max_updates": 7, "max_pairs": 10**9, "max_flops": 1e18}, lambda budget: budget.updates == 7),
        ({"max_updates": 10**6, "max_pairs": 60, "max_seconds": 1e6}, lambda budget: budget.pairs >= 60),
    ],
    ids=["updates", "pairs", "flops", "seconds", "updates-of-three", "pairs-of-three"],
)
def test_the_first_limit_reached_ends_the_training(
    tmp_path: Path, limits: dict[str, float], limit_reached: Callable[[object], bool]
) -> None:
    attempts = Attempts(tmp_path, settings(**({"max_updates": None} | limits)))
    trained = attempts.train()
    assert limit_reached(trained.budget)
    assert [status.fraction >= 1 for status in attempts.reported] == [False] * (trained.budget.updates - 1) + [True]
    assert sorted(attempts.validated)[-1] == trained.budget.updates  # the last validation scores the last weights


def test_the_result_has_the_weights_of_the_best_validation(tmp_path: Path) -> None:
    bleu = {1: 3.0, 2: 9.0, 3: 9.0, 4: 5.0}
    attempts = Attempts(tmp_path)
    trained = attempts.train(score=bleu.__getitem__)
    assert sorted(attempts.validated) == [5, 10, 15, 20]
    assert trained.best_update == 10  # the first of two equal scores
    assert all(torch.equal(tensor, attempts.validated[10][name]) for name, tensor in trained.weights.items())
    assert [value for _, name, value in trained.curve if name == "validation/bleu"] == list(bleu.values())
    assert [path.name for path in tmp_path.glob("weights-*")] == ["weights-10.pt"]


@pytest.mark.parametrize("killed_at", [None, 12, 17])
def test_with_a_reward_phase_only_weights_trained_in_it_can_be_the_best(killed_at: int | None, tmp_path: Path) -> None:
    """The phase starts with the 11th update, so the first two validations do not count, although they are better."""
    bleu = {1: 9.0, 2: 9.0, 3: 5.0, 4: 3.0}
    attempts = Attempts(tmp_path, settings(reward=RewardSettings(share=0.5, samples=2)))
    if killed_at:
        with pytest.raises(Killed):
            attempts.train(score=bleu.__getitem__, on_status=kill_at(killed_at))
    trained = attempts.train(score=bleu.__getitem__)
    assert sorted(attempts.validated) == [5, 10, 15, 20]
    assert trained.best_update == 15
    assert all(torch.equal(tensor, attempts.validated[15][name]) for name, tensor in trained.weights.items())
    assert [path.name for path in tmp_path.glob("weights-*")] == ["weights-15.pt"]


def test_the_weights_of_the_last_n_validations_are_averaged(tmp_path: Path) -> None:
    attempts = Attempts(tmp_path, settings(average=3))
    with pytest.raises(Killed):
        attempts.train(on_status=kill_at(17))
    trained = attempts.train()
    for name, tensor in trained.weights.items():
        mean = torch.stack([attempts.validated[update][name].double() for update in (10, 15, 20)]).mean(0)
        assert torch.equal(tensor, mean.to(tensor.dtype))
    assert sorted(path.name for path in tmp_path.glob("weights-*")) == [f"weights-{n}.pt" for n in (10, 15, 20)]


def test_weights_kept_after_the_last_checkpoint_are_discarded(tmp_path: Path) -> None:
    """With a budget in seconds, a resumed run can differ from the killed one after the checkpoint."""
    attempts = Attempts(tmp_path)
    with pytest.raises(Killed):
        attempts.train(score=lambda number: 5.0, on_status=kill_at(9))
    (tmp_path / "weights-10.pt").write_bytes(b"kept by the killed process after its last checkpoint")
    trained = attempts.train(score=lambda number: 1.0)
    assert trained.best_update == 5
    assert [path.name for path in tmp_path.glob("weights-*")] == ["weights-5.pt"]


def test_a_loss_that_is_not_a_number_ends_the_training(tmp_path: Path) -> None:
    module = model()
    torch.nn.init.constant_(module.output.weight, math.nan)
    with pytest.raises(Diverged, match="the training loss is nan at update 1"):
        Attempts(tmp_path).train(module=module)
    assert not (tmp_path / "last.ckpt").exists()


def test_settings_out_of_range_are_rejected() -> None:
    with pytest.raises(ValueError, match=r"training: no budget; set training\.max_pairs"):
        TrainingSettings().check()
    with pytest.raises(ValueError, match=r"training\.average: 11 is more than training\.validations 10"):
        TrainingSettings(max_updates=1, average=11).check()


def test_a_truncated_checkpoint_is_reported_with_its_path(tmp_path: Path) -> None:
    Attempts(tmp_path, settings(max_updates=2)).train()
    path = tmp_path / "last.ckpt"
    checkpoints.check(path)
    checkpoints.check(tmp_path / "missing.ckpt")
    content = path.read_bytes()
    for size in (0, 1, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(ValueError, match=r"last\.ckpt: this checkpoint is damaged .* Delete it"):
            checkpoints.check(path)


# --- which weights are selected -------------------------------------------------------------------------------------


def selected(folder: Path, scores: Sequence[Score], selection: Selection, **changes: Any) -> TrainingResult:
    """The result of a training whose validations have these scores, at the updates 5, 10, 15 and 20."""
    return Attempts(folder, settings(**changes)).train(score=lambda number: scores[number - 1], selection=selection)


@pytest.mark.parametrize(
    ("score", "values", "losses", "best_update"),
    [
        ("bleu", (1.0, 3.0, 2.0, 2.5), (4.0, 3.0, 2.0, 1.0), 10),
        ("bleu", (0.0, 0.0, 0.0, 0.0), (4.0, 3.0, 1.0, 2.0), 15),
        ("bleu", (0.0, 0.0, 0.0, 0.0), (1.0, 1.0, 1.0, 1.0), 5),
        ("bleu", (9.0, 1.0, 1.0, 0.0), (math.nan, 3.0, 2.0, 1.0), 15),
        ("chrf", (1.0, 3.0, 2.0, 2.5), (4.0, 3.0, 2.0, 1.0), 10),
        ("loss", (9.0, 9.0, 9.0, 9.0), (4.0, 3.0, 1.0, 2.0), 15),
        ("loss", (9.0, 9.0, 9.0, 9.0), (math.inf, math.nan, 7.0, 8.0), 15),
    ],
)
def test_the_validation_score_selects_and_a_tie_goes_to_the_lower_loss(
    tmp_path: Path, score: Any, values: tuple[float, ...], losses: tuple[float, ...], best_update: int
) -> None:
    fixed = 50.0 if score == "chrf" else 0.0  # BLEU does not select where another score does
    scores = [
        Score(fixed if score == "chrf" else value, 50.0, loss, value if score == "chrf" else None)
        for value, loss in zip(values, losses, strict=True)
    ]
    result = selected(tmp_path, scores, Selection(score))
    assert result.best_update == best_update
    expected = losses if score == "loss" else values
    assert result.scores == pytest.approx(list(expected), nan_ok=True)
    assert ("validation/chrf" in {name for _, name, _ in result.curve}) == (score == "chrf")
