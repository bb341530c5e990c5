"""What each optimizer step says of itself: loss, right answers and the gradient's length, summed over the epoch."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dlrun.faults import NonFinite

SIZE = 256  # steps between two looks at most


class Tally:
    """The numbers of the steps of an epoch, and the first step whose loss or gradient isn't finite.

    On a CPU they are read at once. On an accelerator, where reading means waiting for it, they stay there, a row for
    each step, until `look` is called; unless `at_once` is asked for. The sums are folded in the order of the steps and
    in double precision, so when one looks changes no bit of them.
    """

    def __init__(self, device: torch.device, at_once: bool, scales: bool = False):
        self.at_once = at_once or device.type == "cpu"
        self.scales = scales  # under gradient scaling an infinite gradient is part of the game
        self.loss = self.correct = 0.0  # sums over the epoch's samples so far
        self.norm = math.nan  # the gradient's length in the newest step that was read
        self.lengths = self.longest = 0.0  # sum and largest of the epoch's lengths that are finite
        self.measured = 0.0  # steps that these are of
        self.rows = torch.zeros(SIZE, 3, device=device).unbind()
        self.waiting: list[int] = []  # the steps whose numbers are on the device still

    def note(self, step: int, loss: Tensor, correct: Tensor, norm: Tensor) -> None:
        """Add the numbers of optimizer step `step`; raises NonFinite, now or later, if they aren't finite."""
        if self.at_once:
            self._add(step, loss.item(), correct.item(), norm.item())
            return
        torch.stack((loss, correct, norm), out=self.rows[len(self.waiting)])
        self.waiting.append(step)
        if len(self.waiting) == SIZE:
            self.look()

    def look(self) -> None:
        """Wait for the device; raises NonFinite if a step since the last look went wrong."""
        if not self.waiting:
            return
        steps, self.waiting = self.waiting, []
        for step, numbers in zip(steps, torch.stack(self.rows[: len(steps)]).tolist(), strict=True):
            self._add(step, *numbers)

    def begin(
        self,
        loss: float = 0.0,
        correct: float = 0.0,
        lengths: float = 0.0,
        longest: float = 0.0,
        measured: float = 0.0,
    ) -> None:
        """A new epoch, or the middle of one with the sums so far; what wasn't looked at is forgotten."""
        self.loss, self.correct, self.waiting = loss, correct, []
        self.lengths, self.longest, self.measured = lengths, longest, measured

    def sums(self) -> list[float]:
        """What `begin` takes to go on from here."""
        return [self.loss, self.correct, self.lengths, self.longest, self.measured]

    def gradient(self) -> dict[str, float | None]:
        """Mean and largest length of the gradient over the epoch's steps, before it is clipped; None without a step."""
        mean, longest = (self.lengths / self.measured, self.longest) if self.measured else (None, None)
        return {"grad_norm": mean, "grad_norm_max": longest}

    def _add(self, step: int, loss: float, correct: float, norm: float) -> None:
        if not (math.isfinite(loss) and (self.scales or math.isfinite(norm))):
            raise NonFinite(step, loss, None if self.scales else norm)
        self.loss, self.correct, self.norm = self.loss + loss, self.correct + correct, norm
        if norm < math.inf:  # neither infinite nor NaN, which gradient scaling lets pass
            self.lengths, self.measured = self.lengths + norm, self.measured + 1
            self.longest = max(self.longest, norm)
