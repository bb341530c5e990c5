"""Texts: a vocabulary learned on the train split with the `tokenizers` library, and token ids in memory."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TextIO

import torch
from annotated_types import Ge

from dlrun.data.pydocs import paragraphs
from dlrun.data.source import DataOptions, Source, Splits, TokenSplit, check_classes
from dlrun.errors import OptionError, UserError, choices
from dlrun.registry import Count, Share, datasets
from dlrun.spec import PAD, DataSpec

Words = Annotated[int, Ge(3)]


@datasets.register("pydocs")
def pydocs(
    common: DataOptions, *, vocab_size: Words = 8000, max_length: Count = 64, test_fraction: Share = 0.2
) -> Source:
    """Real English with no download: paragraphs of the standard library's docstrings, by package."""
    try:
        texts, labels, class_names = paragraphs()
    except FileNotFoundError as error:
        raise UserError(f"data: {error}") from error
    return _texts(common, texts, labels, class_names, vocab_size, max_length, test_fraction)


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
) -> Source:
    """Your own texts: a CSV, TSV or JSONL file with a text and a label column (data.file=…)."""
    path = common.root / file
    texts, names = _read_columns(path, text_column, label_column)
    class_names = sorted(set(names))
    check_classes(class_names, f"data.label_column: '{label_column}' of {path}")
    labels = [class_names.index(name) for name in names]
    return _texts(common, texts, labels, class_names, vocab_size, max_length, test_fraction)


@dataclass(frozen=True)
class Decoder:
    """Token ids back to words (a class, because loader processes have to be handed it)."""

    words: dict[int, str]

    def __call__(self, ids: list[int]) -> str:
        return " ".join(self.words[number] for number in ids if number != PAD)


def _texts(
    common: DataOptions,
    texts: Sequence[str],
    labels: Sequence[int],
    class_names: Sequence[str],
    vocab_size: int,
    max_length: int,
    test_fraction: float,
) -> Source:
    """Split first, then learn the vocabulary on the train split alone, then encode all."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    order = TokenSplit(torch.arange(len(texts)).unsqueeze(1), torch.tensor(labels))
    carved = common.carve(order, test_fraction)
    tokenizer = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()  # words, numbers, and runs of punctuation
    trainer = trainers.WordLevelTrainer(vocab_size=vocab_size, special_tokens=["[PAD]", "[UNK]"], show_progress=False)
    positions = [split.inputs.flatten().tolist() for split in (carved.train, carved.val, carved.test)]  # type: ignore[attr-defined]
    tokenizer.train_from_iterator([texts[i] for i in positions[0]], trainer)
    tokenizer.enable_truncation(max_length)
    decode = Decoder({number: word for word, number in tokenizer.get_vocab().items()})

    def encoded(chosen: list[int], targets: torch.Tensor) -> TokenSplit:
        tokens = torch.full((len(chosen), max_length), PAD, dtype=torch.int32)
        for row, encoding in enumerate(tokenizer.encode_batch([texts[i] for i in chosen])):
            # A text without a word (emoji only, say) still needs one step for a model to stand on.
            tokens[row, : max(len(encoding.ids), 1)] = torch.tensor(encoding.ids or [1], dtype=torch.int32)
        return TokenSplit(tokens, targets, decode)

    spec = DataSpec(
        "text",
        (max_length,),
        tuple(class_names),
        vocab_size=tokenizer.get_vocab_size(),
        tokenizer=tokenizer.to_str(),
    )
    splits = [encoded(p, s.targets) for p, s in zip(positions, (carved.train, carved.val, carved.test), strict=True)]
    return Source(spec, lambda: Splits(*splits))


class Unreadable(Exception):
    """Where and why a file can't be read: "line 3: …"."""


def _objects(file: TextIO) -> Iterator[tuple[int, Any]]:
    """(line number, value) of a file with JSON on each line; empty lines are skipped."""
    for number, line in enumerate(file, 1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except json.JSONDecodeError as error:
                raise Unreadable(f"line {number}: {error.msg} at column {error.colno}") from error


def _records(reader: csv.DictReader[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """(number of its last line, row) of a table."""
    try:
        for row in reader:
            if None in row:
                fields, columns = len(row) - 1 + len(row[None]), len(row) - 1
                raise Unreadable(
                    f"line {reader.line_num}: {fields} values for {columns} columns; quote what has commas"
                )
            yield reader.line_num, row
    except csv.Error as error:
        raise Unreadable(f"line {reader.reader.line_num}: {error}") from error  # DictReader's own is a row behind


def _read_columns(path: Path, text_column: str, label_column: str) -> tuple[list[str], list[str]]:
    """The two columns of a file with a header line (.csv, .tsv) or of one with an object per line (.jsonl)."""
    columns = {"text_column": text_column, "label_column": label_column}
    texts, labels = [], []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            suffix = path.suffix.lower()
            if suffix == ".jsonl":
                rows = _objects(file)
            elif suffix in (".csv", ".tsv"):
                rows = _records(csv.DictReader(file, delimiter="\t" if suffix == ".tsv" else ",", strict=True))
            else:
                raise OptionError("file", f"expected a .csv, .tsv or .jsonl file, got {path}")
            for line, row in rows:
                for option, column in columns.items():
                    if not isinstance(row, dict) or column not in row:
                        known = [str(key) for key in row] if isinstance(row, dict) else []
                        raise OptionError(option, f"{path}, line {line}: no column '{column}'{choices(column, known)}")
                    if row[column] is None or (option == "label_column" and row[column] == ""):
                        raise OptionError(option, f"{path}, line {line}: no value in column '{column}'")
                texts.append(str(row[text_column]))
                labels.append(str(row[label_column]))
    except OSError as error:
        raise OptionError("file", f"can't read {path} ({error.strerror})") from error
    except Unreadable as error:
        raise OptionError("file", f"{path}, {error}") from error
    except UnicodeDecodeError as error:
        raise OptionError("file", f"{path} isn't UTF-8: {error}") from error
    if not texts:
        raise OptionError("file", f"{path} has no rows")
    return texts, labels
