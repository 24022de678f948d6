"""From Vega-Lite to SVG, in a process of its own where there is much to draw.

Vega keeps the interpreter to itself while it draws: threads would wait for one another. The processes import this file
and nothing else of the project.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor

import vl_convert

MOST = 4
"""Processes at most: somebody has to write the specifications."""


def svg(specification: str) -> str:
    """One drawing."""
    return vl_convert.vegalite_to_svg(specification)


def svgs(specifications: Iterable[str]) -> list[str]:
    """All of them, drawn while the next are written."""
    processes = min(MOST, os.cpu_count() or 1)
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        drawings = [pool.submit(svg, each) for each in specifications]
        return [drawing.result() for drawing in drawings]
