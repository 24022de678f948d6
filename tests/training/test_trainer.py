"""Training under a budget: a killed and resumed run is, to the bit, one that nothing happened to."""

from __future__ import annotations

import itertools
import math
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from bench.data.batches import PairBatches, Pairs, Sentences
from bench.data.vocabulary import text_only
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
    """As by kill -9: nothing after it is written."""


def nothing(*_: object) -> None:
    pass


def pairs() -> Pairs:
    rng = random.Random(1)
    sources, targets = (
        Sentences.of([[rng.randrange(4, VOCABULARY) for _ in range(rng.randint(2, 9))] for _ in range(50)])
        for _ in range(2)
    )
    return Pairs(sources, targets)


def settings(**changed: Any) -> TrainingSettings:
    usual: dict[str, Any] = {
        "max_updates": 20,
        "batch_tokens": BATCH_TOKENS,
        "validations": 4,
        "label_smoothing": 0.1,
        "optimizer": OptimizerSettings("Adam", 0.01),
        "schedule": LearningRateSchedule(warmup=5, decay="inverse_sqrt"),
    }
    return TrainingSettings(**(usual | changed))


def model() -> Model:
    torch.manual_seed(1)
    return Model(Config(layers=1, width=16, inner=32, heads=2, dropout=0.3), VOCABULARY, VOCABULARY)


def weights_of(module: Translator) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


@dataclass
class Attempts:
    """One run in one folder, as often as it takes. Keeps what the outside got to see of it."""

    folder: Path
    settings: TrainingSettings = field(default_factory=settings)
    seconds_between_checkpoints: float = 60.0
    flushed: Curve = field(default_factory=list)
    resumed: Curve = field(default_factory=list)
    reported: list[Status] = field(default_factory=list)
    validated: dict[int, dict[str, torch.Tensor]] = field(default_factory=dict)

    def go(
        self,
        *,
        report: Callable[[Status], None] = nothing,
        score: Callable[[int], object] = nothing,
        flush: Callable[[Curve], None] = nothing,
        module: Translator | None = None,
    ) -> TrainingResult:
        def scored(module: Translator) -> Score:
            update = module.trainer.global_step
            self.validated[update] = weights_of(module)
            given = score(len(self.validated))
            bleu = given if isinstance(given, (int, float)) else module.output.weight.detach().abs().sum().item()
            return Score(float(bleu), 50.0, 1.0)

        def flushed(points: Curve) -> None:
            flush(points)
            self.flushed += points

        def reported(status: Status) -> None:
            self.reported.append(status)
            report(status)

        signals = Signals()
        with signals.installed():
            return train(
                module or model(),
                PairBatches(pairs(), self.settings.batch_tokens, seed=3),
                self.settings,
                MachineSettings(accelerator="cpu", checkpoint_seconds=self.seconds_between_checkpoints),
                TrainingHooks(
                    decode_text=lambda sentences: [" ".join(map(str, text_only(sentence))) for sentence in sentences],
                    score=scored,
                    on_points_saved=flushed,
                    on_resumed=self.resumed.extend,
                    on_status=reported,
                ),
                seed=3,
                folder=self.folder,
                signals=signals,
            )


def at(update: int, error: type[BaseException] = Killed) -> Callable[[Status], None]:
    def report(status: Status) -> None:
        if status.updates == update:
            raise error

    return report


def killed(*_: object) -> None:
    raise Killed


def second(number: int) -> None:
    if number == 2:
        raise Killed


def without_seconds(curve: Curve) -> Curve:
    return [point for point in curve if point[1] != "train/seconds"]


def same(one: TrainingResult, other: TrainingResult) -> None:
    assert one.weights.keys() == other.weights.keys()
    for name, tensor in one.weights.items():
        assert torch.equal(tensor, other.weights[name]), name
    assert without_seconds(one.curve) == without_seconds(other.curve)
    assert one.best_update == other.best_update
    for count in ("updates", "pairs", "source_tokens", "target_tokens"):
        assert getattr(one.budget, count) == getattr(other.budget, count), count
    assert one.budget.flop_counter.state_dict() == other.budget.flop_counter.state_dict()


COURSES = {
    "32-true": {},
    "bf16-mixed": {"precision": "bf16-mixed"},
    "reward": {"reward": RewardSettings(share=0.5, samples=3, lr_factor=0.5)},  # from the tenth update on
    "reward, bf16-mixed": {"precision": "bf16-mixed", "reward": RewardSettings(share=0.5, samples=3)},
    "plateau": {"schedule": LearningRateSchedule(warmup=5, decay="plateau", floor=0.0005)},  # its losses are all 1.0
}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TrainingResult]:
    return {
        course: Attempts(tmp_path_factory.mktemp("whole"), settings(**changed)).go()
        for course, changed in COURSES.items()
    }


