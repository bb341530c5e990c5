"""Texts: read, tokenised once and cached, and held as token ids in memory."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge

from dlrun.data import columns, source, stratified, tokens
from dlrun.data import pydocs as docstrings
from dlrun.data.columns import read_columns
from dlrun.data.pydocs import paragraphs
from dlrun.data.source import ArraySplit, DataOptions, Source, Splits, TokenSplit, check_classes, labelled
from dlrun.data.text_cache import cached
from dlrun.errors import OptionError, UserError
from dlrun.registry import Count, Share, datasets
from dlrun.spec import DataSpec

Words = Annotated[int, Ge(3)]
Texts = tuple[list[str], list[int], list[str]]  # texts, labels (indices into the names), class names


@datasets.register("pydocs")
def pydocs(
    common: DataOptions,
    *,
    vocab_size: Words = 8000,
    max_length: Count = 64,
    test_fraction: Share = 0.2,
    length_bucketing: bool = True,
) -> Source:
    """Real English with no download: paragraphs of the standard library's docstrings, by package."""
    try:
        facts = {"pydocs": docstrings.content(), "packages": docstrings.PACKAGES}
    except FileNotFoundError as error:
        raise UserError(f"data: {error}") from error
    return _texts(common, facts, paragraphs, vocab_size, max_length, test_fraction, length_bucketing)


@datasets.register("text_csv")
def text_csv(
    common: DataOptions,
    *,
    file: str,
    text_column: str = "text",
    label_column: str = "label",
    vocab_size: Words = 10_000,
    max_length: Count = 256,
    test_fraction: Share = 0.2,
    length_bucketing: bool = True,
) -> Source:
    """Your own texts: a CSV, TSV or JSONL file with a text and a label column (data.file=…)."""
    path = common.root / file
    content = _content(path)

    def read() -> Texts:
        texts, names = read_columns(path, text_column, label_column)
        if _content(path) != content:
            raise OptionError("file", f"{path} was changed while it was read")
        class_names = sorted(set(names))
        if common.known is None:
            check_classes(class_names, f"data.label_column: '{label_column}' of {path}")
        numbers = {name: number for number, name in enumerate(class_names)}
        return texts, [numbers[name] for name in names], class_names

    facts = {"file": content, "kind": path.suffix.lower(), "columns": [text_column, label_column]}
    return _texts(common, facts, read, vocab_size, max_length, test_fraction, length_bucketing)


def _content(path: Path) -> str:
    """What the file holds, as 32 hex digits."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    except OSError as error:
        raise OptionError("file", f"can't read {path} ({error.strerror})") from error


def _texts(
    common: DataOptions,
    facts: Mapping[str, Any],
    read: Callable[[], Texts],
    vocab_size: int,
    max_length: int,
    test_fraction: float,
    length_bucketing: bool,
) -> Source:
    """`read`, split and tokenised, or what came of it when `facts` and all options were the same."""
    options = (vocab_size, max_length, test_fraction, common.val_fraction, common.split_seed)
    made = cached(
        {**facts, "options": options, "known": _known(common), "made by": _makers()},
        lambda: _tokenised(common, read(), vocab_size, max_length, test_fraction),
    )
    spec = DataSpec(
        "text", (max_length,), tuple(made["class_names"]), vocab_size=made["vocab_size"], tokenizer=made["tokenizer"]
    )
    decode = tokens.Decoder(made["tokenizer"])

    def load() -> Splits:
        parts = [
            TokenSplit(tokens.padded(ids, lengths, max_length), targets, decode, length_bucketing)
            for ids, lengths, targets in made["splits"]
        ]
        return Splits(*parts)

    return Source(spec, load)


def _tokenised(
    common: DataOptions, read: Texts, vocab_size: int, max_length: int, test_fraction: float
) -> dict[str, Any]:
    """Split first, then learn the vocabulary on the train split alone, then encode all."""
    texts, labels, class_names = read
    known = common.known
    numbers = labelled(class_names, known, "data")
    targets = torch.tensor([numbers[label] for label in labels])
    carved = common.carve(ArraySplit(torch.arange(len(texts)), targets), test_fraction)
    parts = [
        ([texts[i] for i in split.inputs.tolist()], split.targets)  # type: ignore[attr-defined]
        for split in (carved.train, carved.val, carved.test)
    ]
    if known is None or known.tokenizer is None:
        tokenizer = tokens.learn(parts[0][0], vocab_size, max_length)
    else:
        tokenizer = tokens.learned(known.tokenizer)
    return {
        "class_names": list(class_names if known is None else known.class_names),
        "vocab_size": tokenizer.get_vocab_size(),
        "tokenizer": tokenizer.to_str(),
        "splits": [(*tokens.encode(tokenizer, chosen), targets) for chosen, targets in parts],
    }


def _known(common: DataOptions) -> Any:
    """What isn't learned from these texts."""
    return None if common.known is None else [common.known.class_names, common.known.tokenizer, common.whole]


def _makers() -> dict[str, str]:
    """Whoever has a part in what becomes of a text, by version; our own part by its source."""
    ours = hashlib.blake2b(digest_size=16)
    for module in (sys.modules[__name__], columns, docstrings, source, stratified, tokens):
        ours.update(Path(str(module.__file__)).read_bytes())
    return {
        "dlrun": ours.hexdigest(),
        "python": sys.version,
        "numpy": np.__version__,
        "tokenizers": version("tokenizers"),
    }
