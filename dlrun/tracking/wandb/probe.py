"""Whether the W&B server answers: asked before W&B itself waits for it, which can't be told to stop."""

from __future__ import annotations

import ssl
import threading
import time
from http.client import HTTPException
from urllib.error import HTTPError, URLError
from urllib.request import ProxyHandler, Request, build_opener


class Probe(threading.Thread):
    """One request, in a thread that can be left alone: a name look-up has no time-out.

    `alive` is None until there is an answer. Any answer below 500 is a sign of life, a refused certificate too: what
    W&B makes of it is W&B's business.
    """

    def __init__(self, url: str, timeout: float, proxies: dict[str, str] | None = None):
        super().__init__(name="wandb-probe", daemon=True)
        self.url, self.timeout = url.rstrip("/") + "/graphql", timeout
        # A ProxyHandler that is given nothing takes the environment's.
        self.opener = build_opener(ProxyHandler(proxies or None))
        self.alive: bool | None = None
        self.began = time.monotonic()
        self.start()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    def run(self) -> None:
        headers = {"Content-Type": "application/json", "User-Agent": "dlrun"}
        request = Request(self.url, b'{"query": "query Viewer { viewer { id } }", "variables": {}}', headers)
        try:
            with self.opener.open(request, timeout=self.timeout):
                self.alive = True
        except HTTPError as error:
            self.alive = error.code < 500
        except URLError as error:
            self.alive = isinstance(error.reason, ssl.SSLError)
        except (OSError, HTTPException, ValueError):  # ValueError: no URL at all
            self.alive = False
