"""Several processes of one training: who is who, what they say to each other, and what they add up.

The only file that touches `torch.distributed`. One process is the plain case: it has no `Ranks`, and imports nothing
of it. Words go through torchrun's store (small, any Python value, interruptible by signals), tensors through a process
group: gloo on a CPU, nccl on CUDA.
"""

from __future__ import annotations

import os
import pickle
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from dlrun.errors import RunFailed, TrainingError, UserError
from dlrun.torchrun import local_size, number, world_size

if TYPE_CHECKING:
    import torch
    from torch import Tensor

T = TypeVar("T")
TIMEOUT = timedelta(minutes=30)  # for the slowest of the ranks to come to where the others wait
LOOK = 0.01  # seconds between two looks into the store
GRACE = 2.0  # seconds for the word of a rank that failed to come after its connections have gone
LAST_WORDS = 5.0  # seconds that rank 0 gets to write what it has to, when another rank failed
# Keys: what the first rank that failed said, rank 0's exit code, and how many know of it.
FAILURE, ENDED, HEARD = "dlrun/failure", "dlrun/ended", "dlrun/heard"


class RankFailed(TrainingError):
    """Another process of this training failed, or is gone."""


def begin() -> Ranks | None:
    """This process among those that torchrun started; None if it is the only one. Raises UserError.

    Returns when all of them have come this far.
    """
    size = world_size()
    if size == 1:
        return None
    missing = [name for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise UserError(f"WORLD_SIZE={size}, but no {', '.join(missing)}: start several processes with torchrun")
    if local_size() != size:
        raise UserError(
            f"WORLD_SIZE={size}, LOCAL_WORLD_SIZE={local_size()}: one training on several machines isn't supported "
            "yet; use torchrun --standalone --nproc-per-node=N"
        )
    if number("TORCHELASTIC_MAX_RESTARTS", 0) > 0:
        raise UserError("torchrun --max-restarts: isn't supported yet; leave it at 0, and use dlrun resume")
    from torch import distributed

    if not distributed.is_available():
        raise UserError(f"WORLD_SIZE={size}: this build of torch has no torch.distributed")
    try:
        store, rank, size = next(distributed.rendezvous("env://", timeout=TIMEOUT))
    except (RuntimeError, ValueError) as error:
        where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise UserError(f"no rendezvous at {where}: {str(error).partition(chr(10))[0]}") from error
    ranks = Ranks(rank, size, number("LOCAL_RANK", 0), store)
    ranks.gather(None)
    return ranks


def agreed(ranks: Ranks | None, decide: Callable[[], T]) -> T:
    """What `decide` gives, called in one process only: `Ranks.first`, or this one if it is alone."""
    return decide() if ranks is None else ranks.first(decide)


@contextmanager
def telling(ranks: Ranks | None) -> Iterator[None]:
    """The others hear of what is raised in the block, and end too."""
    try:
        yield
    except BaseException as error:
        if ranks is not None:
            ranks.fail(error)
            if isinstance(error, UserError) and not ranks.leads:
                raise RunFailed("told by rank 0", 2) from error
        raise
    finally:
        if ranks is not None:
            ranks.part_with()


class Ranks:
    """The processes of one training, seen from one of them. All of them call the methods in the same order.

    Whatever waits for another rank raises RankFailed when one has failed, with that one's own error.
    """

    def __init__(self, rank: int, size: int, local_rank: int, store: Any):
        self.rank, self.size, self.local_rank, self.store = rank, size, local_rank, store
        self.leads = rank == 0
        self.parent = os.getppid()
        self.rounds = 0

    @property
    def orphaned(self) -> bool:
        """Whether torchrun has gone: nobody would end the other ranks if one fails."""
        return os.getppid() != self.parent

    # Words

    def first(self, decide: Callable[[], T]) -> T:
        """What `decide` gives on rank 0, which alone calls it. What it raises there ends the others, silently.

        For what only one process may do, such as making the run's folder, and all have to know.
        """
        key = self._key()
        if self.leads:
            try:
                value = decide()
            except BaseException as error:
                self.fail(error)
                raise
            self.store.set(key, pickle.dumps(value))
            return value
        return pickle.loads(self._await(key))  # type: ignore[no-any-return]

    def gather(self, value: T) -> list[T]:
        """Everybody's value, by rank. Returns when the last has come."""
        key = self._key()
        self.store.set(f"{key}/{self.rank}", pickle.dumps(value))
        return [pickle.loads(self._await(f"{key}/{rank}")) for rank in range(self.size)]

    @contextmanager
    def one_first(self) -> Iterator[None]:
        """Rank 0 goes through the block before the others: what it downloads or caches, they find."""
        key = self._key()
        if not self.leads:
            self._await(key)
            yield
            return
        try:
            yield
        finally:
            self.store.set(key, b"")

    def fail(self, error: BaseException, report: str = "") -> None:
        """Tell the others; what the first one tells stands. `report` is a traceback, if there is more to say."""
        if isinstance(error, RankFailed | RunFailed):  # told already
            return
        said = {"rank": self.rank, "mistake": isinstance(error, UserError), "report": report}
        said["error"] = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        try:
            self.store.compare_set(FAILURE, "", pickle.dumps(said))
        except RuntimeError:  # the store has gone, with torchrun
            return

    def failure(self, patience: float = 0.0) -> dict[str, Any] | None:
        """What the first rank that failed has told, if that comes within `patience` seconds."""
        deadline = time.monotonic() + patience
        try:
            while not self.store.check([FAILURE]):
                if time.monotonic() >= deadline:
                    return None
                time.sleep(LOOK)
            said: dict[str, Any] = pickle.loads(self.store.get(FAILURE))
            return said
        except RuntimeError:
            return None

    def end(self, code: int) -> int:
        """The last word: rank 0's exit code, for all; it has written everything by then.

        A rank that failed lets the others know by closing its connections, and gives rank 0 some time to tell.
        """
        deadline = time.monotonic() + LAST_WORDS
        if code == 1:
            self._disconnect()
        if self.leads:
            with suppress(RuntimeError):
                self.store.set(ENDED, pickle.dumps(code))
            return code
        try:
            while not self.store.check([ENDED]):
                if code == 1 and time.monotonic() > deadline:
                    self._speak()
                    return code
                if self.orphaned or (code != 1 and self.failure() is not None):
                    return code or 1
                time.sleep(LOOK)
            return int(pickle.loads(self.store.get(ENDED)))
        except RuntimeError:
            return code or 1

    def part_with(self) -> None:
        """Without torchrun the store is rank 0's, which goes when the others have heard what is in it."""
        with suppress(RuntimeError):
            if not self.leads:
                self.store.add(HEARD, 1)
            elif os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
                deadline = time.monotonic() + GRACE
                while self.store.add(HEARD, 0) < self.size - 1 and time.monotonic() < deadline:
                    time.sleep(LOOK)

    def _speak(self) -> None:
        """Rank 0 can't, it seems."""
        said = self.failure()
        if said is not None and said["rank"] == self.rank:
            print(f"rank {self.rank} failed: {said['error']}\n{said['report']}", file=sys.stderr)

    def _key(self) -> str:
        self.rounds += 1
        return f"dlrun/{self.rounds}"

    def _await(self, key: str) -> bytes:
        """The word at `key`, when it is there. Signals are heard meanwhile."""
        try:
            while not self.store.check([key]):
                if (said := self.failure()) is not None:
                    self._give_up(said)
                time.sleep(LOOK)
            return bytes(self.store.get(key))
        except RuntimeError as error:
            raise RankFailed("torchrun has gone") from error

    def _give_up(self, said: dict[str, Any]) -> None:
        """Rank 0 has to tell of a failure; for the others there is nothing more to say."""
        if not self.leads:
            raise RunFailed("told by rank 0", 2 if said["mistake"] else 1)
        if said["mistake"]:
            raise UserError(f"rank {said['rank']}: {said['error']}")
        raise self._blamed(said)

    @staticmethod
    def _blamed(said: dict[str, Any]) -> RankFailed:
        error = RankFailed(f"rank {said['rank']} failed: {said['error']}")
        if said["report"]:
            error.add_note(said["report"])
        return error

    # Tensors

    def connect(self, device: torch.device) -> None:
        """Make the process group that adds up tensors of `device`."""
        from torch import distributed

        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        with self._listening():
            distributed.init_process_group(
                backend,
                store=distributed.PrefixStore("group", self.store),
                rank=self.rank,
                world_size=self.size,
                timeout=TIMEOUT,
            )

    @staticmethod
    def _disconnect() -> None:
        from torch import distributed

        with suppress(RuntimeError):
            if distributed.is_initialized() and distributed.get_backend() == "gloo":
                distributed.destroy_process_group()

    def sum_(self, tensor: Tensor) -> Tensor:
        """Replace `tensor` by its sum over the ranks, the same to the bit on all of them."""
        from torch import distributed

        with self._listening():
            distributed.all_reduce(tensor)
        return tensor

    def copy_(self, tensors: list[Tensor]) -> None:
        """Replace `tensors` by those of rank 0."""
        from torch import distributed

        with self._listening():
            for tensor in tensors:
                distributed.broadcast(tensor, 0)

    def collect(self, value: T) -> list[T]:
        """Everybody's value on rank 0, however large; nothing on the others."""
        from torch import distributed

        values: list[Any] = [None] * self.size
        with self._listening():
            distributed.gather_object(value, values if self.leads else None, 0)
        return values if self.leads else []

    @contextmanager
    def _listening(self) -> Iterator[None]:
        """What a broken connection means."""
        try:
            yield
        except RuntimeError as error:
            if (said := self.failure(GRACE)) is not None and said["rank"] != self.rank:
                raise self._blamed(said) from error
            reason = str(error).partition("\n")[0]
            gone = "another process of this training is gone, killed most likely"
            raise RankFailed(gone if "onnection" in reason else reason) from error
