from __future__ import annotations

import json
import re
import time

import pytest
import torch

from dlrun.profiler import ACTIVE, PHASES, WAIT, WARMUP, Profiler, Unwatched

CPU = torch.device("cpu")
TRACED = WAIT + WARMUP + ACTIVE


def steps(profiler: Profiler, number: int) -> None:
    for _ in range(number):
        with profiler.phase("forward"):
            time.sleep(0.002)
        with profiler.phase("data"):
            pass
        profiler.step()


def test_phases_are_those_of_the_steps_after_the_trace(tmp_path, caplog):
    profiler = Profiler(tmp_path / "bench", CPU)
    steps(profiler, TRACED)
    assert profiler.operations is not None
    assert sum(profiler.calls.values()) == 0
    began = time.perf_counter()
    steps(profiler, 10)
    with profiler.phase("evaluation"):
        time.sleep(0.005)
    with caplog.at_level("INFO"):
        profiler.finish()
    passed = time.perf_counter() - began
    assert profiler.calls == dict.fromkeys(PHASES, 0) | {"forward": 10, "data": 10, "evaluation": 1}
    assert 0.02 <= profiler.seconds["forward"] <= passed
    assert 0.005 <= profiler.seconds["evaluation"] <= passed

    written = (tmp_path / "bench/profile.txt").read_text()
    table = {line[:12].strip(): line[12:].split() for line in written.splitlines()[: len(PHASES) + 3]}
    assert table.keys() == {"phase", *PHASES, "all else", "total"}
    seconds = {name: float(table[name][0]) for name in (*PHASES, "all else", "total")}
    assert sum(seconds.values()) - seconds["total"] == pytest.approx(seconds["total"], abs=0.01)
    assert seconds["total"] <= passed + 0.001
    assert table["evaluation"][2] == "1"
    assert table["checkpoint"][2:] == ["0", "–"]
    assert "10 optimizer steps" in caplog.text
    trace = json.loads((tmp_path / "bench/trace.json").read_text())
    names = [event.get("name") for event in trace["traceEvents"]]
    assert names.count("forward") == ACTIVE
    assert len(re.findall("Self CPU %", written)) == 1


def test_too_few_steps_are_said(tmp_path, caplog):
    profiler = Profiler(tmp_path / "bench", CPU)
    steps(profiler, WAIT)
    profiler.finish()
    assert f"it needs more than {WAIT + WARMUP} optimizer steps" in caplog.text
    assert not (tmp_path / "bench").exists()
    for number in (TRACED - 1, TRACED):
        short = Profiler(tmp_path / str(number), CPU)
        steps(short, number)
        short.finish()
        assert (tmp_path / str(number) / "profile.txt").read_text().startswith("phases: none")
        assert (tmp_path / str(number) / "trace.json").exists()


def test_unwatched_is_nothing():
    nobody = Unwatched()
    with nobody.phase("forward"), nobody.phase("data"):
        nobody.step()
    assert nobody.finish() is None