@pytest.mark.parametrize("course", COURSES)
@pytest.mark.parametrize("between", [0.0, 60.0])
@pytest.mark.parametrize(
    "where",
    [
        {"report": at(2)},  # before the first validation
        {"report": at(13)},
        {"report": at(20)},  # after the last update
        {"score": second},  # while the weights are scored
        {"flush": killed},  # a checkpoint stands, its points have not been sent
    ],
    ids=["2", "13", "20", "validation", "flush"],
)
def test_killed_and_resumed_is_undisturbed(
    tmp_path: Path, undisturbed: dict[str, TrainingResult], course: str, between: float, where: dict
) -> None:
    attempts = Attempts(tmp_path, settings(**COURSES[course]), between)
    with pytest.raises(Killed):
        attempts.go(**where)
    before = attempts.reported[-1].seconds if attempts.reported else 0.0
    attempts.reported.clear()
    trained = attempts.go()
    same(trained, undisturbed[course])
    places = [point[:2] for point in attempts.flushed]
    assert len(places) == len(set(places)), "a step has two values"
    assert {*places, *(point[:2] for point in attempts.resumed)} == {point[:2] for point in trained.curve}
    if between == 0.0 and attempts.reported:
        assert attempts.reported[0].seconds > before, "wall time is counted on"


def test_the_reward_has_a_curve_and_a_cost(undisturbed: dict[str, TrainingResult]) -> None:
    plain, rewarded = undisturbed["32-true"], undisturbed["reward"]
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


def test_on_a_plateau_the_rate_falls_to_a_tenth_and_not_below_the_floor(undisturbed: dict[str, TrainingResult]) -> None:
    rates = {update: value for update, name, value in undisturbed["plateau"].curve if name == "train/lr"}
    assert rates == pytest.approx(  # validations at 5, 10, 15 and 20; the rates are those of the next update
        {update: 0.002 * (update + 1) for update in range(1, 5)}
        | dict.fromkeys(range(5, 10), 0.01)
        | dict.fromkeys(range(10, 15), 0.001)
        | dict.fromkeys(range(15, 21), 0.0005)
    )


def test_every_process_and_every_update_draws_its_own_numbers() -> None:
    samples = set()
    for rank, update in itertools.product(range(3), range(3)):
        # Any: as much of a trainer and a module as is read.
        trainer: Any = SimpleNamespace(global_step=update)
        module: Any = SimpleNamespace(device=torch.device("cpu"))
        checkpoints.SeedPerUpdate(5, rank).on_train_batch_start(trainer, module, cast(Any, None), 0)
        samples.add(torch.rand(1).item())
    assert len(samples) == 9


def test_killed_again_and_again(tmp_path: Path, undisturbed: dict[str, TrainingResult]) -> None:
    attempts = Attempts(tmp_path)
    for update in (3, 6, 9, 11, 19):
        with pytest.raises(Killed):
            attempts.go(report=at(update))
    same(attempts.go(), undisturbed["32-true"])


def test_a_spent_budget_is_not_overspent(tmp_path: Path, undisturbed: dict[str, TrainingResult]) -> None:
    attempts = Attempts(tmp_path)
    attempts.go()
    attempts.reported.clear()
    attempts.validated.clear()
    again = attempts.go()  # the process died while it judged
    assert attempts.reported == []
    assert attempts.validated == {}
    same(again, undisturbed["32-true"])


def test_lost_updates_are_counted_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "PROGRESS_INTERVAL_S", 0.0)
    attempts = Attempts(tmp_path)  # checkpoints at 5, 10, 15, 20
    half_written = tmp_path / ".last.ckpt.1234"
    half_written.write_bytes(b"PK")
    lost = []
    for update in (3, 8, 14):
        with pytest.raises(Killed):
            attempts.go(report=at(update))
        lost.append(update % 5)
    trained = attempts.go()
    assert not half_written.exists()
    assert trained.repeated_work.updates == sum(lost)
    assert 0 < trained.repeated_work.seconds < 60
    assert trained.budget.updates == 20
    assert Attempts(tmp_path / "other").go().repeated_work.updates == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_the_run_goes_on(
    tmp_path: Path, undisturbed: dict[str, TrainingResult], number: signal.Signals
) -> None:
    before = signal.getsignal(number)
    attempts = Attempts(tmp_path)

    def send(status: Status) -> None:
        if status.updates == 7:
            os.kill(os.getpid(), number)

    with pytest.raises(
        Interrupted, match=f"{number.name}: the run is saved; run the same command again to resume"
    ) as raised:
        attempts.go(report=send)
    assert raised.value.number == number
    assert signal.getsignal(number) == before
    attempts.reported.clear()
    same(attempts.go(), undisturbed["32-true"])
    assert attempts.reported[0].updates == 9  # the update that the signal came in was finished and saved


def test_a_signal_outside_of_training_is_raised_at_once() -> None:
    went_on = []

    def outside() -> None:
        with Signals().installed():
            os.kill(os.getpid(), signal.SIGTERM)
            went_on.append("outside")

    def inside() -> None:
        with Signals().installed() as signals, signals.deferred():
            os.kill(os.getpid(), signal.SIGTERM)
            went_on.append("inside")  # and at the end of the block it is raised

    for case in (outside, inside):
        with pytest.raises(Interrupted):
            case()
    assert went_on == ["inside"]


