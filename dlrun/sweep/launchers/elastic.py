"""torchrun for a job of a sweep: python -m dlrun.sweep.launchers.elastic PROCESSES COMMAND…

As `torchrun --standalone`, whose rendezvous has a port that the kernel chose and that its agent keeps, so that several
can begin at once. But it ends with its parent, and with the exit code of the rank that was the first to fail.
"""

from __future__ import annotations

import faulthandler
import os
import sys

from dlrun.sweep.launchers.parent import GRACE, PARENT, end_with_parent

SAVING = "300"  # seconds that ranks get to save when they are told to stop; torchrun's own 30 are few for a large model


def main() -> None:
    """Ends in SystemExit."""
    faulthandler.enable()
    end_with_parent()
    # The ranks are in sessions of their own, which nobody kills but their agent; they go when it has gone.
    os.environ.update({PARENT: str(os.getpid()), GRACE: "0"})
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", SAVING)
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    processes, *command = sys.argv[1:]
    try:
        run.run(run.parse_args(["--standalone", f"--nproc-per-node={processes}", "--no-python", *command]))
    except SignalException as error:
        raise SystemExit(128 + int(error.sigval)) from None
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        print(error, file=sys.stderr)
        raise SystemExit(failure.exitcode if failure.exitcode >= 0 else 128 - failure.exitcode) from None


if __name__ == "__main__":
    main()
