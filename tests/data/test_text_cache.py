"""What is in the cache is what would be made, or it is made."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import subprocess
import sys
import time

import pytest
import torch
from sklearn.model_selection import train_test_split

from dlrun.data import text_cache, tokens
from dlrun.data.caches import cache_folder
from dlrun.data.source import DataOptions
from dlrun.registry import datasets

LABELS = ["spam", "ham"] * 15
TEXTS = [f'Word{i} the "{"cat" if i % 3 else "dog"}", the\nend.' for i in range(30)]


@pytest.fixture
def build(tmp_path):
    """build("reviews.csv", content, option=…) writes the file and makes the dataset of it."""

    def built(name: str, content: str, **options):
        (tmp_path / name).write_text(content)
        return datasets.build("text_csv", {"file": name, **options}, DataOptions(tmp_path, 0.1, 0))

    return built


def rows(texts: list[str]) -> str:
    return "".join(json.dumps({"text": t, "label": la}) + "\n" for t, la in zip(texts, LABELS, strict=True))


def parts(source):
    splits = source.load()
    return splits.train, splits.val, splits.test


def same(one, other) -> bool:
    """Whether two sources are of the same texts, to the bit."""
    pairs = list(zip(parts(one), parts(other), strict=True))
    return one.spec == other.spec and all(
        torch.equal(a.inputs, b.inputs) and torch.equal(a.targets, b.targets) and a.inputs.dtype == b.inputs.dtype
        for a, b in pairs
    )


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache folder of its own, and a count of how often texts were really tokenised."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    made = []
    monkeypatch.setattr(tokens, "learn", lambda *given, learn=tokens.learn: made.append(given) or learn(*given))
    return made


def files(path) -> list:
    return sorted((path / "cache" / "dlrun" / "texts").iterdir())


def test_the_cache_equals_what_was_tokenised(build, cache, tmp_path):
    fresh = build("a.jsonl", rows(TEXTS))
    again = build("a.jsonl", rows(TEXTS))
    assert len(cache) == len(files(tmp_path)) == 1
    assert same(fresh, again)
    moved = build("b.jsonl", rows(TEXTS), length_bucketing=False)  # the same content, and nothing of how it is batched
    assert len(cache) == 1
    assert same(fresh, moved)
    assert [part.bucketing for part in (*parts(again), *parts(moved))] == [True] * 3 + [False] * 3
    train = parts(again)[0]
    rest, _ = train_test_split(range(30), test_size=0.2, stratify=LABELS, random_state=0)
    chosen, _ = train_test_split(rest, test_size=0.1, stratify=[LABELS[i] for i in rest], random_state=0)
    assert [train.show(i) for i in range(len(train))] == [
        " ".join(re.findall(r"\w+|[^\w\s]+", TEXTS[i].lower())) for i in chosen
    ]
    assert files(tmp_path)[0].parent.stat().st_mode & 0o077 == 0  # other people's business it isn't


def test_whatever_matters_is_tokenised_anew(build, cache, tmp_path, monkeypatch):
    columns = [[t.replace(",", "").replace("\n", " ").replace('"', "") for t in TEXTS], LABELS, LABELS[::-1], LABELS]
    csv_rows = "\n".join(map(",".join, [("text", "label", "more", "other"), *zip(*columns, strict=True)]))
    build("a.csv", csv_rows)
    options = [{"text_column": "other"}, {"label_column": "more"}, {"vocab_size": 9}, {"max_length": 3}]
    for option in [*options, {"test_fraction": 0.3}]:
        build("a.csv", csv_rows, **option)
    build("a.csv", csv_rows.replace("cat", "cow"))
    build("a.tsv", csv_rows.replace(",", "\t"))
    for common in (DataOptions(tmp_path, 0.2, 0), DataOptions(tmp_path, 0.1, 1)):
        datasets.build("text_csv", {"file": "a.csv"}, common)
    monkeypatch.setattr("dlrun.data.text.version", lambda name: "99")
    build("a.csv", csv_rows)
    assert len(cache) == len(files(tmp_path)) == 11


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:20],
        lambda content: content[: len(content) // 2],
        lambda content: content[:-1],
        lambda content: content[:3000] + bytes([content[3000] ^ 1]) + content[3001:],
        lambda content: bytes([content[0] ^ 1]) + content[1:],
        lambda content: hashlib.blake2b(b"?", digest_size=32).digest() + b"?",
    ],
)
def test_a_damaged_cache_is_noticed_and_made_again(build, cache, tmp_path, damage, caplog):
    fresh = build("a.jsonl", rows(TEXTS))
    (path,) = files(tmp_path)
    path.write_bytes(damage(path.read_bytes()))
    assert same(build("a.jsonl", rows(TEXTS)), fresh)
    assert len(cache) == 2
    assert [record.getMessage() for record in caplog.records] == [f"{path} is damaged: the texts are tokenised again"]
    assert same(build("a.jsonl", rows(TEXTS)), fresh)
    assert len(cache) == 2


def test_another_texts_file_is_not_believed(build, cache, tmp_path):
    build("a.jsonl", rows(TEXTS))
    (first,) = files(tmp_path)
    fresh = build("b.jsonl", rows(TEXTS[::-1]))
    (second,) = set(files(tmp_path)) - {first}
    second.write_bytes(first.read_bytes())
    assert same(build("b.jsonl", rows(TEXTS[::-1])), fresh)
    assert len(cache) == 3


def test_a_cache_that_would_run_code_is_refused(build, cache, tmp_path):
    class Attack:
        def __reduce__(self):
            return (open, (str(tmp_path / "pwned"), "w"))

    fresh = build("a.jsonl", rows(TEXTS))
    (path,) = files(tmp_path)
    buffer = io.BytesIO()
    torch.save({"facts": Attack(), "made": {}}, buffer)
    path.write_bytes(hashlib.blake2b(buffer.getvalue(), digest_size=32).digest() + buffer.getvalue())
    assert same(build("a.jsonl", rows(TEXTS)), fresh)
    assert not (tmp_path / "pwned").exists()


def test_without_a_place_for_the_cache(build, cache, tmp_path, monkeypatch, caplog):
    (tmp_path / "a file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a file"))
    assert same(build("a.jsonl", rows(TEXTS)), build("a.jsonl", rows(TEXTS)))
    assert len(cache) == 2
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert re.fullmatch(r"the texts are tokenised at each start: .* can't be written \(Not a directory\)", said[0])


def test_the_cache_lies_where_the_specification_says(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # "must be ignored"
    assert cache_folder("texts") == tmp_path / ".cache/dlrun/texts"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder("texts") == tmp_path / ".cache/dlrun/texts"


def test_what_was_used_longest_ago_goes(build, cache, tmp_path, monkeypatch):
    monkeypatch.setattr(text_cache, "MOST_FILES", 3)
    for number in range(3):
        build("a.jsonl", rows(TEXTS), max_length=number + 1)
    oldest, *_ = sorted(files(tmp_path), key=lambda path: path.stat().st_mtime_ns)
    for age, path in enumerate(sorted(files(tmp_path), key=lambda path: -path.stat().st_mtime_ns), 1):
        os.utime(path, (time.time() - 1000 * age,) * 2)
    build("a.jsonl", rows(TEXTS), max_length=1)  # used: the oldest is the youngest now
    (tmp_path / "cache/dlrun/texts/.x.1.partial").touch()
    (tmp_path / "cache/dlrun/texts/.y.1.partial").touch()
    os.utime(tmp_path / "cache/dlrun/texts/.y.1.partial", (0, 0))
    build("a.jsonl", rows(TEXTS), max_length=9)
    left = files(tmp_path)
    assert len([path for path in left if path.suffix == ".tokens"]) == 3
    assert oldest in left
    assert [path.name for path in left if path.suffix == ".partial"] == [".x.1.partial"]
    assert len(cache) == 4
    monkeypatch.setattr(text_cache, "MOST_BYTES", 1)
    build("a.jsonl", rows(TEXTS), max_length=10)
    assert len([path for path in files(tmp_path) if path.suffix == ".tokens"]) == 1  # the newest, whatever its size


def test_a_cached_start_needs_neither_library(build, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    build("a.jsonl", rows(TEXTS))
    script = """
import sys
from pathlib import Path
from dlrun.data import text_cache, tokens
from dlrun.data.source import DataOptions
from dlrun.registry import datasets
splits = datasets.build("text_csv", {"file": "a.jsonl"}, DataOptions(Path(sys.argv[1]), 0.1, 0)).load()
print(len(splits.train), [name for name in ("tokenizers", "sklearn") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout == "21 []\n"
