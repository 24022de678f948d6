"""CUDA graphs: the kernels that a function launches are recorded once and from then on launched all at once.

Small models do not keep a GPU busy: the host launches many kernels, each of which takes less time than its launch. A
graph of kernels is one launch. It repeats the recorded kernels at the recorded addresses. So the inputs are copied to
these addresses first, and every shape of the inputs needs a graph of its own.

Shapes that come back are recorded when they occur for the second time. The first time, the function runs as usual: what
it makes once (tables of positions, handles of libraries) is made before anything is recorded, and a shape that occurs
once costs nothing.

Why not torch.compile(mode="reduce-overhead"), which makes such graphs, too: it compiles each shape, the loops of
recurrent decoders for minutes, and its kernels round differently and draw other random numbers for dropout.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

LENGTH_MULTIPLE = 8
"""Lengths are padded to multiples of this where functions are recorded, so that there are few shapes."""

Record = Callable[[Callable[[], None]], Callable[[], None]]
"""Runs a function that writes its results into tensors that stay; returns a function that does the same again."""


class CudaRecorder:
    """Records what a function launches on the current GPU. All graphs share the memory of their intermediate results.

    They may, because they run one after another, and after a launch only tensors are read that are still referenced.
    Random numbers are not recorded: a graph reads seed and offset from the generator whenever it is launched.
    """

    def __init__(self) -> None:
        self.pool = torch.cuda.graph_pool_handle()
        self.graphs = list[torch.cuda.CUDAGraph]()  # also a failed one: the allocator may still refer to it

    def __call__(self, function: Callable[[], None]) -> Callable[[], None]:
        graph, stream, collects = torch.cuda.CUDAGraph(), torch.cuda.current_stream(), gc.isenabled()
        self.graphs.append(graph)
        torch.clear_autocast_cache()  # weights that were cast before would not be cast again by the graph
        gc.disable()  # a graph that is collected while another is recorded spoils it
        try:
            with torch.cuda.graph(graph, pool=self.pool):
                function()
            graph.replay()  # recording has launched nothing
        except RuntimeError as error:
            torch.cuda.set_stream(stream)  # torch leaves the stream of a failed recording in place
            if "out of memory" in str(error):  # errors of the CUDA library have another class
                raise torch.OutOfMemoryError(str(error)) from error
            raise
        finally:
            torch.clear_autocast_cache()  # the weights that were cast now are in the memory of the graphs
            if collects:
                gc.enable()
        return graph.replay


class Graph(NamedTuple):
    """The recorded call for one shape.

    Attributes:
        inputs: The tensors that are read.
        outputs: The results: tensors that are written, None, or the number of the input that is returned as it is.
        structure: The tree of the results.
        repeat: Computes the outputs from the inputs.
    """

    inputs: Sequence[Tensor]
    outputs: Sequence[Tensor | int | None]
    structure: TreeSpec
    repeat: Callable[[], None]


class RecordedFunction:
    """A function of trees of tensors, computed by a recorded graph from the second call with the same shapes on.

    Results belong to the caller. The function must read nothing but its arguments and tensors that stay where they are
    (weights), and nothing back from the device. It is recorded in the modes of the second call, such as autocast.

    Args:
        function: From tensors and trees of tensors (tuples, named tuples, lists) to such a tree, which may have None.
        most: Recorded shapes. Further ones are computed as usual.
        record: Records a call; default: as a CUDA graph.

    Attributes:
        launches: Calls that were computed by a recorded graph.
    """

    def __init__(self, function: Callable[..., Any], most: int, record: Record | None = None) -> None:
        self.function, self.most, self.record, self.launches = function, most, record or CudaRecorder(), 0
        self.graphs: dict[Any, Graph | None] = {}  # None: the shapes occurred once
        self.buffers: dict[Any, Tensor] = {}  # shared by all graphs whose inputs, or outputs, have the same shape

    def __call__(self, *arguments: Any) -> Any:
        leaves, structure = tree_flatten(arguments)
        shapes = tuple((leaf.shape, leaf.dtype) for leaf in leaves)
        if shapes not in self.graphs:
            if len(self.graphs) < self.most:
                self.graphs[shapes] = None
            return self.function(*arguments)
        graph = self.graphs[shapes]
        if graph is None:
            graph = self.graphs[shapes] = self.recorded(leaves, structure)
        else:
            for ours, theirs in zip(graph.inputs, leaves, strict=True):
                ours.copy_(theirs)
            graph.repeat()
        self.launches += 1

        def result(output: Tensor | int | None) -> Tensor | None:
            return leaves[output] if isinstance(output, int) else None if output is None else output.clone()

        return tree_unflatten([result(output) for output in graph.outputs], graph.structure)

    def recorded(self, leaves: Sequence[Tensor], structure: TreeSpec) -> Graph:
        """Record a call, with copies of these tensors as its first input, and compute it."""
        inputs, outputs, trees = [], list[Tensor | int | None](), list[TreeSpec]()
        for number, leaf in enumerate(leaves):
            inputs.append(self.buffer("input", number, leaf))
            inputs[-1].copy_(leaf)

        def call() -> None:
            results, tree = tree_flatten(self.function(*tree_unflatten(inputs, structure)))
            outputs[:] = [self.written(number, result, inputs) for number, result in enumerate(results)]
            trees[:] = [tree]

        repeat = self.record(call)
        return Graph(inputs, outputs, trees[0], repeat)

    def written(self, number: int, result: Tensor | None, inputs: Sequence[Tensor]) -> Tensor | int | None:
        """Write a result into its buffer and return that; the number of the input if the result is an input."""
        if result is None:
            return None
        for index, given in enumerate(inputs):
            if result is given:
                return index
        buffer = self.buffer("output", number, result)
        buffer.copy_(result)
        return buffer

    def buffer(self, role: str, number: int, like: Tensor) -> Tensor:
        """Return the tensor that stays where it is, for the input or output with this number."""
        key = role, number, like.shape, like.dtype
        if key not in self.buffers:
            self.buffers[key] = torch.empty_like(like)
        return self.buffers[key]
