"""Renders Vega-Lite specifications to SVG, many of them in parallel processes.

Vega holds the interpreter lock while it draws, so threads would wait for one another. A process imports only this file
of the project and therefore starts quickly.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor

import vl_convert

MAX_PROCESSES = 4
"""Upper limit of processes: the main process, which writes the specifications, cannot supply more."""


def render_svg(specification: str) -> str:
    """The SVG of one specification."""
    return vl_convert.vegalite_to_svg(specification)


def render_svgs(specifications: Iterable[str]) -> list[str]:
    """The SVGs of all specifications, rendered while the next specifications are written."""
    processes = min(MAX_PROCESSES, os.cpu_count() or 1)
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        pending = [pool.submit(render_svg, each) for each in specifications]
        return [drawing.result() for drawing in pending]
