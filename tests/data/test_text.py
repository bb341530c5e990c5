from __future__ import annotations

import csv
import json
import re

import numpy as np
import pytest
import torch
from sklearn.model_selection import train_test_split

from dlrun.data.source import DataOptions
from dlrun.errors import UserError
from dlrun.registry import datasets

PAD, UNK = 0, 1
LABELS = ["spam", "ham"] * 15
TEXTS = [f'Word{i} the "{"cat" if i % 3 else "dog"}", the\nend.' for i in range(30)]


@pytest.fixture
def build(tmp_path):
    """build("reviews.csv", content, option=…) writes the file and makes the dataset of it."""

    def built(name: str, content: str | bytes, **options):
        (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
        return datasets.build("text_csv", {"file": name, **options}, DataOptions(tmp_path, 0.1, 0))

    return built


def table(path, delimiter: str = ",", **columns: list[str]) -> str:
    """What a spreadsheet would write."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerows([list(columns), *zip(*columns.values(), strict=True)])
    return path.read_bytes().decode()


def rows(texts: list[str], labels: list[str] = LABELS) -> str:
    """As JSON lines."""
    return "".join(json.dumps({"text": t, "label": la}) + "\n" for t, la in zip(texts, labels, strict=True))


def words(text: str) -> list[str]:
    """Words, and runs of punctuation, in lower case."""
    return re.findall(r"\w+|[^\w\s]+", text.lower())


def by_hand(labels=LABELS):
    """Positions of the train, val and test texts."""
    targets = np.array(labels)
    rest, test = train_test_split(np.arange(len(targets)), test_size=0.2, stratify=targets, random_state=0)
    train, val = train_test_split(rest, test_size=0.1, stratify=targets[rest], random_state=0)
    return train, val, test


def parts(source):
    splits = source.load()
    return splits.train, splits.val, splits.test


def vocabulary(source) -> dict[str, int]:
    return json.loads(source.spec.tokenizer)["model"]["vocab"]


def test_every_format_says_the_same(build, tmp_path):
    made = [
        build("a.csv", table(tmp_path / "x", ",", text=TEXTS, label=LABELS)),
        build("a.tsv", table(tmp_path / "x", "\t", label=LABELS, other=TEXTS[::-1], text=TEXTS)),
        build("a.jsonl", rows(TEXTS)),
        build("b.csv", "\ufeff" + table(tmp_path / "x", ",", text=TEXTS, label=LABELS)),  # as Excel saves UTF-8
        build("c.csv", table(tmp_path / "x", ",", body=TEXTS, kind=LABELS), text_column="body", label_column="kind"),
    ]
    for source in made:
        assert source.spec.class_names == ("ham", "spam")
        for part, chosen in zip(parts(source), by_hand(), strict=True):
            assert part.targets.tolist() == [["ham", "spam"].index(LABELS[i]) for i in chosen]
        train = parts(source)[0]
        # Quotes and line breaks came through: all of a train text's words are in the vocabulary.
        assert [train.show(i) for i in range(len(train))] == [" ".join(words(TEXTS[i])) for i in by_hand()[0]]
        assert source.spec == made[0].spec


def test_vocabulary_is_learned_on_the_train_split_alone(build):
    source = build("a.jsonl", rows(TEXTS))
    train, *rest = by_hand()
    vocab = vocabulary(source)
    assert vocab.keys() == {"[PAD]", "[UNK]"} | {word for i in train for word in words(TEXTS[i])}
    assert sorted(vocab.values()) == list(range(source.spec.vocab_size))
    assert (vocab["[PAD]"], vocab["[UNK]"]) == (PAD, UNK)
    assert vocab["the"] == 2  # the commonest comes first
    for part, chosen in zip(parts(source)[1:], rest, strict=True):
        for row, i in enumerate(chosen):
            ids = part.fetch(torch.tensor([row]))[0].tolist()
            assert ids == [UNK, *(vocab[word] for word in words(TEXTS[i])[1:])]  # word17 is nobody else's


def test_vocab_size_keeps_the_commonest(build):
    source = build("a.jsonl", rows([f"b a b a b w{i}" for i in range(30)]), vocab_size=4)
    assert vocabulary(source) == {"[PAD]": 0, "[UNK]": 1, "b": 2, "a": 3}
    assert source.spec.vocab_size == 4
    assert parts(source)[0].fetch(torch.tensor([0])).tolist() == [[2, 3, 2, 3, 2, UNK]]


def test_long_texts_are_cut_and_short_ones_padded(build):
    source = build("a.jsonl", rows(["a b c d e f"] * 15 + ["a"] * 15), max_length=4)
    train, vocab = parts(source)[0], vocabulary(source)
    assert source.spec.shape == (4,)
    chosen = by_hand()[0]
    long, short = np.argmax(chosen < 15), np.argmax(chosen >= 15)
    expected = [[vocab[word] for word in "abcd"], [vocab["a"], PAD, PAD, PAD]]
    assert train.fetch(torch.tensor([long, short])).tolist() == expected


def test_odd_texts_have_at_least_one_step(build):
    source = build("a.jsonl", rows(["", "  \n", "😀", "ﬁne ＡＢＣ", "Ünï"] * 6))
    train = parts(source)[0]
    shown = {i % 5: train.show(row) for row, i in enumerate(by_hand()[0])}
    assert shown == {0: "[UNK]", 1: "[UNK]", 2: "😀", 3: "fine abc", 4: "ünï"}  # one form for each letter (NFKC)
    assert all(train.fetch(torch.tensor([row])).ne(PAD).all() for row in range(len(train)))


def test_values_that_are_numbers_are_texts(build):
    lines = [json.dumps({"text": i, "label": i % 2}) for i in range(30)]
    source = build("a.jsonl", "\n".join(lines))
    assert source.spec.class_names == ("0", "1")
    assert parts(source)[0].show(0) == str(by_hand([i % 2 for i in range(30)])[0][0])


GOOD = "".join(f"good day,{label}\n" for label in LABELS)
GOOD_LINE = '{"text": "a", "label": "b"}\n'


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        # what isn't there
        ("a.csv", "texts,label\n" + GOOD, r"text_column: .*a\.csv, line 2: no column 'text'; did you mean 'texts'\?"),
        (
            "a.tsv",
            "text\tlabels\n a\tb\n",
            r"label_column: .*a\.tsv, line 2: no column 'label'; did you mean 'labels'\?",
        ),
        ("a.jsonl", GOOD_LINE + '{"text": "a"}\n', r"label_column: .*a\.jsonl, line 2: no column 'label'"),
        ("a.jsonl", GOOD_LINE + '["a", "b"]\n', r"text_column: .*a\.jsonl, line 2: no column 'text'"),
        ("a.csv", "", r"file: .*a\.csv has no rows"),
        ("a.csv", "text,label\n", r"file: .*a\.csv has no rows"),
        ("a.jsonl", "\n\n", r"file: .*a\.jsonl has no rows"),
        ("a.csv", "text,label\ngood,a\nbad,a\n", r"label_column: .* needs at least two classes, found \['a'\]"),
        # what can't be read
        ("a.txt", "text,label\n" + GOOD, r"file: expected a \.csv, \.tsv or \.jsonl file, got .*a\.txt"),
        ("a.jsonl", GOOD_LINE * 2 + '{"text": oops}\n', r"file: .*a\.jsonl, line 3: "),
        ("a.jsonl", GOOD_LINE + "\n\n" + '{"text": oops}\n', r"file: .*a\.jsonl, line 4: "),  # empty lines count
        ("a.csv", 'text,label\ngood,a\n"b"c,d\n', r"file: .*a\.csv, line 3: "),
        ("a.csv", 'text,label\n"two\nlines",a\n"b"c,d\n', r"file: .*a\.csv, line 4: "),
        ("a.csv", "text,label\nschön,a\n".encode("latin-1"), r"file: .*a\.csv.*utf-8"),
        ("a.jsonl", '{"text": "schön", "label": "a"}\n'.encode("latin-1"), r"file: .*a\.jsonl.*utf-8"),
    ],
)
def test_a_file_that_is_wrong(build, name, content, message):
    with pytest.raises(UserError, match=f"^data.{message}") as caught:
        build(name, content)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "text,label\ngood,a\nbad\n"),
        ("a.jsonl", GOOD_LINE * 2 + '{"text": "a", "label": null}\n'),
    ],
)
def test_a_row_without_a_value_is_told_from_a_missing_column(build, name, content):
    with pytest.raises(UserError, match=rf"^data\.label_column: .*{name}, line 3: ") as caught:
        build(name, content)
    assert "did you mean" not in str(caught.value)


def test_a_row_with_a_value_too_many_is_refused(build):
    with pytest.raises(UserError, match=r"^data\.file: .*a\.csv, line 3: "):  # or ' I say' would be its label
        build("a.csv", "text,label\ngood day,spam\ngood day, I say,ham\n" + GOOD)


def test_no_such_file(build, tmp_path):
    with pytest.raises(UserError, match=r"^data\.file: can't read .*nothing\.csv \(No such file"):
        datasets.build("text_csv", {"file": "nothing.csv"}, DataOptions(tmp_path, 0.1, 0))


def test_a_text_about_padding_has_none(build):
    source = build("a.jsonl", rows(["the [PAD] and [UNK] tokens"] * 30))
    train = parts(source)[0]
    assert train.show(0) == "the [ pad ] and [ unk ] tokens"
    assert train.lengths.tolist() == [9] * 21
