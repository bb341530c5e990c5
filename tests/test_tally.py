from __future__ import annotations

import math

import pytest
import torch

from dlrun.faults import NonFinite
from dlrun.tally import SIZE, Tally

CPU = torch.device("cpu")


def tally(at_once: bool, scales: bool = False) -> Tally:
    made = Tally(CPU, at_once, scales)
    made.at_once = at_once  # a CPU is always looked at
    return made


def note(one: Tally, step: int, loss: float, correct: int = 1, norm: float = 1.0) -> None:
    one.note(step, torch.tensor(loss), torch.tensor(correct), torch.tensor(norm))


def test_looking_later_tells_of_the_first() -> None:
    later = tally(at_once=False)
    later.look()
    for step, loss, norm in [(0, 1.0, 2.0), (1, 1.0, math.inf), (2, math.nan, math.nan), (3, 1.0, 1.0)]:
        note(later, step, loss, norm=norm)
    with pytest.raises(NonFinite, match="the gradient's norm is inf at step 2") as caught:
        later.look()
    assert (caught.value.step, caught.value.loss, caught.value.norm) == (1, 1.0, math.inf)
    later.look()  # once
    note(later, 4, math.nan)
    with pytest.raises(NonFinite, match="the training loss is nan at step 5"):
        later.look()


@pytest.mark.parametrize("at_once", [True, False])
def test_under_scaling_an_infinite_gradient_is_no_fault(at_once: bool) -> None:
    scaled = tally(at_once, scales=True)
    note(scaled, 0, 1.0, norm=math.inf)
    scaled.look()
    assert scaled.gradient() == {"grad_norm": None, "grad_norm_max": None}
    for step, norm in enumerate([2.0, math.nan, math.inf, 4.0]):
        note(scaled, step, 1.0, norm=norm)
    scaled.look()
    assert scaled.gradient() == {"grad_norm": 3.0, "grad_norm_max": 4.0}
    with pytest.raises(NonFinite, match="the training loss is nan at step 2"):  # noqa: PT012
        note(scaled, 1, math.nan)
        scaled.look()


def test_when_one_looks_changes_no_bit() -> None:
    losses = torch.rand(3 * SIZE + 7, generator=torch.Generator().manual_seed(0)).tolist()
    sums = set()
    for looks in ("at once", "never", 1, 13, SIZE - 1):
        one = tally(at_once=looks == "at once")
        for step, loss in enumerate(losses):
            note(one, step, loss, correct=step % 5, norm=loss / 2)
            if isinstance(looks, int) and step % looks == 0:
                one.look()
        one.look()
        sums.add((*one.sums(), one.norm))
    ((loss, correct, lengths, longest, measured, norm),) = sums
    assert loss == pytest.approx(math.fsum(losses), rel=1e-14)
    assert correct == sum(step % 5 for step in range(len(losses)))
    norms = (torch.tensor(losses) / 2).tolist()
    assert (norm, longest, measured) == (norms[-1], max(norms), len(norms))
    assert lengths == pytest.approx(math.fsum(norms), rel=1e-14)


def test_counts_beyond_what_a_float32_holds() -> None:
    one = tally(at_once=True)
    one.begin(loss=0.0, correct=2.0**24)
    note(one, 0, 0.5)
    assert one.correct == 2**24 + 1
