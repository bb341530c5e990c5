"""More values for a grid: only what is new runs, and it is made from what the old jobs were made from."""

from __future__ import annotations

import json
import subprocess
import sys

import yaml
from command_line import CommandLine

TINY = ["tracking=none", "data.limit=200", "augment=none", "trainer.max_epochs=1", "trainer.enable_progress_bar=false"]

HOLDS = """
from pathlib import Path
from dlrun.locks import hold
hold(Path("sweep/.lock"))
print("held", flush=True)
input()
"""


def test_extend(dlrun: CommandLine) -> None:
    (dlrun.folder / "mine/model").mkdir(parents=True)
    config = dlrun.folder / "mine/model/small.yaml"
    config.write_text("name: mlp\nhidden_sizes: [8]\n")
    words = ["--config-dir", "mine", *TINY, "model=small"]
    assert dlrun("-m", *words, "seed=0,1", "hydra.sweep.dir=sweep").code == 0
    config.write_text("name: mlp\nhidden_sizes: [no number]\n")

    result = dlrun("sweep", "extend", "run=sweep", "seed=1,2")
    assert result.code == 0, result.err
    assert "1 new job for sweep" in result.out
    assert "1 job to run (2 of 3 are done)" in result.out
    new = yaml.safe_load((dlrun.folder / "sweep/2/config.yaml").read_text())
    assert (new["seed"], new["model"]["hidden_sizes"], new["tags"]) == (2, [8], ["seed=2"])

    result = dlrun("-m", *words, "seed=0,2", "optimizer.lr=1e-3,1e-2", "sweep.extend=sweep")
    assert result.code == 0, result.err
    started = [json.loads(line) for line in (dlrun.folder / "sweep/events.jsonl").read_text().splitlines()]
    assert sorted(event["job"] for event in started if event["event"] == "started") == list(range(len(started) // 2))
    jobs = [json.loads(line) for line in (dlrun.folder / "sweep/jobs.jsonl").read_text().splitlines()]
    assert len({job["key"] for job in jobs}) == len(jobs) == 7
    assert json.loads((dlrun.folder / "sweep/sweep.json").read_text())["swept"] == ["seed", "optimizer.lr"]

    for wrong, message in [
        ([], "sweep extend: say which values come in"),
        (["sweep.on_error=stop"], "sweep extend: say which values come in"),
        # As often as the grid has seeds by now, the one that came in later included.
        (["optimizer.lr=-1"], "optimizer.lr: expected a number > 0, got -1 (job 1 of 3: seed=0, optimizer.lr=-1"),
        (["model=nope"], "unknown model 'nope'"),
    ]:
        result = dlrun("sweep", "extend", "run=sweep", *wrong)
        assert (result.code, message in result.err) == (2, True), result.err
    before = (dlrun.folder / "sweep/jobs.jsonl").read_bytes()
    assert before.count(b"\n") == 7
    with subprocess.Popen([sys.executable, "-c", HOLDS], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        for more in (("sweep", "extend", "run=sweep", "seed=9"), ("-m", *words, "seed=9", "sweep.extend=sweep")):
            result = dlrun(*more)
            assert result.code == 2, result.out
            assert f"run: sweep is being run by process {other.pid} on " in result.err
        other.communicate(b"enough")
    assert (dlrun.folder / "sweep/jobs.jsonl").read_bytes() == before, "one number, one job"
