"""A training that is killed again and again, at any moment, ends as one that never was: to the bit.

Real processes, real SIGKILLs. Most are forked from a server that has imported torch (`forks.py`), so that hundreds of
kills take minutes; one run is made of fresh interpreters alone.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from equality import differences, files
from forks import SOURCE, Forks, Part

# Everything that has state: dropout, batch norm, augmentation, mixup, accumulation with a smaller last window, EMA,
# a scheduler that remembers, patience; and a checkpoint every third of 10 steps in an epoch.
RUN = [
    *("tracking=none", "model=cnn", "model.channels=[4,8]", "model.hidden_size=16", "augment.mixup=0.4"),
    *("data.limit=300", "data.batch_size=16", "trainer.accumulate_grad_batches=2", "trainer.ema_decay=0.9"),
    *("scheduler=plateau", "scheduler.patience=0", "scheduler.warmup_steps=5", "trainer.patience=4"),
    *("trainer.max_epochs=6", "trainer.checkpoint_every_n_steps=3", "trainer.enable_progress_bar=false"),
]


@pytest.fixture(scope="module")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    forks = Forks(tmp_path_factory.mktemp("survival"))
    yield forks
    forks.close()


@pytest.fixture(scope="module")
def whole(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Part]:
    """The run that is never stopped."""
    path = tmp_path_factory.mktemp("whole") / "run"
    part = forks.run(*RUN, f"hydra.run.dir={path}")
    assert part.code == 0, forks.output.read_text()
    return path, part


def survive(forks: Forks, path: Path, kill: Callable[[int, int], dict[str, Any]]) -> Counter[str]:
    """Begin a run, kill its parts, resume it until it is over; returns where it was hit.

    `kill(begun, resumed)` says how a part dies: the newest of that many that began the run, and that many that resumed.
    """
    hits: Counter[str] = Counter()
    begun = resumed = 0
    while hits.total() < 400:
        if (path / "config.yaml").exists():
            resumed += 1
            workers = 2 * (resumed % 4 == 3)
            words = ["resume", f"run={path}", f"data.num_workers={workers}"]
        else:  # it was over before there was a run to go on with
            shutil.rmtree(path, ignore_errors=True)
            begun += 1
            words = [*RUN, f"hydra.run.dir={path}"]
        how = kill(begun, resumed)
        part = forks.run(*words, **how)
        if part.code == 0:
            return hits
        assert part.code == -signal.SIGKILL, forks.output.read_text()[-3000:]
        hits[_where(part, (path / "checkpoints/last.pt").exists(), "kill_at" in how)] += 1
    raise AssertionError(f"{sum(hits.values())} kills, and no end: {hits}")


def _where(part: Part, saved: bool, aimed: bool) -> str:
    if aimed:
        return part.point
    if part.writing:
        return "in a checkpoint write"
    if part.phase in ("starting", "restoring"):
        return "resuming" if saved else "starting"
    return part.phase if saved else "before the first checkpoint"


def report(hits: Counter[str]) -> None:
    print(f"\nsurvived {hits.total()} kills:")
    for where, count in hits.most_common():
        print(f"{count:5d}  {where}")


def check(path: Path, whole: Path) -> None:
    assert differences(whole, path) == []
    assert not [name for name in files(path) if name.endswith(".partial")]


def by_time(forks: Forks, whole: tuple[Path, Part], tmp_path: Path, kills: int, seed: int) -> None:
    """Kills at random moments, of as many runs as it takes."""
    chance, hits = random.Random(seed), Counter[str]()
    latest = 0.8 * whole[1].seconds  # a part that was killed before its first step brings nothing
    while hits.total() < kills:
        path = tmp_path / str(hits.total()) / "run"
        hits += survive(forks, path, lambda *_: {"kill_after": chance.uniform(0, latest)})
        check(path, whole[0])
    report(hits)


def test_it_survives_kills_at_random_moments(forks: Forks, whole: tuple[Path, Part], tmp_path: Path) -> None:
    by_time(forks, whole, tmp_path, kills=7, seed=0)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_it_survives_200_kills_at_random_moments(forks: Forks, whole: tuple[Path, Part], tmp_path: Path) -> None:
    by_time(forks, whole, tmp_path, kills=int(os.environ.get("DLRUN_KILLS", "200")), seed=1)


def test_it_survives_a_kill_at_each_point_of_writing_a_file(
    forks: Forks, whole: tuple[Path, Part], tmp_path: Path
) -> None:
    """The first part dies at its first point, the second one at its second, and so on: further in each time.

    From the first that is resumed on the count begins again: these have other points.
    """

    def further(begun: int, resumed: int) -> dict[str, int]:
        return {"kill_at": resumed + 3 * max(resumed - 24, 0) if resumed else begun}

    hits = survive(forks, tmp_path / "run", further)
    check(tmp_path / "run", whole[0])
    report(hits)
    assert len(hits) >= 15, hits  # different points


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_it_survives_a_kill_at_every_point_there_is(forks: Forks, whole: tuple[Path, Part], tmp_path: Path) -> None:
    """One run for each point. Once it is left alone then, since a further resume would clean up after the first."""
    hits, points = Counter[str](), whole[1].points
    for place in range(1, points + 1):
        for second in ({}, {"kill_at": 5 + place % 20}):
            path, ends = tmp_path / str(place) / "run", [{"kill_at": place}, second]
            hits += survive(forks, path, lambda *parts, ends=ends: ends[sum(parts) - 1] if sum(parts) <= 2 else {})
            check(path, whole[0])
            shutil.rmtree(path)
    report(hits)
    assert points > 100


def test_it_survives_in_fresh_interpreters_too(whole: tuple[Path, Part], tmp_path: Path) -> None:
    """Killed with its first checkpoint on disk, then in the middle of importing torch; then left alone."""
    path, last = tmp_path / "run", tmp_path / "run/checkpoints/last.pt"
    begun = _fresh(tmp_path, *RUN, f"hydra.run.dir={path}")
    deadline = time.monotonic() + 120
    while not last.exists() and time.monotonic() < deadline:
        time.sleep(0.002)
    begun.kill()
    assert begun.wait() == -signal.SIGKILL
    resumed = _fresh(tmp_path, "resume", f"run={path}")
    time.sleep(0.5)
    resumed.kill()
    assert resumed.wait() == -signal.SIGKILL
    assert _fresh(tmp_path, "resume", f"run={path}").wait() == 0, (tmp_path / "output.txt").read_text()
    check(path, whole[0])


def _fresh(folder: Path, *words: str) -> subprocess.Popen[bytes]:
    with (folder / "output.txt").open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "dlrun", *words],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(SOURCE)},
            stdout=output,
            stderr=output,
        )
