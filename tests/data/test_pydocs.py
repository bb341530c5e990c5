from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from dlrun.data import pydocs
from dlrun.data.source import DataOptions
from dlrun.errors import UserError
from dlrun.registry import datasets

COMMON = DataOptions(Path("data"), val_fraction=0.1, split_seed=0)


@pytest.fixture(scope="module")
def collected():
    return pydocs.paragraphs()


def test_real_paragraphs(collected):
    texts, labels, names = collected
    assert len(names) >= 5
    assert 2000 <= len(texts) <= 3000
    assert len(set(texts)) == len(texts) == len(labels)
    counts = torch.bincount(torch.tensor(labels), minlength=len(names))
    assert counts.min() >= 200
    assert counts.max() / counts.sum() < 0.3  # what always guessing the largest class would reach
    assert any("event loop" in text and names[label] == "asyncio" for text, label in zip(texts, labels, strict=True))


def test_a_linear_model_learns_it():
    """TF-IDF and logistic regression, on what a model of ours would get to see."""
    source = datasets.build("pydocs", {}, COMMON)
    splits = source.load()
    texts = {name: [split.show(i) for i in range(len(split))] for name, split in vars(splits).items()}
    assert [len(part) for part in texts.values()] == [len(split) for split in vars(splits).values()]
    tfidf = TfidfVectorizer(token_pattern=r"\S+", sublinear_tf=True)
    model = LogisticRegression(C=10.0, max_iter=300).fit(tfidf.fit_transform(texts["train"]), splits.train.targets)
    assert model.score(tfidf.transform(texts["test"]), splits.test.targets) >= 0.85
    assert source.spec.class_names == pydocs.PACKAGES
    assert source.spec.shape == (64,)
    assert source.spec.vocab_size <= 8000


ZOO = '''
"""The zoo keeps animals of many kinds.

>>> feed("the animals in the zoo every day")

    cage[0] = lion + 3*tiger - bear/2 {} () => none

Short phrase.

A shared   sentence stands in
both of these packages.
"""

open(__file__ + ".imported", "w")


class Lion:
    """Lions sleep for most of the day."""

    def roar(self):
        """Lions sleep for most of the day."""

        async def echo():
            """An echo comes back after some time."""


def feed(animals):
    "Give every animal what it likes most."
    """This is no docstring, just a text in the code."""
'''

FARM = '"""A shared sentence stands in both of these packages."""\n"""Not a docstring but six words long."""\n'


@pytest.fixture
def library(tmp_path, monkeypatch):
    """A standard library of two packages, which must not be imported."""
    files = {
        "zoo/__init__.py": ZOO,
        "zoo/b.py": '"""The second file of the zoo in order."""',
        "zoo/a/cage.py": '"""The first file of the zoo in order."""',
        "zoo/test/test_zoo.py": '"""Tests of the zoo are never collected here."""',
        "farm/__init__.py": FARM + 'raise ImportError("this must only be read")',
        "farm/cow.py": 'def milk():\n    """Milk the cow early in the morning."""\n',
    }
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    monkeypatch.setattr(pydocs, "PACKAGES", ("zoo", "farm"))
    monkeypatch.setattr("sysconfig.get_path", {"stdlib": str(tmp_path)}.__getitem__)
    return tmp_path


def test_made_up_packages(library):
    texts, labels, names = pydocs.paragraphs()
    assert list(zip(texts, labels, strict=True)) == [
        ("The zoo keeps animals of many kinds.", 0),
        ("Lions sleep for most of the day.", 0),  # once, though it is there twice
        ("An echo comes back after some time.", 0),
        ("Give every animal what it likes most.", 0),
        ("The first file of the zoo in order.", 0),
        ("The second file of the zoo in order.", 0),
        ("Milk the cow early in the morning.", 1),
    ]
    assert names == ["zoo", "farm"]
    assert not list(library.rglob("*.imported"))
    assert not {"zoo", "farm"} & sys.modules.keys()


@pytest.mark.parametrize("missing", ["farm", "barn"])
def test_a_library_without_sources(library, monkeypatch, missing):
    for path in library.glob("farm/*.py"):
        path.rename(path.with_suffix(".pyc"))
    monkeypatch.setattr(pydocs, "PACKAGES", ("zoo", missing))
    with pytest.raises(UserError, match=rf"^data: .* Python's own package '{missing}', .* no \.py files in {library}"):
        datasets.build("pydocs", {}, COMMON)


def test_a_folder_of_the_users_own_is_not_the_librarys(tmp_path, collected):
    for package in pydocs.PACKAGES:
        (tmp_path / package).mkdir()
    (tmp_path / "xml" / "mine.py").write_text('"""My own module about something else entirely."""')
    script = "import sys; sys.path.insert(0, ''); from dlrun.data.pydocs import paragraphs; print(len(paragraphs()[0]))"
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert int(done.stdout) == len(collected[0])
