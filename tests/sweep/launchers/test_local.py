"""The local launcher with real processes; what is run in them stands in for a training (launching.py)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from launching import alive, job, launcher, pretend_gpus, run_all, until
from test_devices import FOUR

from dlrun.errors import UserError
from dlrun.sweep.folder import SweepFolder
from dlrun.sweep.launchers import build
from dlrun.sweep.launchers.parent import INTERVAL

# Takes each of its GPUs as a file that only one can make, keeps it for a while, and tells who it was.
OCCUPY = """
import time
gpus = os.environ["CUDA_VISIBLE_DEVICES"].split(",")
taken = [os.open(f"../{gpu}", os.O_CREAT | os.O_EXCL) for gpu in gpus]
time.sleep(0.3)
for gpu in gpus:
    os.unlink(f"../{gpu}")
print(*gpus)
"""
# A child of its own, as a loader process is: deaf to what its parent is told.
WITH_CHILD = """
import signal, time
child = os.fork()
if child == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(600)
open("made", "w").write(str(child))
os.rename("made", "child")
"""
SAVES = """
import signal, sys, time
def save(*_):
    open("saved", "w").close()
    sys.exit(143)
signal.signal(signal.SIGTERM, save)
"""


def printed(path: Path) -> str:
    return (path / "console.log").read_text()


def test_four_devices_are_never_shared(monkeypatch, tmp_path):
    pretend_gpus(monkeypatch, tmp_path / "driver", FOUR)
    jobs = [job(number, OCCUPY) for number in range(6)]
    with launcher(tmp_path / "sweep", jobs) as local:
        assert local.slots == 4
        ended = run_all(local, jobs)
    assert {number: one.code for number, one in ended.items()} == dict.fromkeys(range(6), 0)
    used = [printed(tmp_path / "sweep" / str(number)).strip() for number in range(6)]
    assert used[:4] == [FOUR[n].split(", ")[1] for n in (2, 1, 3, 0)]  # the least used first
    assert set(used[4:]) <= set(used[:4])


def test_devices_shared_on_purpose_and_two_for_a_job(monkeypatch, tmp_path):
    pretend_gpus(monkeypatch, tmp_path / "driver", FOUR)
    jobs = [job(number, "print(os.environ['CUDA_VISIBLE_DEVICES'])") for number in range(4)]
    with launcher(tmp_path / "a", jobs, devices=[0, 1], jobs_per_device=2) as local:
        assert local.slots == 4
        assert all(one.code == 0 for one in run_all(local, jobs).values())
    used = sorted(printed(tmp_path / "a" / str(number)).strip() for number in range(4))
    assert used == ["GPU-aaaa0000-1111"] * 2 + ["GPU-bbbb0000-1111"] * 2
    with launcher(tmp_path / "b", jobs, processes=2) as local:
        assert local.slots == 2
        assert local.command(jobs[0])[2:4] == ["dlrun.sweep.launchers.elastic", "2"]
        assert local.environment(jobs[0], local.places.take())["CUDA_VISIBLE_DEVICES"].count("GPU-") == 2


def test_jobs_on_the_cpu_take_no_gpu(monkeypatch, tmp_path):
    pretend_gpus(monkeypatch, tmp_path / "driver", FOUR)
    jobs = [job(number, "print(repr(os.environ['CUDA_VISIBLE_DEVICES']))", device="cpu") for number in range(6)]
    with launcher(tmp_path / "a", jobs) as local:
        assert local.slots == 1
    with launcher(tmp_path / "b", jobs, jobs=6) as local:  # more than there are GPUs
        assert all(one.code == 0 for one in run_all(local, jobs).values())
    assert printed(tmp_path / "b" / "5") == "''\n"
    jobs[0].config["device"] = "auto"
    with launcher(tmp_path / "c", jobs[:1], devices=0, processes=1) as local:
        run_all(local, jobs[:1])
    assert printed(tmp_path / "c" / "0") == "''\n"


def test_a_search_asks_for_more_than_there_is_room_for(monkeypatch, tmp_path):
    """Nobody knew beforehand which device its jobs want: those for whom there is no GPU wait, the others don't."""
    pretend_gpus(monkeypatch, tmp_path / "driver", FOUR[:2])
    jobs = [job(number, OCCUPY) for number in range(3)] + [job(3, device="cpu")]
    with launcher(tmp_path / "sweep", [], jobs=4) as local:
        for one in jobs:
            local.start(one)
        assert sorted(local.running) == [0, 1, 3]
        ended = [one for _ in range(4) for one in local.wait(20)]
    assert {one.number: one.code for one in ended} == dict.fromkeys(range(4), 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"jobs": 5}, r"hydra.launcher.jobs: expected at most 4 \(4 GPUs × jobs_per_device=1\), got 5"),
        ({"jobs": 3, "processes": 2}, r"at most 2 \(4 GPUs × jobs_per_device=1 with processes=2\), got 3"),
        ({"processes": 5}, "hydra.launcher.processes: expected at most 4, one per GPU .*, got 5"),
        ({"devices": 5}, "hydra.launcher.devices: expected at most 4, got 5"),
        ({"jobs": 0}, "hydra.launcher.jobs: expected a whole number >= 1 or one of 'auto', got 0"),
        ({"jobs": "many"}, "hydra.launcher.jobs: .*got 'many'"),
        ({"job": 2}, "hydra.launcher.job: unknown option; did you mean 'jobs'"),
    ],
)
def test_what_cannot_be_honoured(options, message, monkeypatch, tmp_path):
    pretend_gpus(monkeypatch, tmp_path / "driver", FOUR)
    with pytest.raises(UserError, match=message):
        build({"name": "local", **options}, SweepFolder(tmp_path), [job(0), job(1, device="cpu")])


