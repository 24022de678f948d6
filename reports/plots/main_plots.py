"""All plots of a report, in the order of the page."""

from __future__ import annotations

from reports.gathering.context import Context
from reports.plots import detail_plots
from reports.plots.cost_plot import COSTS, cost_plot
from reports.plots.drawing import Plot
from reports.plots.learning_curves import AXES, curves_plot, series_of


def all_plots(context: Context) -> list[Plot]:
    """All plots of the report, in the order of the page."""
    found = [cost_plot(context, track, kind) for kind in COSTS for track in context.tracks]
    for track in context.tracks:
        cells = [(row.name, row.cells[track].curves) for row in context.rows]
        series = {(name, seed): series_of(curve) for name, curves in cells for seed, curve in curves.items()}
        found += [curves_plot(context, track, axis, series) for axis in AXES]
    return [*(plot for plot in found if plot), *detail_plots.all_detail_plots(context)]
