"""A W&B server on loopback that records what a real `wandb` client (0.31) sends it.

wandb-core, the Go process behind `import wandb`, talks to three addresses:

- POST /graphql creates runs, hands out upload addresses, commits artifacts;
- POST /files/{entity}/{project}/{run}/file_stream brings history, summary, console and the exit code, as lines;
- PUT to the addresses handed out brings whole files: config.yaml, output.log, tables, artifacts.

    with WandbServer() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", API_KEY)
        ...
        assert server.runs["3fa9c1"].exit_code == 0

Finish every run inside the `with` block, and set `finish_timeout`: wandb-core goes on asking a closed server, and the
process waits for it. The environment is read once: call `wandb.teardown()` before a second server in one process.
"""

import gzip
import json
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import quote, unquote

import yaml
from wandb_views import ENTITY, Views

Manners = Literal["works", "answers 500", "hangs", "refuses"]
API_KEY = "a" * 40  # the client refuses a shorter one before it asks the server
# The files of a run's stream, by what RunResumeStatus calls them.
STREAMS = {"history": "wandb-history.jsonl", "events": "wandb-events.jsonl", "log": "output.log"}
SUMMARY = "wandb-summary.json"


@dataclass
class RecordedRun:
    """What arrived for one run. `lines`: by the name of the streamed file; `files`: artifacts/NAME/… among them."""

    id: str
    project: str
    name: str  # what the web page shows, the client's displayName
    group: str | None = None
    sweep: str | None = None
    job_type: str | None = None
    notes: str | None = None
    tags: list[str] = field(default_factory=list)
    raw_config: dict[str, Any] = field(default_factory=dict)  # {"lr": {"value": 0.1}, "_wandb": …}
    lines: dict[str, list[str]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    exit_code: int | None = None
    complete: bool = False

    @property
    def config(self) -> dict[str, Any]:
        return {key: entry["value"] for key, entry in self.raw_config.items() if key != "_wandb"}

    @property
    def history(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines.get(STREAMS["history"], [])]

    @property
    def summary(self) -> dict[str, Any]:
        return json.loads(self.lines.get(SUMMARY, ["{}"])[-1])


@dataclass
class Sweep:
    """A W&B sweep: what `wandb sweep` sent, and what an agent is to do."""

    config: dict[str, Any]
    project: str
    entity: str | None
    id: str = "sweep123"
    todo: dict[str, dict[str, Any]] = field(default_factory=dict)  # run id → the values; the last one first
    hopeless: Callable[[RecordedRun | None], bool] = lambda run: False


class WandbServer(Views):
    """Serves while its `with` block runs. `runs` by id; `operations`: the names of GraphQL requests as they came."""

    def __init__(self) -> None:
        self.runs: dict[str, RecordedRun] = {}
        self.operations: list[str] = []
        super().__init__()
        self.sweep: Sweep | None = None
        self._artifacts: list[tuple[str, str]] = []  # (run id, artifact name); the position is the artifact's id
        self._lock = threading.Lock()  # the client uploads files in parallel
        self.manners: Manners = "works"
        self._turned = threading.Event()

    def __enter__(self) -> "WandbServer":
        self._open(port=0)
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        return self

    def __exit__(self, *_: object) -> None:
        self.turn("refuses")

    def turn(self, manners: Manners) -> None:
        """From now on it works, answers 500, hangs (takes requests, never answers), or refuses every connection."""
        before, self.manners = self.manners, manners
        self._turned.set()  # whoever hangs is let go, unanswered
        self._turned = threading.Event()
        if manners == "refuses" and before != "refuses":
            self._http.shutdown()
            self._http.server_close()
        elif manners != "refuses" and before == "refuses":
            self._open(self._http.server_port)

    def _open(self, port: int) -> None:
        self._http = _Server(("127.0.0.1", port), type("Handler", (_Handler,), {"recorder": self}))
        # shutdown() waits for the next poll: 0.5 s by default, per test.
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def hang(self) -> None:
        self._turned.wait()

    def answer(self, path: str, body: bytes) -> dict[str, Any]:
        with self._lock:
            if path == "/graphql":
                request = json.loads(body)
                operation = request["query"].replace("(", " ").split()[1]  # mutation CreateRunFiles (…
                self.operations.append(operation)
                # The rest is optional to the client (server features, organization): a missing field reads as "no".
                respond: Callable[[dict], dict] = getattr(self, f"_{operation}", lambda _: {})
                return {"data": respond(request.get("variables") or {})}
            if path.endswith("/file_stream"):
                self._receive_lines(self.runs[unquote(path.split("/")[4])], json.loads(body))
            elif path.startswith("/upload/"):
                _, _, run_id, name = path.split("/", 3)
                self.runs[unquote(run_id)].files[unquote(name)] = body
            return {}  # also to /sdk/otel/v1/*, the client's own telemetry: any 200 stops its retries

    def _receive_lines(self, run: RecordedRun, message: dict[str, Any]) -> None:
        for name, chunk in message.get("files", {}).items():
            start, content = chunk["offset"], chunk["content"]
            # By offset, not appended: a retried chunk comes twice, and a progress bar rewrites its line.
            run.lines.setdefault(name, [])[start : start + len(content)] = content
        run.complete = message.get("complete", False)  # in the last message only, so a resumed run is open again
        run.exit_code = message.get("exitcode")

    # Answers to GraphQL, one method per operation, under the client's name for it. ---------------------------

    def _Viewer(self, _: dict) -> dict:
        # Tables and artifacts verify the key with this; without a user id `run.log` raises AuthenticationError.
        user = {"id": "user", "entity": ENTITY["name"], "username": ENTITY["name"], "email": "", "flags": "{}"}
        return {"viewer": user | {"teams": {"edges": []}}}

    def _UpsertBucket(self, sent: dict) -> dict:
        """Makes a run, or changes one (null: unchanged). `init` needs id, name and project; they make its links."""
        run_id, is_new = sent["name"], sent["name"] not in self.runs
        run = self.runs.setdefault(run_id, RecordedRun(run_id, sent["project"], name=run_id))
        ours = {"displayName": "name", "groupName": "group", "jobType": "job_type", "notes": "notes", "tags": "tags"}
        for theirs, attribute in ours.items():
            if sent[theirs] is not None:
                setattr(run, attribute, sent[theirs])
        if sent["config"]:
            run.raw_config = json.loads(sent["config"])  # always the whole config
        run.sweep = sent.get("sweep") or run.sweep
        bucket = {"id": run_id, "name": run_id, "displayName": run.name, "project": self._project(run)}
        return {"upsertBucket": {"bucket": bucket, "inserted": is_new}}

    def _RunResumeStatus(self, sent: dict) -> dict:
        """Asked when `resume` is set: the client goes on at these line counts, after the last row's `_step`."""
        if (run := self.runs.get(sent["name"])) is None:
            return {}
        bucket: dict[str, Any] = {"id": run.id, "name": run.id, "displayName": run.name, "notes": run.notes}
        bucket |= {"tags": run.tags, "config": json.dumps(run.raw_config), "summaryMetrics": json.dumps(run.summary)}
        for kind, file in STREAMS.items():
            lines = run.lines.get(file, [])
            bucket |= {f"{kind}LineCount": len(lines), f"{kind}Tail": json.dumps(lines[-1:])}
        bucket["wandbConfig"] = json.dumps({"t": run.raw_config["_wandb"]["value"]["t"]})  # without "t": never started
        return {"model": self._project(run) | {"bucket": bucket}}

    def _project(self, run: RecordedRun) -> dict:
        return {"id": "project", "name": run.project, "entity": ENTITY}

    def _CreateRunFiles(self, sent: dict) -> dict:
        files = [{"name": name, "uploadUrl": self._upload_url(sent["run"], name)} for name in sent["files"]]
        return {"createRunFiles": {"runID": sent["run"], "uploadHeaders": [], "files": files}}

    def _upload_url(self, run_id: str, name: str) -> str:
        return f"{self.url}/upload/{quote(run_id)}/{quote(name)}"

    # Sweeps: `wandb sweep FILE` makes one, `wandb agent` asks what to do until it is told to exit. ---------------

    def _UpsertSweep(self, sent: dict) -> dict:
        self.sweep = Sweep(yaml.safe_load(sent["config"]), sent["projectName"], sent["entityName"])
        project = {"id": "project", "name": self.sweep.project, "entity": ENTITY}
        made = {"name": self.sweep.id, "project": project}
        return {"upsertSweep": {"sweep": made, "configValidationWarnings": []}}

    def _SweepWithRuns(self, sent: dict) -> dict:
        assert self.sweep is not None
        known = {"id": "sweep", "name": self.sweep.id, "config": yaml.safe_dump(self.sweep.config)}
        return {"project": {"sweep": known | {"runs": {"edges": []}}}}

    def _CreateAgent(self, _: dict) -> dict:
        return {"createAgent": {"agent": {"id": "agent"}}}

    def _Heartbeat(self, sent: dict) -> dict:
        """One run at a time; one that is to be stopped is, and is told so until it has ended."""
        assert self.sweep is not None
        commands: list[dict[str, Any]] = []
        running = json.loads(sent["runState"])
        if not running and self.sweep.todo:
            run_id, values = self.sweep.todo.popitem()
            args = {key: {"value": value} for key, value in values.items()}
            commands = [{"type": "run", "run_id": run_id, "program": self.sweep.config["program"], "args": args}]
        elif not running:
            commands = [{"type": "exit"}]
        for run_id in running:
            if self.sweep.hopeless(self.runs.get(run_id)):
                commands.append({"type": "stop", "run_id": run_id})
        return {"agentHeartbeat": {"agent": {"id": "agent"}, "commands": json.dumps(commands)}}

    # Artifacts (a logged table is one): created, its empty manifest, its files, the full manifest, committed.

    def _ArtifactType(self, _: dict) -> dict:
        return {"project": None}  # none of that name yet; here a missing field raises a ValidationError in `run.log`

    def _CreateArtifact(self, sent: dict) -> dict:
        self._artifacts.append((sent["input"]["runName"], sent["input"]["artifactCollectionName"]))
        # PENDING makes the client upload; COMMITTED would say that the content is known already.
        artifact = {"id": str(len(self._artifacts) - 1), "state": "PENDING", "artifactSequence": {}}
        return {"createArtifact": {"artifact": artifact}}

    def _CreateArtifactManifest(self, sent: dict) -> dict:
        file = {"id": "file", **self._artifact_upload(sent["artifactID"], sent["name"])}
        return {"createArtifactManifest": {"artifactManifest": {"id": sent["artifactID"], "file": file}}}

    def _CreateArtifactFiles(self, sent: dict) -> dict:
        def node(file: dict) -> dict:
            upload = self._artifact_upload(file["artifactID"], file["name"])
            return {"node": {"storagePath": file["name"], "artifact": {"id": file["artifactID"]}, **upload}}

        return {"createArtifactFiles": {"files": {"edges": [node(file) for file in sent["input"]["artifactFiles"]]}}}

    def _artifact_upload(self, artifact_id: str, name: str) -> dict:
        run_id, artifact = self._artifacts[int(artifact_id)]
        return {"uploadUrl": self._upload_url(run_id, f"artifacts/{artifact}/{name}"), "uploadHeaders": []}

    def _CommitArtifact(self, sent: dict) -> dict:
        return {"commitArtifact": {"artifact": {"id": sent["artifactID"], "digest": ""}}}


class _Handler(BaseHTTPRequestHandler):
    recorder: WandbServer
    protocol_version = "HTTP/1.1"  # the client keeps its connections

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        if self.recorder.manners == "hangs":
            self.recorder.hang()
            self.close_connection = True
            return
        if self.recorder.manners == "refuses":  # on a connection that was there before
            self.close_connection = True
            return
        if self.recorder.manners == "answers 500":
            self.send_error(500)
            return
        answer = json.dumps(self.recorder.answer(self.path, body)).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_PUT = do_POST

    def log_message(self, *_: object) -> None:
        """Nothing: the default writes a line per request to stderr."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True  # or closing waits for the client's open connections

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):  # wandb-core resets its connections when it ends
            super().handle_error(request, client_address)