def test_ends_of_all_kinds(tmp_path):
    """Each has its own code, and what happens to one is nothing to the others."""
    scripts = {
        0: "import time; time.sleep(0.5); print('well')",
        1: WITH_CHILD + "os.kill(os.getpid(), signal.SIGKILL)",
        2: "import ctypes; ctypes.string_at(0)",
        3: "raise SystemExit(3)",
        4: "import time; time.sleep(0.2); raise ValueError('so')",
    }
    jobs = [job(number, script) for number, script in scripts.items()]
    with launcher(tmp_path, jobs, jobs=5) as local:
        ended = run_all(local, jobs)
    assert {number: one.code for number, one in ended.items()} == {0: 0, 1: -9, 2: -11, 3: 3, 4: 1}
    assert printed(tmp_path / "0") == "well\n"
    assert "Fatal Python error: Segmentation fault" in printed(tmp_path / "2")
    assert "ValueError: so" in printed(tmp_path / "4")
    until(lambda: not alive(int((tmp_path / "1" / "child").read_text())))


def test_a_job_that_cannot_begin(tmp_path):
    (tmp_path / "0").write_text("in the way of its folder")
    jobs = [job(0), job(1, "print(1)")]
    with launcher(tmp_path, jobs, jobs=2) as local:
        ended = run_all(local, jobs)
    assert (ended[0].code, ended[1].code) == (None, 0)
    assert "can't be started" in ended[0].message


def test_stopped_once_and_twice(tmp_path):
    """SIGTERM is for the job alone; what it takes to end it anyhow is for its children, too."""
    jobs = [job(0, SAVES + "open('ready', 'w').close(); time.sleep(600)")]
    jobs.append(job(1, WITH_CHILD + "signal.signal(signal.SIGTERM, signal.SIG_IGN); open('ready', 'w').close()\n"))
    jobs[1].config["script"] += "time.sleep(600)"
    with launcher(tmp_path, jobs, jobs=2) as local:
        for one in jobs:
            local.start(one)
        until(lambda: all((tmp_path / str(number) / "ready").exists() for number in range(2)))
        local.stop()
        (first,) = local.wait(60)
        assert (first.number, first.code) == (0, 143)
        assert (tmp_path / "0" / "saved").exists()
        child = int((tmp_path / "1" / "child").read_text())
        assert alive(child)
        local.stop()
        (second,) = local.wait(60)
        assert (second.number, second.code) == (1, -9)
        until(lambda: not alive(child))


