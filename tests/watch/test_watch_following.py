"""`dlrun watch` as a process: a real training followed, a terminal that it leaves clean, and nothing written."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from command_line import CommandLine
from made_up_runs import holding, made_up, row
from processes import PATIENCE, Dlrun, Process

from dlrun.locks import hold, release
from dlrun.locks import look as lock_of
from dlrun.runfolder import RunFolder
from dlrun.watch.following import look
from dlrun.watch.observation import Observer

LEAVES = b"\x1b[?1049l"  # the screen of its own
WORDS = ["model=mlp", "data=digits", "augment=none", "tracking=none", "trainer.enable_progress_bar=false"]
# Everything that opens a file for writing, changes a folder or takes a lock, told by Python itself.
AUDITED = """if True:
    import os, sys
    top, wrote = os.path.abspath(sys.argv[1]), []
    changes = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.utime"}
    changes |= {"os.chmod", "os.chown", "fcntl.lockf", "fcntl.flock"}
    def watch(event, arguments):
        if event == "open" and str(arguments[0]).startswith(top):
            mode, flags = arguments[1], arguments[2] or 0
            if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND) or (mode or "r")[0] in "wax":
                wrote.append((event, *map(str, arguments)))
        elif event in changes:
            wrote.append((event, *map(str, arguments)))
        elif event == "fcntl.fcntl" and arguments[1] in (6, 7):  # F_SETLK, F_SETLKW
            wrote.append((event, *map(str, arguments)))
    sys.addaudithook(watch)
    sys.argv[1:] = ["watch", "run=" + sys.argv[1], "once=true"]
    from dlrun.cli import main
    try:
        main()
    except SystemExit as end:
        heavy = {"torch", "numpy", "hydra", "wandb", "matplotlib", "sklearn"} & set(sys.modules)
        print(end.code, wrote, sorted(heavy), file=sys.stderr)
