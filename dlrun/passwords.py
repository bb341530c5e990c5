"""Passwords in addresses of servers: in no file that people hand on."""

from __future__ import annotations

import re

BEFORE_HOST = re.compile(r"(://[^/:@\s]*):.*@")
AMONG_OPTIONS = re.compile(r"([?&](?:password|passwd|sslpassword)=)[^&#'\"\s]*")
IN_TEXT = re.compile(r"(://[^/:@\s'\"]*):[^/\s'\"]+@")  # where other words follow on the same line


def masked(address: str) -> str:
    """Without the password of an address, before its host or among its options."""
    return AMONG_OPTIONS.sub(r"\1***", BEFORE_HOST.sub(r"\1:***@", address))


def masked_in(text: str) -> str:
    """Without the passwords of the addresses in a text."""
    return AMONG_OPTIONS.sub(r"\1***", IN_TEXT.sub(r"\1:***@", text))


def masked_in_added(diff: bytes) -> bytes:
    """Without those that a diff adds: it couldn't be applied if other lines than those were changed."""
    lines = diff.split(b"\n")
    return b"\n".join(
        masked_in(line.decode(errors="surrogateescape")).encode(errors="surrogateescape")
        if line.startswith(b"+") and (b"://" in line or b"=" in line)
        else line
        for line in lines
    )