def test_waiting_ends_with_a_job_or_a_signal(tmp_path, monkeypatch):
    heard: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: heard.append(number))
    jobs = [job(0, "import time; time.sleep(0.3)"), job(1, SAVES + "time.sleep(600)")]
    try:
        with launcher(tmp_path, jobs, jobs=2) as local:
            for one in jobs:
                local.start(one)
            assert [one.number for one in local.wait(60)] == [0]
            threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGUSR1)).start()
            assert local.wait(60) == []
            assert heard == [signal.SIGUSR1]
            os.kill(os.getpid(), signal.SIGUSR1)  # ahead of the waiting
            assert local.wait(60) == []
            assert local.wait(0.1) == []
            subprocess.run(["true"], check=True)  # a child of somebody else's
            began = time.monotonic()
            assert local.wait(0.3) == []
            assert time.monotonic() - began >= 0.3
        assert signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_waiting_in_another_thread(tmp_path):
    """Where no signals come, it looks."""
    ended = {}

    def drive() -> None:
        jobs = [job(0, "raise SystemExit(3)")]
        with launcher(tmp_path, jobs) as local:
            ended.update(run_all(local, jobs))

    thread = threading.Thread(target=drive)
    thread.start()
    thread.join()
    assert ended[0].code == 3


def test_the_cores_are_shared_out(tmp_path, monkeypatch):
    show = "print(*(os.environ.get(name) for name in ('OMP_NUM_THREADS', 'MKL_NUM_THREADS', 'DLRUN_CORES')))"
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("MKL_NUM_THREADS", "1")
    monkeypatch.setattr("dlrun.sweep.launchers.local.cores", lambda: 12)
    jobs = [job(0, show), job(1, show, trainer={"num_threads": 7})]
    for at_once, expected in ((2, ["6 1 6", "7 7 6"]), (5, ["2 1 2", "7 7 2"]), (40, ["1 1 1", "7 7 1"])):
        with launcher(tmp_path / str(at_once), jobs, jobs=at_once) as local:
            run_all(local, jobs)
        assert [printed(tmp_path / str(at_once) / str(number)).strip() for number in range(2)] == expected
    with launcher(tmp_path / "alone", jobs) as local:  # as by hand
        run_all(local, jobs)
    assert printed(tmp_path / "alone" / "0") == "None 1 None\n"


DRIVER = """
import sys, time
sys.path[:0] = {paths!r}
from pathlib import Path
from launching import job, launcher
jobs = [job(number, script) for number, script in enumerate({scripts!r})]
with launcher(Path({folder!r}), jobs, jobs=9, **{options!r}) as local:
    for one in jobs:
        local.start(one)
    time.sleep(600)
"""


@contextmanager
def driven(folder: Path, scripts: list[str], **options: int) -> Iterator[subprocess.Popen[bytes]]:
    """A process that drives a sweep and knows nothing but to wait."""
    paths = [str(Path(__file__).parent)]
    script = DRIVER.format(paths=paths, scripts=scripts, folder=str(folder), options=options)
    with subprocess.Popen([sys.executable, "-c", script], start_new_session=True) as process:
        yield process
        process.kill()


def test_jobs_end_with_a_parent_that_was_killed(tmp_path):
    """One saves; one won't hear of it, and is killed with its child when its time is over."""
    watched = "from dlrun.sweep.launchers import parent\nparent.SECONDS = 1.0\nparent.end_with_parent()\n"
    saves = SAVES + watched.replace("parent.SECONDS = 1.0\n", "") + "open('ready', 'w').close(); time.sleep(600)"
    deaf = WITH_CHILD + watched + "signal.signal(signal.SIGTERM, signal.SIG_IGN); open('ready', 'w').close()\n"
    deaf += "time.sleep(600)"
    scripts = [f"open('pid', 'w').write(str(os.getpid()))\n{script}" for script in (saves, deaf)]
    with driven(tmp_path, scripts):
        until(lambda: all((tmp_path / str(number) / "ready").exists() for number in range(2)))
        pids = [int((tmp_path / name).read_text()) for name in ("0/pid", "1/pid", "1/child")]
        time.sleep(2 * INTERVAL)
        assert all(map(alive, pids))  # nobody goes before
    until(lambda: not any(map(alive, pids)))
    assert (tmp_path / "0" / "saved").exists()


