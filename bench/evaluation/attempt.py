"""A measure that cannot be taken has no value and a reason. It must not cost a finished training."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from bench.measures import metric_registry
from bench.measures.measure import Measure
from bench.system import terminal
from bench.tracking.store import StoreFailure


def measure_or_reason(metrics: Sequence[str], measure: Callable[[], Iterable[Measure]]) -> list[Measure]:
    """The measures that `measure` returns or, if it raises, one without a value for each name in `metrics`.

    The provenance is then "not measured: " and the reason, which is printed too. Lack of memory is a reason as well.

    Args:
        metrics: Names of the main measures, as in docs/metrics.md; empty for work without measures.
        measure: Takes the measures.

    Raises:
        StoreFailure, OSError: the store or the disk failed. The same command repeats the evaluation without training
            again, so nothing is lost.
    """
    try:
        return list(measure())
    except (*StoreFailure, OSError):
        raise
    except Exception as error:  # whatever the reason: all updates of the run have been made
        reason = "not measured: " + " ".join(f"{type(error).__name__}: {error}".split())[:300]
        terminal.say(f"  {', '.join(metrics) or 'attention maps'}: {reason}")
        return [Measure(name, None, metric_registry.metric(name).unit, provenance=reason) for name in metrics]
