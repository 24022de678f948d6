"""The finding in two generated sentences: what the paired tests say of the rows' BLEU, and at what cost."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from reports import formatting as f
from reports.context import Context, Row, Track

Item = TypeVar("Item")


def sentences(context: Context) -> list[str]:
    """One paragraph of two sentences for each track."""
    named = len(context.tracks) > 1
    return [(f"{track.label}: " if named else "") + " ".join(_of(context, track)) for track in context.tracks]


def caveat(context: Context) -> str:
    """How it was tested, and what the intervals and tests do not cover."""
    lines = []
    sizes = sorted({test.size for test in context.comparisons})
    if sizes:
        number = f.count(sizes[0], "test") if len(sizes) == 1 else f"{sizes[0]} to {f.count(sizes[-1], 'test')}"
        lines.append(f"Significance: paired approximate randomisation at 5 %, Holm-corrected for {number}.")
    seeds = {len(cell.runs) for row in context.rows for cell in row.cells.values() if cell.runs}
    if seeds == {1}:
        lines.append(
            "One seed per row: intervals and tests cover the choice of test sentences, not that of the seed; another "
            "seed may change the order of close rows."
        )
    elif seeds:
        least, most = min(seeds), max(seeds)
        number = f.count(least, "seed") if least == most else f"{least} to {f.count(most, 'seed')}"
        lines.append(f"{number} per row: values are means, intervals cover seeds and test sentences.")
    return " ".join(lines)


def _of(context: Context, track: Track) -> list[str]:
    rows = context.scored(track)
    if not rows:
        return ["No row has a BLEU score yet; the reasons stand at the end."]
    best, others = rows[0], rows[1:]
    place = f"{track.corpus} ({track.test_set})"
    score = best.cells[track].number("bleu", track.test_set)
    assert score is not None
    ends = f.interval("bleu", score.low, score.high)
    result = f.value("bleu", score.value) + (f" ({ends})" if ends else "")
    if not others:
        return [f"Only {best.name} has a BLEU score on {place}, {result}: there is nothing to compare it with."]
    first = f"{best.name} has the highest BLEU on {place}, {result}{_standing(context, track, best, others)}."
    return [first, *_cost(track, rows)]


def _standing(context: Context, track: Track, best: Row, others: Sequence[Row]) -> str:
    """Which of the others it is significantly above."""
    tests = {row.id: test for row in others if (test := context.comparison(track, best.id, row.id))}

    def those(verdict: str) -> list[Row]:
        return [row for row in others if row.id in tests and tests[row.id].verdict == verdict]

    def against(row: Row) -> str:
        p = tests[row.id].adjusted
        difference = f.difference("bleu", tests[row.id].difference)
        return f"{row.name} ({difference}{'' if p is None else f', {f.probability(p)}'})"

    better, level, same = those("better"), those("no significant difference"), those("identical")
    untested = [row for row in others if row.id not in tests]
    if len(better) == len(others):
        more = f" and every other row ({_largest(tests[row.id].adjusted for row in better)})" if len(others) > 1 else ""
        return f": significantly above {against(others[0])}{more}"
    parts = []
    if better:
        names = f.listed([row.name for row in better])
        parts.append(f"significantly above {names} ({_largest(tests[row.id].adjusted for row in better)})")
    if level:
        parts.append(f"{'but ' if better else ''}not significantly above {f.listed([against(row) for row in level])}")
    if same:
        parts.append(f"with the very translations of {f.listed([row.name for row in same])}")
    if untested:
        parts.append(f"not tested against {f.listed([row.name for row in untested])}")
    return ": " + ", ".join(parts)


def _largest(values: Iterable[float | None]) -> str:
    """The p that all of them stay at or below."""
    return f.probability(max(value for value in values if value is not None))


def _cost(track: Track, rows: Sequence[Row]) -> list[str]:
    """What the highest score cost, beside the next one's, and which rows are worth their cost."""
    flops = {row.id: row.cells[track].value("train_flops") or 0.0 for row in rows}
    costed = [row for row in rows if flops[row.id]]
    if rows[0] not in costed or len(costed) < 2:
        return []
    best, second = costed[:2]
    spent, compared = f.value("train_flops", flops[best.id]), f.compared(flops[best.id], flops[second.id])
    front = efficient(costed, [flops[row.id] for row in costed])
    if len(front) == 1:
        end = "no other row is cheaper"
    else:
        end = f"{f.listed([row.name for row in front])} are the rows that no cheaper one matches (Pareto front)"
    return [f"It took {spent} training FLOPs, {compared} {second.name}; {end}."]


def efficient(best_first: Sequence[Item], costs: Sequence[float]) -> list[Item]:
    """Of items ordered by score, the highest first, those that no better or equal one undercuts; the cheapest first."""
    front, cheapest = [], float("inf")
    for item, cost in zip(best_first, costs, strict=True):
        if cost < cheapest:
            front.append(item)
            cheapest = cost
    return front[::-1]