# What a rank of a training is told; it finds its rendezvous there.
RANK = """
import socket, time
from dlrun.sweep.launchers.parent import end_with_parent
end_with_parent()
rank, size, port, run = (os.environ[name] for name in ("RANK", "WORLD_SIZE", "MASTER_PORT", "TORCHELASTIC_RUN_ID"))
socket.create_connection((os.environ["MASTER_ADDR"], int(port)), timeout=60)
open(f"rank{rank}.part", "w").write(f"{os.getpid()} {port} {run} {size}")
os.rename(f"rank{rank}.part", f"rank{rank}")
"""
# And what it does there: it waits for the word of each of its own, which must be of the same job.
MEETS = """
from datetime import timedelta
from torch.distributed import TCPStore
store = TCPStore(os.environ["MASTER_ADDR"], int(port), is_master=False, timeout=timedelta(seconds=60))
store.set(f"mine{rank}", os.path.basename(os.getcwd()))
met = [store.get(f"mine{other}").decode() for other in range(int(size))]
assert met == [os.path.basename(os.getcwd())] * 2, met
"""


def ranks(folder: Path) -> list[list[str]]:
    return [path.read_text().split() for path in sorted(folder.glob("rank?"))]


@pytest.mark.parametrize("meets", ["", pytest.param(MEETS, marks=pytest.mark.slow)])
def test_two_trainings_of_two_processes_at_once(meets, tmp_path):
    """Each has a rendezvous of its own; the exit code is that of the rank that failed."""
    fails = "while not os.path.exists('rank0'): time.sleep(0.01)\nraise SystemExit(5 if rank == '1' else 0)"
    jobs = [job(0, RANK + meets), job(1, RANK + meets + fails)]
    with launcher(tmp_path, jobs, jobs=2, processes=2) as local:
        ended = run_all(local, jobs)
    assert {number: one.code for number, one in ended.items()} == {0: 0, 1: 5}, printed(tmp_path / "0")
    told = [[told for _, *told in ranks(tmp_path / name)] for name in ("0", "1")]
    assert [len(both) for both in told] == [2, 2]
    for both in told:
        assert both[0] == both[1]
    (port, run, size), (other_port, other_run, _) = told[0][0], told[1][0]
    assert size == "2"
    assert port != other_port
    assert run != other_run


RANK_WAITS = SAVES.replace('"saved"', '"saved" + os.environ["RANK"]') + RANK + "time.sleep(600)"


def test_ranks_save_when_they_are_told_to_stop(tmp_path):
    with launcher(tmp_path, [job(0, RANK_WAITS)], processes=2) as local:
        local.start(job(0, RANK_WAITS))
        until(lambda: len(ranks(tmp_path / "0")) == 2)
        local.stop()
        assert [one.code for one in local.wait(60)] == [143]
    assert len(list((tmp_path / "0").glob("saved?"))) == 2


def test_ranks_end_with_the_agent_that_was_killed(tmp_path):
    with launcher(tmp_path, [job(0, RANK_WAITS)], processes=2) as local:
        local.start(job(0, RANK_WAITS))
        until(lambda: len(ranks(tmp_path / "0")) == 2)
        local.running[0].process.kill()
        assert [one.code for one in local.wait(60)] == [-9]
        until(lambda: not any(alive(int(pid)) for pid, *_ in ranks(tmp_path / "0")))


def test_ranks_save_when_the_parent_was_killed(tmp_path):
    with driven(tmp_path, [RANK_WAITS], processes=2):
        until(lambda: len(ranks(tmp_path / "0")) == 2)
    until(lambda: not any(alive(int(pid)) for pid, *_ in ranks(tmp_path / "0")))
    assert len(list((tmp_path / "0").glob("saved?"))) == 2
