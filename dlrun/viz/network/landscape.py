"""The loss around a trained network, along two directions in the space of its weights (Li et al. 2018)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Landscape:
    """`loss` (steps, steps): the row is the second direction's place, the column the first's, both of `places`."""

    places: np.ndarray
    loss: np.ndarray
    seconds: float

    @property
    def centre(self) -> float:
        """The trained network's own loss."""
        middle = len(self.places) // 2
        return float(self.loss[middle, middle])


def direction(parameters: Sequence[Tensor], seed: int) -> list[Tensor]:
    """A random direction, filter-normalised (Li et al. 2018, section 4).

    Each filter of it, a row of a matrix or what makes one channel, has the norm of the network's own. Biases and what
    norms scale and shift by, which have no filters, stay where they are. Drawn on the CPU: the same on every device.
    """
    random = torch.Generator().manual_seed(seed)
    found = []
    for parameter in parameters:
        drawn = torch.randn(parameter.shape, generator=random)
        if parameter.ndim < 2:
            found.append(torch.zeros_like(drawn).to(parameter.device))
            continue
        own = parameter.detach().float().cpu().flatten(1).norm(dim=1)
        scale = own / drawn.flatten(1).norm(dim=1).clamp_min(1e-10)
        found.append((drawn * scale.view(-1, *[1] * (drawn.ndim - 1))).to(parameter.device))
    return found


def landscape(
    network: nn.Module,
    loss: Callable[[], float],
    steps: int,
    span: float,
    seed: int,
    begun: Callable[[float, int], None] = lambda seconds, points: None,
    shown: Callable[[Sequence[tuple[int, int]]], Sequence[tuple[int, int]]] = lambda points: points,
) -> Landscape:
    """`loss()` at steps × steps points, from -span to span along both directions; `steps` is odd.

    Buffers, among them batch norm's running statistics, stay those of the trained network: so its own loss is that of
    the evaluation. `begun` hears what one loss takes, in seconds, and how many there will be, and may raise; `shown`
    may tell people how far it is. The weights are as they were in the end.
    """
    parameters = [parameter for parameter in network.parameters() if parameter.is_floating_point()]
    places = np.linspace(-span, span, steps)
    values = np.full((steps, steps), np.nan)
    middle, start = steps // 2, time.perf_counter()
    loss()  # what is made once is no part of the time that one takes
    begin = time.perf_counter()
    values[middle, middle] = loss()
    begun(time.perf_counter() - begin, steps * steps)
    first, second = (direction(parameters, 2 * seed + number) for number in range(2))
    points = [(i, j) for i in range(steps) for j in range(steps) if (i, j) != (middle, middle)]
    with _kept(parameters) as origin:
        for i, j in shown(points):
            with torch.no_grad():
                for parameter, own, one, other in zip(parameters, origin, first, second, strict=True):
                    parameter.copy_(own + float(places[j]) * one + float(places[i]) * other)
            values[i, j] = loss()
    return Landscape(places, values, time.perf_counter() - start)


@contextmanager
def _kept(parameters: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Copies of the parameters, which are themselves again in the end."""
    origin = [parameter.detach().clone() for parameter in parameters]
    try:
        yield origin
    finally:
        with torch.no_grad():
            for parameter, own in zip(parameters, origin, strict=True):
                parameter.copy_(own)
