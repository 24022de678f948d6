"""Renders Vega-Lite specifications to SVG and PDF in processes of their own.

The library is native code: where it fails it may end its whole process, whatever Python does. Drawn in another process,
that costs one drawing and not the report, and not the command that trained the models. Vega also holds the interpreter
lock while it draws, so threads would wait for one another. A process imports only this file of the project and
therefore starts quickly.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass

MAX_PROCESSES = 4
"""Upper limit of processes: the main process, which writes the specifications, cannot supply more."""

ATTEMPTS = 2
"""Processes that are given to a drawing. The first may have been ended by others, such as for its memory."""

DIED = "the drawing library ended its process"


@dataclass(frozen=True)
class Request:
    """A drawing to render: a Vega-Lite specification as JSON, and whether it is also wanted as PDF."""

    specification: str
    pdf: bool = False


@dataclass(frozen=True)
class Drawing:
    """A rendered drawing.

    Attributes:
        svg: The SVG; empty if the drawing failed.
        pdf: The PDF, if one was wanted.
        failure: Why there is no drawing; empty if there is one.
    """

    svg: str = ""
    pdf: bytes = b""
    failure: str = ""


def render(request: Request) -> Drawing:
    """One drawing, in this process, which may end."""
    import vl_convert  # here, so that only the processes that draw load it

    try:
        svg = vl_convert.vegalite_to_svg(request.specification)
        return Drawing(svg, vl_convert.svg_to_pdf(svg) if request.pdf else b"")
    except ValueError as error:
        return Drawing(failure=" ".join(str(error).split())[:200])


def render_one_by_one(requests: Iterable[Request]) -> list[Drawing]:
    """The drawings, rendered by one process. If it ends, another one replaces it, and the drawing at fault is left out.

    The process stays for later calls, because its start takes longer than most drawings.
    """
    return [_render_safely(request) for request in requests]


def render_in_parallel(requests: Iterable[Request]) -> list[Drawing]:
    """The drawings, rendered by several processes while the next requests are written.

    If a process ends, all that is not yet drawn is rendered one by one.
    """
    pool = _start(min(MAX_PROCESSES, os.cpu_count() or 1))
    with pool:
        pending = [(request, _submit(pool, request)) for request in requests]
        found = [(request, _result(future)) for request, future in pending]
    return [drawing or _render_safely(request) for request, drawing in found]


_processes: list[ProcessPoolExecutor] = []
"""The process of `render_one_by_one`, once it has been started."""


def _render_safely(request: Request) -> Drawing:
    for _ in range(ATTEMPTS):
        if not _processes:
            _processes.append(_start(1))
        if drawing := _result(_submit(_processes[0], request)):
            return drawing
        _processes.pop().shutdown()
    return Drawing(failure=DIED)


def _start(processes: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), _silence)


def _silence() -> None:
    """Discards what the process writes to standard error: a failure would print a page of native stack frames."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _submit(pool: ProcessPoolExecutor, request: Request) -> Future[Drawing] | None:
    """The pending drawing; None if a process of the pool has ended."""
    try:
        return pool.submit(render, request)
    except BrokenProcessPool:
        return None


def _result(future: Future[Drawing] | None) -> Drawing | None:
    """The drawing; None if the process ended before it was finished."""
    try:
        return future.result() if future else None
    except BrokenProcessPool:
        return None
