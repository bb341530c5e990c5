"""What counts as a sign of life."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from wandb_server import Manners, WandbServer

from dlrun.tracking.wandb.probe import Probe


@pytest.mark.parametrize(
    ("manners", "alive"), [("works", True), ("answers 500", False), ("refuses", False), ("hangs", False)]
)
def test_a_server_lives_if_it_answers(manners: Manners, alive: bool) -> None:
    with WandbServer() as server:
        server.turn(manners)
        probe = Probe(server.url, timeout=1.0 if manners == "hangs" else 10.0)
        probe.join()
    assert probe.alive is alive


@pytest.mark.parametrize(("code", "alive"), [(401, True), (404, True), (429, True), (502, False), (503, False)])
def test_it_needn_t_like_the_question(code: int, alive: bool) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_error(code)

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        probe = Probe(f"http://127.0.0.1:{server.server_port}/", timeout=10.0)
        probe.join()
    assert probe.alive is alive


def test_a_proxy_is_asked_instead() -> None:
    with WandbServer() as proxy:
        probe = Probe("http://wandb.invalid", timeout=10.0, proxies={"http": proxy.url})
        probe.join()
    assert probe.alive, "any answer of the proxy's"
