"""How long torch's CPU threads wait for each other with their hands on the wheel.

At the end of each parallel operation a thread of libgomp spins, 300,000 times if nobody says otherwise, before it lets
the core go. While something else wants the core too, the thread that all wait for doesn't get it: a small CNN on two
threads, beside one busy process, took 10 times as long as alone. 10,000 times is enough for threads that are all
running (no slower, on a machine of its own), and lets go before it hurts (3 times as long beside the busy process).
"""

from __future__ import annotations

import os

SPINS = "10000"


def spin_briefly() -> None:
    """For libraries that are loaded after this; what the user's environment says already stays."""
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = SPINS
