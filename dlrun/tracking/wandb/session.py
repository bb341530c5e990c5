"""The thread that talks to W&B, so that nothing else waits for it: not the training, not the end of the process.

W&B's own process, wandb-core, writes what it is told to a file and uploads it. When it hangs on a server it can only
be killed; what it had in its file is there, and a second part of the run, offline, takes what comes after.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from dlrun import agent
from dlrun.tracking.wandb.core import core, core_is_dead, kill_core
from dlrun.tracking.wandb.parts import BEGUN, Part, numbers, parts, upload_command
from dlrun.tracking.wandb.probe import Probe

log = logging.getLogger("dlrun")
FINISH_TIMEOUT = 30.0  # seconds for the upload at the end, as long as the server answers
PATIENCE = 0.6  # seconds in which a server has to answer when the run is over
LAST_WORDS = 5.0  # seconds to close the file; it takes less than one
LOST = "can't be reached any more"
FLUSH = 0.2  # seconds between writes to the file; W&B's default of 15 is what a killed process would lose
MOST_RESTARTS = 3

AFTERWARDS = "checkpoint_step"  # is in the rows that are told when the training is over, and in no other
LAST = -1  # in place of a row's number: one above all that there are

Say = Callable[[Any, int | None], Any]  # is given the W&B run, and the number of its row in it


class Session(threading.Thread):
    """Eats what is put into `queue`: (row number, LAST or None; what to do with the W&B run). None is the end."""

    def __init__(self, folder: Path, options: dict[str, Any], mode: str, init_timeout: float, resumes: bool):
        super().__init__(name="wandb", daemon=True)
        self.folder, self.options, self.mode = folder, options, mode
        self.init_timeout, self.resumes = init_timeout, resumes
        self.queue: SimpleQueue[tuple[int | None, Say] | None] = SimpleQueue()
        self.recent: deque[tuple[float, int | None, Say]] = deque()  # may not be in the file yet
        self.told = -1  # number of the last row
        self.afterwards: list[int] | None = None  # numbers that the training doesn't know of
        self.online, self.given_up, self.uploaded, self.warned = False, False, False, False
        self.patience, self.restarts, self.exit_code = PATIENCE, 0, 0
        self.ending = threading.Event()
        self.run_: Any = None  # Thread has a `run`

    # What other threads call. ----------------------------------------------------------------------------------------

    def put(self, number: int | None, say: Say) -> None:
        if self.is_alive():
            self.queue.put((number, say))

    def end(self, exit_code: int) -> None:
        """Waits for the upload while the server answers; when it doesn't, the file is closed and that is all."""
        self.exit_code = exit_code
        self.queue.put(None)
        self.ending.set()
        deadline = time.monotonic() + FINISH_TIMEOUT
        while self.is_alive():
            probe = self._probe(self.patience) if self.online else None
            self.join(2 * FLUSH)
            if probe is not None and probe.alive is None:
                self.join(self.patience - 2 * FLUSH)
            late = time.monotonic() > deadline
            if self.online and self.is_alive() and (late or (probe is not None and not probe.alive)):
                self._give_up()
            if time.monotonic() > deadline + LAST_WORDS:
                break

    def report(self) -> None:
        if self.uploaded:
            log.info("W&B     %s", self.run_.url)
        elif self.run_ is not None:
            log.info("W&B     offline; to upload this run: %s", upload_command(self._parts()))

    def _give_up(self) -> None:
        if core() is not None:  # else it is just being started, and the next look will find it
            self.online, self.given_up = False, True
            self._warn(LOST)
            kill_core()

    # What the thread does. -------------------------------------------------------------------------------------------

    def run(self) -> None:
        try:
            if self._open():
                while (item := self.queue.get()) is not None:
                    number, say = item
                    self._tell(self._place(number), say)
                    if self.queue.empty():
                        self.ending.wait(FLUSH)  # in bursts: who is awake at each row takes the GIL from the training
                self._close()
        except Exception as error:
            log.debug("W&B", exc_info=True)
            self._warn(f"failed ({type(error).__name__}: {error})")
        finally:
            atexit.unregister(kill_core)

    def _open(self) -> bool:
        # Its reports on itself wait for the server for ten seconds, when the process ends.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        if not agent.asked_for(self.options["id"]):
            agent.forget()
        import wandb  # 0.7 s

        # `silent` given to init comes too late for the lines about logging in.
        self.wandb = wandb
        setup = wandb.setup(wandb.Settings(silent=True))
        self.settings = setup.settings
        mode = self._chosen_mode()
        if mode == "disabled":
            return False
        if mode != "offline" and not self._server_answers():
            self._warn("can't be reached")
            mode = "offline"
        try:
            self._init(mode)
        except Exception as error:
            if mode == "offline":
                raise
            self._warn(f"can't be reached ({str(error).splitlines()[0] if str(error) else type(error).__name__})")
            self._continue_offline()
        return True

    def _chosen_mode(self) -> str:
        mode = self.mode if self.mode != "auto" else os.environ.get("WANDB_MODE") or "online"
        mode = {"dryrun": "offline", "run": "online"}.get(mode, mode)
        if mode == "online" and not _has_credentials(self.wandb):
            return "offline"
        if mode == "online" and any(p.offline and not p.uploaded for p in self._parts()):
            # W&B joins parts in the order of their upload.
            log.info("W&B     offline, as this run's part before it isn't uploaded yet")
            return "offline"
        return mode

    def _server_answers(self) -> bool:
        probe = self._probe(self.init_timeout)
        while probe.is_alive() and probe.seconds < (PATIENCE if self.ending.is_set() else self.init_timeout):
            probe.join(0.05)
        if probe.alive:
            self.patience = max(PATIENCE, 2 * probe.seconds)  # a slow line isn't a dead one
        return probe.alive is True

    def _still_answers(self) -> bool:
        probe = self._probe(self.patience)
        probe.join(self.patience)
        return probe.alive is True

    def _probe(self, timeout: float) -> Probe:
        proxies = {"http": self.settings.http_proxy, "https": self.settings.https_proxy}
        return Probe(self.settings.base_url, timeout, {name: url for name, url in proxies.items() if url})

    def _init(self, mode: Any) -> None:
        earlier = self._parts()
        for part in earlier[-1:]:  # W&B would write over one of this second, and may not have written all of it
            while part.begun == time.strftime(BEGUN) or (part.age < 1 and not part.ended):
                time.sleep(0.05)
        before = {number: row for part in earlier for number, row in part.rows().items()}
        self.online = mode != "offline"
        atexit.register(kill_core)  # goes before W&B's own, which waits for the upload
        settings = self.wandb.Settings(
            silent=True,
            console="off",
            init_timeout=self.init_timeout,
            finish_timeout=FINISH_TIMEOUT,
            x_transaction_log_flush_interval=FLUSH,
        )
        resume: dict[str, Any] = {"resume": "allow"} if self.resumes or before else {}
        self.run_ = self.wandb.init(**self.options, **resume, mode=mode, settings=settings)
        self.told = max(before, default=-1)
        if self.afterwards is None:
            self.afterwards = sorted(number for number, row in before.items() if AFTERWARDS in numbers(row))
        self.run_.define_metric("epoch")
        self.run_.define_metric("step")
        self.run_.define_metric("*", step_metric="epoch")
        self.run_.define_metric("step/*", step_metric="step")
        if self.online:
            # A killed part may have rows in its file that it hadn't uploaded.
            there = self.run_.starting_step
            for number in sorted(number for number in before if number >= there):
                self.run_.log(numbers(before[number]), step=number, commit=True)
            self.told = max(self.told, there - 1)
            for part in earlier:
                part.mark_uploaded()  # what the server lacked is in this part too

    def _place(self, number: int | None) -> int | None:
        """Where a row goes: what was told after the training has taken numbers that a longer one comes to."""
        if number == LAST:
            return self.told + 1
        for taken in self.afterwards or ():
            if number is not None and number >= taken:
                number += 1
        return number

    def _tell(self, number: int | None, say: Say) -> None:
        if number is not None and number <= self.told:
            return  # by a part before this one
        while True:
            try:
                say(self.run_, number)
                break
            except Exception as error:
                gone = self.given_up or (self.online and not self._still_answers())
                self._warn(LOST if gone else f"failed ({type(error).__name__}: {error})")
                if not gone and not core_is_dead():
                    return  # it was this one thing that W&B doesn't take
                self._continue_offline()
        self.told = self.told if number is None else number
        now = time.monotonic()
        self.recent.append((now, number, say))
        while len(self.recent) > 16 and self.recent[0][0] < now - 10 * FLUSH:
            self.recent.popleft()

    def _continue_offline(self) -> None:
        self.restarts += 1
        if self.restarts > MOST_RESTARTS:
            raise RuntimeError(f"wandb-core ended {self.restarts} times")
        self._drop_core()
        self.given_up = False
        self.wandb.setup(self.wandb.Settings(silent=True))
        again = list(self.recent)
        self.recent.clear()
        self._init("offline")
        for _, number, say in again:
            self._tell(number, say)

    def _drop_core(self) -> None:
        self.online = False
        kill_core()  # one that waits for its server is no better than a dead one
        with suppress(Exception, SystemExit):  # it says that the connection is lost, and goes on to forget it
            self.wandb.teardown()

    def _close(self) -> None:
        """The end, with a second try when wandb-core was killed before all was in its file."""
        while True:
            try:
                self.run_.finish(exit_code=self.exit_code)
                break
            except Exception as error:
                self._warn(f"failed ({type(error).__name__}: {error})")
                self._drop_core()
                if self._part().ended:
                    return
                self._continue_offline()
        if self.online:
            self.uploaded = True
            self._part().mark_uploaded()

    def _parts(self) -> list[Part]:
        return parts(self.folder, self.options["id"])

    def _part(self) -> Part:
        """The one that is being written."""
        here = Path(self.run_.settings.sync_dir).name
        return next(part for part in self._parts() if part.file.parent.name == here)

    def _warn(self, what: str) -> None:
        if not self.warned:
            log.warning("W&B %s; the run goes on, its folder has everything", what)
        self.warned = True


def _has_credentials(wandb: Any) -> bool:
    """Whether W&B could log in (environment, netrc, its settings); asks no question and sends no request."""
    try:
        return bool(wandb.login(prompt=False, verify=False))
    except Exception as error:  # a key of the wrong length, say
        log.warning("W&B credentials can't be used (%s); this run is offline", str(error).splitlines()[0])
        return False