"""


def contents(path: Path) -> dict[str, tuple[str, int, int]]:
    """Everything in a folder, with its hash and when it was changed; and the folder itself."""
    found = {}
    for file in [path, *sorted(path.rglob("*"))]:
        text = hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else ""
        found[str(file)] = (text, file.stat().st_mtime_ns, file.stat().st_mode)
    return found


class Terminal:
    """`dlrun watch` on a terminal of its own."""

    def __init__(self, path: Path, *words: str, lines: int = 24, columns: int = 80):
        self.main, side = pty.openpty()
        self.resize(lines, columns)
        self.before = termios.tcgetattr(side)
        command = [sys.executable, "-m", "dlrun", "watch", f"run={path}", "every=0.1", *words]
        environment = {**os.environ, "TERM": "xterm-256color"}
        for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES"):
            environment.pop(name, None)
        self.process = subprocess.Popen(
            command, stdin=side, stdout=side, stderr=side, env=environment, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        self.side, self.output = side, b""

    def resize(self, lines: int, columns: int) -> None:
        fcntl.ioctl(self.main, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def until(self, text: str) -> bytes:
        """What comes up to the text, which has to come."""
        deadline, start = time.monotonic() + PATIENCE, len(self.output)
        while text.encode() not in self.output[start:]:
            assert time.monotonic() < deadline, self.output[start:].decode()
            if select.select([self.main], [], [], 0.05)[0]:
                self.output += os.read(self.main, 65536)
        return self.output[start:]

    def type(self, text: str) -> None:
        os.write(self.main, text.encode())

    def wait(self) -> int:
        while self.process.poll() is None:
            if select.select([self.main], [], [], 0.05)[0]:
                self.output += os.read(self.main, 65536)
        while select.select([self.main], [], [], 0.1)[0]:
            self.output += os.read(self.main, 65536)
        assert termios.tcgetattr(self.side) == self.before
        return self.process.returncode


@contextmanager
def on_a_terminal(path: Path, *words: str, **size: int) -> Iterator[Terminal]:
    terminal = Terminal(path, *words, **size)
    try:
        yield terminal
    finally:
        terminal.process.kill()
        terminal.process.wait()
        os.close(terminal.main)
        os.close(terminal.side)


def test_a_training_is_followed_until_it_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "run"
    fast = ["trainer.max_epochs=100000", "trainer.log_every_n_steps=1", "model.hidden_sizes=[8]"]
    process = Dlrun(tmp_path, *WORDS, *fast, f"hydra.run.dir={path}")
    observer, epochs = Observer(path), []
    try:
        process.until(lambda: (path / "config.yaml").exists())
        with on_a_terminal(path) as terminal:
            process.until(lambda: (path / "progress.json").exists())
            while len(set(epochs)) < 4:
                moment = look(observer)
                assert moment.status.word == "running"
                assert moment.status.more.startswith(f"process {process.pid} on ")
                epochs.append(moment.pace.epoch)
                assert moment.pace.epoch == len(moment.seen.history)
                process.until(lambda known=epochs[-1]: len(look(observer).seen.history) > known)
            assert epochs == sorted(epochs)
            assert moment.pace.steps == 100_000 * moment.seen.beat["steps_per_epoch"] == 100_000 * 21
            assert moment.pace.left > 100
            terminal.until("running")
            process.send(signal.SIGKILL)
            process.wait()
            terminal.until("killed")
            assert terminal.wait() == 0, "it shows how it ended, and ends"
            final = terminal.output.rpartition(LEAVES)[2].decode()
            assert "● killed" in final
            assert f"its process is gone (process {process.pid} on" in final
            assert f"to go on: dlrun resume run={path}"[:70] in final
    finally:
        process.kill()
    beat = json.loads((path / "progress.json").read_text())
    assert beat["step"] <= 21 * (len(look(observer).seen.history) + 1)
    before = contents(path)
    assert look(Observer(path)).status.word == "killed"
    assert contents(path) == before


def test_keys_sizes_and_ctrl_c(tmp_path: Path) -> None:
    path = made_up(tmp_path / "run", [row(n, 1 / n) for n in range(1, 8)])
    hold(path / ".lock")  # this process trains it, as far as anybody can tell
    try:
        with on_a_terminal(path) as terminal:
            terminal.until("val")
            assert "learning rate" not in terminal.output.decode()
            terminal.resize(40, 130)
            terminal.until("learning rate")
            with (path / "metrics.csv").open("a") as file:
                file.write(",".join(map(str, row(8, 0.0625))) + "\n")
            terminal.until("0.0625")
            terminal.type("xq")
            assert terminal.wait() == 0
            assert terminal.output.endswith(LEAVES + b"\x1b[?25h"), "nothing stays"
        with on_a_terminal(path) as terminal:
            terminal.until("running")
            terminal.type("\x03")
            assert terminal.wait() == 130
            assert terminal.output.endswith(LEAVES + b"\x1b[?25h")
    finally:
        release(path / ".lock")


def test_nothing_is_written_and_no_lock_is_taken(small_runs: Path, tmp_path: Path) -> None:
    running = made_up(tmp_path / "run", [row(1, 0.5)])
    process = Process(holding, running / ".lock")  # not this one, which would lose it in reading the file
    try:
        process.until(lambda: lock_of(running / ".lock"))
        for path, word in ((small_runs / "digits", "finished"), (running, "running")):
            folders = [path, *(file for file in path.rglob("*") if file.is_dir())]
            for file in (file for file in path.rglob("*") if file.is_file()):
                os.chmod(file, 0o444)
            for folder in folders:
                os.chmod(folder, 0o555)
            before = contents(path)
            done = subprocess.run([sys.executable, "-c", AUDITED, str(path)], capture_output=True, text=True)
            assert done.stderr == "0 [] []\n"
            assert f"status      {word}" in done.stdout
            assert contents(path) == before
            for folder in folders:
                os.chmod(folder, 0o755)
            for file in (file for file in path.rglob("*") if file.is_file()):
                os.chmod(file, 0o644)
        assert lock_of(running / ".lock")
    finally:
        process.kill()


def test_rows_that_vanish_files_that_are_replaced_and_a_row_that_is_cut_off(tmp_path: Path) -> None:
    path = made_up(tmp_path / "run", [row(n, 1 / n) for n in range(1, 8)])
    observer = Observer(path)
    assert look(observer).pace.epoch == 7
    made_up(path, [row(n, 1 / n) for n in range(1, 4)])  # it went back to a checkpoint
    assert look(observer).pace.epoch == 3
    with (path / "metrics.csv").open("a") as file:
        file.write("4,40,0.1,0.2")
    assert look(observer).pace.epoch == 3
    whole = made_up(tmp_path / "other", [row(n, 1 / n) for n in range(1, 10)], {"max_epochs": 50})
    for name in ("metrics.csv", "config.yaml"):
        os.replace(whole / name, path / name)
    moment = look(observer)
    assert (moment.pace.epoch, moment.pace.epochs) == (9, 50)
    (path / "metrics.csv").unlink()
    assert look(observer).pace.epoch == 0


def test_without_run_it_is_the_one_begun_last_even_without_epochs(dlrun: CommandLine) -> None:
    made_up(dlrun.folder / "outputs/a", [row(1, 0.5)], started="2026-11-24T01:00:00+00:00", status="finished")
    made_up(dlrun.folder / "outputs/b/c", started="2026-11-24T02:00:00+00:00", status="failed", error="early")
    told = dlrun("watch")
    assert told.code == 0
    assert told.out.startswith("run         outputs/b/c\n")
    assert "status      failed: early" in told.out
    assert "status      finished" in dlrun("watch", "run=outputs/a", "once=true").out


def test_what_watch_refuses(dlrun: CommandLine) -> None:
    (dlrun.folder / "sweep/0").mkdir(parents=True)
    (dlrun.folder / "sweep/sweep.json").write_text("{}")
    (dlrun.folder / "empty").mkdir()
    for words, said in (
        ([], "run=last: there is no run in outputs or multirun"),
        (["run=sweep"], "run: sweep is a sweep; see dlrun sweep status run=sweep, or watch one of its jobs"),
        (["run=empty"], "run: no run in empty: it has neither summary.json nor metrics.csv"),
        (["run=nowhere"], "run: no folder 'nowhere'"),
        (["every=0"], "every: expected a number >= 0.1 and <= 3600, got 0"),
        (["evry=1"], "evry: unknown option of watch; did you mean 'every'?"),
    ):
        told = dlrun("watch", *words)
        assert told.code == 2
        assert said in told.err, told.err
    assert dlrun("watch", "--help").out.startswith("dlrun watch [run=DIR|last]: a run on the terminal")


def test_a_run_that_ended_left_no_progress_json(small_runs: Path) -> None:
    runs = [path.parent for path in small_runs.glob("*/summary.json")]
    assert len(runs) == 6
    assert not [path for path in runs if RunFolder(path).progress.exists()]
