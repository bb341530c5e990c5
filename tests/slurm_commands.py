"""A SLURM of one machine, as its commands look from outside: `install` puts them on PATH.

Jobs are real processes, started by the script that sbatch was given; states lie in files of one folder. It knows arrays
and how many of one may run (`--array=0-5%2`), signals, requeues, and jobs that are lost with their node.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

COMMANDS = ("sbatch", "srun", "squeue", "sacct", "scancel", "scontrol")
WAITS_OR_RUNS = ("PENDING", "RUNNING")


def install(folder: Path) -> Path:
    """Make the commands in `folder`/bin; returns that."""
    (folder / "bin").mkdir()
    for name in COMMANDS:
        script = folder / "bin" / name
        script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -S {__file__} {folder} {name} "$@"\n')
        script.chmod(0o755)
    return folder / "bin"


def children(parent: int) -> list[int]:
    """The processes that `parent` has started, in sessions of their own or not."""
    return [int(word) for word in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


class Slurm:
    def __init__(self, folder: Path):
        self.folder = folder

    @contextmanager
    def jobs(self) -> Iterator[dict[str, dict[str, Any]]]:
        """Job id, of an array with the element's number → state, pid, …; written back afterwards."""
        with (self.folder / "lock").open("w") as lock:
            fcntl.lockf(lock, fcntl.LOCK_EX)
            path = self.folder / "jobs.json"
            jobs = json.loads(path.read_text()) if path.exists() else {}
            yield jobs
            path.write_text(json.dumps(jobs))

    def said(self, command: str, words: list[str]) -> None:
        with (self.folder / "said").open("a") as file:
            file.write(json.dumps([command, *words]) + "\n")

    def sbatch(self, words: list[str]) -> None:
        self.said("sbatch", words)
        script = Path(words[-1]).read_text()
        if "--partition=nowhere" in script:
            sys.exit("sbatch: error: invalid partition specified: nowhere")
        array = re.search(r"^#SBATCH --array='?0-(\d+)%(\d+)", script, re.M)
        with self.jobs() as jobs:
            name = str(100 + len({key.partition("_")[0] for key in jobs}))
            names = [f"{name}_{n}" for n in range(int(array[1]) + 1)] if array else [name]
            for key in names:
                jobs[key] = {
                    "state": "PENDING",
                    "script": script,
                    "limit": int(array[2]) if array else 1,
                    "restarts": 0,
                }
        for key in names:  # each has a process that waits for its turn, and outlives us
            subprocess.Popen(
                [sys.executable, "-S", __file__, str(self.folder), "slurmd", key],
                start_new_session=True,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        print(f"Submitted batch job {name}")

    def slurmd(self, words: list[str]) -> None:
        key = words[0]
        array, _, element = key.partition("_")
        while self._begun(key):
            environment = os.environ | {"SLURM_JOB_ID": str(int(array) * 1000 + int(element or 0)), "SLURM_NTASKS": "1"}
            if element:
                environment |= {"SLURM_ARRAY_JOB_ID": array, "SLURM_ARRAY_TASK_ID": element}
            else:
                environment["SLURM_JOB_ID"] = array
            with self.jobs() as jobs:
                job = jobs[key]
                environment |= {"SLURM_RESTART_COUNT": str(job["restarts"]), "SLURM_PROCID": "0", "FAKE_KEY": key}
                script = self.folder / f"{key}.sh"
                script.write_text(job["script"])
            code = subprocess.call(["bash", str(script)], env=environment, start_new_session=True)
            with self.jobs() as jobs:
                job = jobs[key]
                if job.pop("requeue", False):
                    job |= {"state": "PENDING", "restarts": job["restarts"] + 1, "task": None}
                elif job["state"] in WAITS_OR_RUNS:
                    job["state"] = "FAILED" if code else "COMPLETED"

    def _begun(self, key: str) -> bool:
        """Wait for its turn; False when it was cancelled."""
        while True:
            with self.jobs() as jobs:
                if jobs[key]["state"] != "PENDING":
                    return False
                same = {name: job for name, job in jobs.items() if name.partition("_")[0] == key.partition("_")[0]}
                running = sum(job["state"] == "RUNNING" for job in same.values())
                first = next(name for name, job in same.items() if job["state"] == "PENDING")
                if key == first and running < jobs[key]["limit"] and not (self.folder / "full").exists():
                    jobs[key]["state"] = "RUNNING"
                    return True
            time.sleep(0.02)

    def srun(self, words: list[str]) -> None:
        key, array = os.environ["FAKE_KEY"], os.environ["FAKE_KEY"].partition("_")
        files: dict[str, str] = {}
        while words[0].startswith("--"):
            option = words.pop(0)
            if option in ("--output", "--error"):
                name = words.pop(0).replace("%j", key).replace("%t", "0")
                files[option] = name.replace("%A", array[0]).replace("%a", array[2])
        with open(files["--output"], "a") as output, open(files.get("--error", files["--output"]), "a") as error:
            task = subprocess.Popen(words, stdout=output, stderr=error)
        with self.jobs() as jobs:
            jobs[key]["task"] = task.pid
        sys.exit(task.wait() % 256)

    def squeue(self, words: list[str]) -> None:
        self.said("squeue", words)
        with self.jobs() as jobs:
            print("\n".join(key for key, job in jobs.items() if job["state"] in WAITS_OR_RUNS))

    def sacct(self, words: list[str]) -> None:
        self.said("sacct", words)
        with self.jobs() as jobs:
            print("JobID|State|NodeList")
            for key, job in jobs.items():
                print(f"{key}|{job['state']}|here")

    def scancel(self, words: list[str]) -> None:
        self.said("scancel", words)
        options = dict(word.partition("=")[::2] for word in words if word.startswith("--"))
        with self.jobs() as jobs:
            for key in (word for word in words if not word.startswith("--")):
                job = jobs[key]
                if job["state"] == "RUNNING" and "--state" not in options and job.get("task"):
                    with suppress(ProcessLookupError):
                        os.kill(job["task"], signal.Signals[f"SIG{options.get('--signal', 'KILL')}"])
                chosen = job["state"] == options.get("--state", job["state"])
                if job["state"] in WAITS_OR_RUNS and "--signal" not in options and chosen:
                    job["state"] = "CANCELLED by 0"

    def scontrol(self, words: list[str]) -> None:
        self.said("scontrol", words)
        with self.jobs() as jobs:
            jobs[words[1]]["requeue"] = True

    def state(self, key: str) -> dict[str, Any]:
        with self.jobs() as jobs:
            return dict(jobs.get(key, {"state": None}))

    def lose(self, key: str) -> None:
        """Its node dies, and all that ran there."""
        with self.jobs() as jobs:
            jobs[key]["state"] = "NODE_FAIL"
            for process in [jobs[key]["task"], *children(jobs[key]["task"])]:  # all that was on the node
                os.kill(process, signal.SIGKILL)

    def end(self) -> None:
        """Nothing of it goes on."""
        with self.jobs() as jobs:
            for job in jobs.values():
                if job["state"] == "RUNNING" and job.get("task"):
                    with suppress(ProcessLookupError):
                        os.kill(job["task"], signal.SIGKILL)
                job["state"] = "CANCELLED by 0"

    def calls(self, command: str) -> list[list[str]]:
        path = self.folder / "said"
        lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [words for name, *words in lines if name == command]


if __name__ == "__main__":
    getattr(Slurm(Path(sys.argv[1])), sys.argv[2])(sys.argv[3:])
