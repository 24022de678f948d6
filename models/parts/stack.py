"""A typed list of layers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Generic, TypeVar

from torch import nn

Layer = TypeVar("Layer", bound=nn.Module)


class Stack(nn.ModuleList, Generic[Layer]):
    """A ModuleList whose elements have a known type, so that the type checker sees the methods of a layer."""

    if TYPE_CHECKING:

        def __iter__(self) -> Iterator[Layer]: ...
