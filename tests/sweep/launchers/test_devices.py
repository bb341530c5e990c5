"""GPUs as nvidia-smi and CUDA_VISIBLE_DEVICES tell of them. The driver is a script that prints what a real one does."""

from __future__ import annotations

import pytest
from launching import pretend_gpus

from dlrun.errors import UserError
from dlrun.sweep.launchers.devices import Places, _installed, chosen_gpus, visible_gpus

FOUR = [
    "0, GPU-aaaa0000-1111, 40000, 81559",
    "1, GPU-bbbb0000-1111, 4, 81559",
    "2, GPU-aacc0000-1111, [N/A], [N/A]",
    "3, GPU-dddd0000-1111, 900, 24576",
]


@pytest.fixture
def four(monkeypatch, tmp_path):
    pretend_gpus(monkeypatch, tmp_path / "driver", FOUR)


def numbers(gpus):
    return [str(gpu) for gpu in gpus]


def test_what_the_driver_says(four):
    gpus = visible_gpus()
    assert [(gpu.index, gpu.uuid, gpu.used, gpu.total) for gpu in gpus] == [
        (0, "GPU-aaaa0000-1111", 40000, 81559),
        (1, "GPU-bbbb0000-1111", 4, 81559),
        (2, "GPU-aacc0000-1111", 0, 0),
        (3, "GPU-dddd0000-1111", 900, 24576),
    ]


@pytest.mark.parametrize(
    ("visible", "there"),
    [
        ("0,3", ["0", "3"]),
        ("3, 1", ["3", "1"]),
        ("", []),
        ("-1", []),
        ("1,9,0", ["1"]),  # what isn't there hides all after it, as the CUDA guide has it
        ("GPU-bbbb0000-1111,GPU-dddd", ["1", "3"]),  # as much of a UUID as tells it from the others
        ("GPU-aa,1", []),  # could be two
        ("MIG-6f81,0", ["MIG-6f81", "0"]),
        ("NoDevFiles", []),
    ],
)
def test_cuda_visible_devices(four, visible, there, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert numbers(visible_gpus()) == there


@pytest.mark.parametrize(
    ("devices", "chosen"),
    [
        ("auto", ["2", "1", "3", "0"]),  # by the share of its memory that is in use
        (2, ["2", "1"]),
        (0, []),
        ([0, 3], ["3", "0"]),
        (["GPU-dd", 1], ["1", "3"]),
    ],
)
def test_chosen(four, devices, chosen):
    assert numbers(chosen_gpus(devices)) == chosen


@pytest.mark.parametrize(
    ("devices", "message"),
    [
        (5, "hydra.launcher.devices: expected at most 4, got 5; there are 4 GPUs (0, 1, 2, 3)"),
        ([0, 4], "hydra.launcher.devices: no GPU 4; there are 4 GPUs (0, 1, 2, 3)"),
        ([1, 1], "hydra.launcher.devices: expected each GPU once, got [1, 1]"),
        ([1, "GPU-bbbb"], "hydra.launcher.devices: expected each GPU once, got [1, 'GPU-bbbb']"),
    ],
)
def test_more_than_there_are(four, devices, message):
    with pytest.raises(UserError) as error:
        chosen_gpus(devices)
    assert str(error.value) == message


def test_more_than_are_visible(four, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    with pytest.raises(UserError, match=r"no GPU 0; there are 1 GPUs \(3\), with CUDA_VISIBLE_DEVICES=3"):
        chosen_gpus([0])


def test_no_driver_and_one_that_fails(monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("PATH", str(tmp_path))
    _installed.cache_clear()
    assert visible_gpus() == []
    assert not caplog.records
    pretend_gpus(monkeypatch, tmp_path / "driver", ["NVIDIA-SMI has failed because it cannot talk to its driver."], 9)
    assert chosen_gpus("auto") == []
    assert "NVIDIA-SMI has failed" in caplog.text
    with pytest.raises(UserError, match=r"expected at most 0, got 1; there are 0 GPUs"):
        chosen_gpus(1)


def test_places(four):
    places = Places(chosen_gpus("auto"), per_job=1, jobs_per_device=2)
    assert places.total == 8
    taken = [places.take() for _ in range(8)]
    assert [str(gpu) for place in taken for gpu in place] == ["2", "1", "3", "0"] * 2  # each once before any twice
    with pytest.raises(RuntimeError):
        places.take()
    places.give_back(taken[2])
    assert places.take() == taken[2]


def test_places_of_several(four):
    places = Places(chosen_gpus("auto"), per_job=2, jobs_per_device=1)
    assert places.total == 2
    first, second = places.take(), places.take()
    assert {str(gpu) for gpu in (*first, *second)} == {"0", "1", "2", "3"}
    assert Places(chosen_gpus("auto"), per_job=3, jobs_per_device=2).total == 2