def test_a_second_signal_ends_the_process_at_once() -> None:
    program = """
import os, signal
from bench.training.checkpoints import Signals
with Signals().listening() as signals, signals.held():
    os.kill(os.getpid(), signal.SIGTERM)
    print("held", flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
    print("it went on")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, "held\n"), done.stderr


@pytest.mark.parametrize(
    ("limits", "reached"),
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
def test_the_first_limit_that_is_reached_ends_the_run(
    tmp_path: Path, limits: dict[str, float], reached: Callable[[object], bool]
) -> None:
    attempts = Attempts(tmp_path, settings(**({"max_updates": None} | limits)))
    trained = attempts.go()
    assert reached(trained.budget)
    assert [status.fraction >= 1 for status in attempts.reported] == [False] * (trained.budget.updates - 1) + [True]
    assert sorted(attempts.validated)[-1] == trained.budget.updates  # the last validation sees the last weights


def test_the_best_validation_is_scored(tmp_path: Path) -> None:
    bleu = {1: 3.0, 2: 9.0, 3: 9.0, 4: 5.0}
    attempts = Attempts(tmp_path)
    trained = attempts.go(score=bleu.__getitem__)
    assert sorted(attempts.validated) == [5, 10, 15, 20]
    assert trained.best_update == 10  # of equals, the first
    assert all(torch.equal(tensor, attempts.validated[10][name]) for name, tensor in trained.weights.items())
    assert [value for _, name, value in trained.curve if name == "validation/bleu"] == list(bleu.values())
    assert [path.name for path in tmp_path.glob("weights-*")] == ["weights-10.pt"]


@pytest.mark.parametrize("killed_at", [None, 12, 17])
def test_a_row_with_reward_is_judged_by_weights_that_had_it(killed_at: int | None, tmp_path: Path) -> None:
    """The phase begins with the 11th update: what the first two validations found is not the row's."""
    bleu = {1: 9.0, 2: 9.0, 3: 5.0, 4: 3.0}
    attempts = Attempts(tmp_path, settings(reward=RewardSettings(share=0.5, samples=2)))
    if killed_at:
        with pytest.raises(Killed):
            attempts.go(score=bleu.__getitem__, report=at(killed_at))
    trained = attempts.go(score=bleu.__getitem__)
    assert sorted(attempts.validated) == [5, 10, 15, 20]
    assert trained.best_update == 15
    assert all(torch.equal(tensor, attempts.validated[15][name]) for name, tensor in trained.weights.items())
    assert [path.name for path in tmp_path.glob("weights-*")] == ["weights-15.pt"]


def test_the_last_n_are_averaged(tmp_path: Path) -> None:
    attempts = Attempts(tmp_path, settings(average=3))
    with pytest.raises(Killed):
        attempts.go(report=at(17))
    trained = attempts.go()
    for name, tensor in trained.weights.items():
        mean = torch.stack([attempts.validated[update][name].double() for update in (10, 15, 20)]).mean(0)
        assert torch.equal(tensor, mean.to(tensor.dtype))
    assert sorted(path.name for path in tmp_path.glob("weights-*")) == [f"weights-{n}.pt" for n in (10, 15, 20)]


def test_weights_of_lost_work_are_not_scored(tmp_path: Path) -> None:
    """With a budget in seconds a resumed run takes another course: its checkpoint's best is not the lost one's."""
    attempts = Attempts(tmp_path)
    with pytest.raises(Killed):
        attempts.go(score=lambda number: 5.0, report=at(9))
    (tmp_path / "weights-10.pt").write_bytes(b"from a course that was lost")
    trained = attempts.go(score=lambda number: 1.0)
    assert trained.best_update == 5
    assert [path.name for path in tmp_path.glob("weights-*")] == ["weights-5.pt"]


def test_a_loss_that_is_no_number_ends_the_run(tmp_path: Path) -> None:
    module = model()
    torch.nn.init.constant_(module.output.weight, math.nan)
    with pytest.raises(Diverged, match="the training loss is nan at update 1"):
        Attempts(tmp_path).go(module=module)
    assert not (tmp_path / "last.ckpt").exists()


def test_settings_that_cannot_be_trained_with() -> None:
    with pytest.raises(ValueError, match=r"training: no budget; set training\.max_pairs"):
        TrainingSettings().check()
    with pytest.raises(ValueError, match=r"training\.average: 11 is more than training\.validations 10"):
        TrainingSettings(max_updates=1, average=11).check()


def test_a_truncated_checkpoint_is_named(tmp_path: Path) -> None:
    Attempts(tmp_path, settings(max_updates=2)).go()
    path = tmp_path / "last.ckpt"
    checkpoints.check(path)
    checkpoints.check(tmp_path / "none.ckpt")
    whole = path.read_bytes()
    for size in (0, 1, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"last\.ckpt: this checkpoint is damaged .* Delete it"):
            checkpoints.check(path)
