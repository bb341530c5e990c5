"""The landscape against closed forms; the net is left as it was."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from dlrun.viz.network.landscape import direction, landscape
from dlrun.viz.network.pictures.landscape import contours


def test_a_direction_has_the_norms_of_the_filters() -> None:
    network = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Flatten(), nn.Linear(5, 4))
    found = direction(list(network.parameters()), 7)
    for parameter, part in zip(network.parameters(), found, strict=True):
        if parameter.ndim == 1:
            assert not part.any()
            continue
        own, drawn = (np.linalg.norm(p.detach().numpy().reshape(len(p), -1), axis=1) for p in (parameter, part))
        np.testing.assert_allclose(drawn, own, rtol=1e-5)
    again, other = direction(list(network.parameters()), 7), direction(list(network.parameters()), 8)
    assert torch.equal(found[0], again[0])
    assert not torch.equal(found[0], other[0])


def test_a_square_loss_is_its_closed_form() -> None:
    torch.manual_seed(0)
    network = nn.Linear(6, 3).double()
    before = copy.deepcopy(network.state_dict())
    told: list[int] = []
    found = landscape(
        network, lambda: (network.weight**2).sum().item(), 5, 0.8, 3, lambda seconds, points: told.append(points)
    )
    first, second = (direction(list(network.parameters()), 6 + number)[0] for number in range(2))
    places = np.array([-0.8, -0.4, 0, 0.4, 0.8])
    np.testing.assert_allclose(found.places, places, atol=1e-15)
    expected = [[((network.weight + a * first + b * second) ** 2).sum().item() for a in places] for b in places]
    np.testing.assert_allclose(found.loss, expected)
    assert found.centre == (network.weight**2).sum().item()
    assert told == [25]
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_weights_come_back_whatever_happens() -> None:
    network, calls = nn.Linear(2, 2), 0
    before = network.weight.detach().clone()

    def loss() -> float:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise KeyboardInterrupt
        return 1.0

    with pytest.raises(KeyboardInterrupt):
        landscape(network, loss, 3, 1.0, 0)
    assert torch.equal(network.weight, before)


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_the_contours(scale: float) -> None:
    places = np.linspace(-1, 1, 5)
    loss = 0.1 + scale * (places[:, None] ** 2 + 2 * places[None] ** 2)
    loss[0, 0] = np.inf
    figure = contours("around", places, loss)
    axis, bar = figure.axes
    assert axis.get_xlabel().startswith("along the first direction")
    assert axis.get_ylabel() == "along the second direction"
    assert bar.get_ylabel() == "loss (cross-entropy)"
    star = axis.lines[0]
    assert (star.get_xdata()[0], star.get_ydata()[0]) == (0, 0)  # type: ignore[index]
    assert axis.texts[-1].get_text() == "0.1" or "0.1" in [text.get_text() for text in axis.texts]
    assert bar.get_ylim() == pytest.approx((0.1, loss[np.isfinite(loss)].max()))
    assert contours("even", places, np.ones((5, 5))).axes
