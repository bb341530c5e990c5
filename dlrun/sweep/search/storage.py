"""Where a study is kept: a journal file, SQLite, PostgreSQL or MySQL.

A journal's lock is the operating system's, which lets go of it when a process dies; Optuna's own, a file that is left
behind by a kill, costs the next one half a minute.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from dlrun.errors import UserError
from dlrun.passwords import masked

KEY = "hydra.sweeper.storage"
SERVERS = {"postgresql": 5432, "mysql": 3306, "mariadb": 3306}
PATIENCE = 5  # seconds for a server to answer
DRIVERS = {
    "psycopg2": "psycopg2-binary",
    "psycopg": "'psycopg[binary]'",
    "MySQLdb": "mysqlclient",
    "pymysql": "pymysql",
}
TAKES_TIMEOUT = ("psycopg2", "psycopg", "mysqldb", "pymysql")


class FileLock:
    """A lock among processes, and a file that it is on; whoever wants it waits."""

    def __init__(self, path: str):
        self.path = path
        self.file: int | None = None

    def acquire(self) -> bool:
        self.file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        fcntl.lockf(self.file, fcntl.LOCK_EX)
        return True

    def release(self) -> None:
        if self.file is not None:
            os.close(self.file)
            self.file = None

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


def absolute(given: str) -> str:
    """The same storage from wherever it is opened: files get their whole path. Raises UserError."""
    if "://" not in given:
        return os.path.abspath(os.path.expanduser(given))
    kind = given.partition("://")[0].partition("+")[0]
    if kind not in (*SERVERS, "sqlite"):
        raise UserError(
            f"{KEY}: expected a file, or an address that begins with sqlite:///, postgresql:// or mysql://, "
            f"got '{masked(given)}'"
        )
    head, _, path = given.partition(":///")
    if kind == "sqlite":
        if not path or path.startswith(":memory:"):
            raise UserError(f"{KEY}: expected sqlite:///FILE, got '{given}'; other processes have to find it")
        return f"{head}:///{os.path.abspath(path)}"
    return given


@contextmanager
def told_as_one_line(where: str) -> Iterator[None]:
    """What Optuna, SQLAlchemy and the drivers raise, as a UserError without the password."""
    try:
        yield
    except (UserError, SystemExit):
        raise
    except ModuleNotFoundError as error:
        package = DRIVERS.get(str(error.name), str(error.name))
        raise UserError(f"{KEY}: {masked(where)} needs {error.name}: pip install {package}") from None
    except Exception as error:
        reason = " ".join((str(error).splitlines() or [""])[0].split()) or type(error).__name__
        password = _password(where)
        reason = reason.replace(password, "***") if password else reason
        raise UserError(f"{KEY}: {masked(where)} can't be used: {masked(reason)}") from None


def open_storage(where: str) -> Any:
    """Optuna's storage for what `absolute` gave. Raises UserError within seconds if it can't be used."""
    with told_as_one_line(where):
        return _journal(Path(where)) if "://" not in where else _database(where)


def asking(where: str) -> Any:
    """A lock for those who share a file: two that see one trial missing mustn't both begin it.

    A server numbers trials itself, and those beyond the last are given up again.
    """
    file = where.partition(":///")[2].partition("?")[0] if where.startswith("sqlite") else where
    return nullcontext() if "://" in file else FileLock(f"{file}.ask")


def _journal(path: Path) -> Any:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    if not path.parent.is_dir():
        raise UserError(f"{KEY}: no folder {path.parent}")
    lock = FileLock(f"{path}.lock")
    if path.exists():
        with lock:
            _check_journal(path)
    return JournalStorage(JournalFileBackend(str(path), lock_obj=lock))  # type: ignore[arg-type]


def _check_journal(path: Path) -> None:
    """Cut off half a line that a power cut left; raise UserError for a file that is something else."""
    content = path.read_bytes()
    whole, _, rest = content.rpartition(b"\n")
    first = whole.partition(b"\n")[0] or b"{}" * (not content)
    try:
        ours = not content or (whole and "op_code" in json.loads(first)) or rest.startswith(b'{"op_code"')
    except (ValueError, TypeError):
        ours = False
    if not ours:
        raise UserError(f"{KEY}: {path} isn't a journal of Optuna's; choose another file")
    if rest:
        os.truncate(path, len(content) - len(rest))


def _database(where: str) -> Any:
    from optuna.storages import RDBStorage
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import IntegrityError, ProgrammingError

    url = make_url(where)
    kind = url.get_backend_name()
    connect: dict[str, Any] = {"timeout": 60} if kind == "sqlite" else {}  # others write, too
    if kind in SERVERS:
        url.get_dialect().import_dbapi()
        if url.get_dialect().driver in TAKES_TIMEOUT:
            connect = {"connect_timeout": PATIENCE}
        if url.host is not None and not url.host.startswith("/"):
            socket.create_connection((url.host, url.port or SERVERS[kind]), timeout=PATIENCE).close()
    kwargs = {"connect_args": connect, "pool_pre_ping": kind in SERVERS}
    with asking(where):  # two that make the tables at once get into each other's way
        try:
            return RDBStorage(where, engine_kwargs=kwargs)
        except (IntegrityError, ProgrammingError):  # on a server that can't be helped: by now the other has made them
            return RDBStorage(where, engine_kwargs=kwargs)


def _password(where: str) -> str | None:
    from urllib.parse import urlsplit

    try:
        return urlsplit(where).password
    except ValueError:
        return None
