from __future__ import annotations

import json
import os
import platform
import string
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import numpy
import pytest
import torch

import dlrun
from dlrun.errors import UserError
from dlrun.runfolder import LARGEST_DIFF, RunFolder, git_state, new_run_id, versions


def strictly(path: Path):
    """The file as JSON without JavaScript's NaN and Infinity, which other languages refuse."""

    def refuse(constant: str):
        raise AssertionError(f"{constant} isn't JSON")

    return json.loads(path.read_bytes().decode("utf-8"), parse_constant=refuse)


def test_naming_a_folder_makes_nothing(tmp_path):
    folder = RunFolder(tmp_path / "run")
    assert folder.best == tmp_path / "run" / "checkpoints" / "best.pt"
    assert list(tmp_path.iterdir()) == []


def test_claimed_once(tmp_path):
    folder = RunFolder(tmp_path)
    folder.claim("abcd1234", ["dlrun", "seed=1"])
    begun = strictly(folder.summary)
    assert datetime.fromisoformat(begun.pop("started")).utcoffset() is not None
    assert begun == {
        "format": 1,
        "run_id": "abcd1234",
        "status": "running",
        "command": ["dlrun", "seed=1"],
        "slurm_job": None,
    }
    assert folder.checkpoints.is_dir()
    folder.best.write_bytes(b"precious")
    with pytest.raises(UserError) as caught:
        RunFolder(tmp_path).claim("efgh5678", [])
    assert str(caught.value) == f"hydra.run.dir: {tmp_path} already holds a run; choose another folder"
    assert strictly(folder.summary)["run_id"] == "abcd1234"
    assert folder.best.read_bytes() == b"precious"


def test_summary_is_json_whatever_is_in_it(tmp_path):
    folder = RunFolder(tmp_path)
    folder.claim("abcd1234", ["dlrun", "seed=1"])
    folder.update_summary(status="failed", error="Größe × 😀\n", seconds=1.5)
    best = {"val/loss": float("nan"), "list": [1, (float("inf"), -float("inf"), numpy.float64("nan"))], "none": None}
    told = folder.update_summary(status="completed", best=best)
    expected = {
        "format": 1,
        "run_id": "abcd1234",
        "status": "completed",
        "error": "Größe × 😀\n",
        "seconds": 1.5,
        "best": {"val/loss": None, "list": [1, [None, None, None]], "none": None},
    }
    found = strictly(folder.summary)
    assert {key: found[key] for key in expected} == expected
    assert "Größe × 😀".encode() in folder.summary.read_bytes()  # for people, not \u00f6
    assert folder.read_summary() == found
    assert told["error"] == expected["error"]


def test_summary_stays_whole_when_an_update_fails(tmp_path):
    folder = RunFolder(tmp_path)
    folder.claim("abcd1234", ["dlrun", "seed=1"])
    with pytest.raises(TypeError):
        folder.update_summary(status=object())
    assert strictly(folder.summary)["status"] == "running"
    assert sorted(os.listdir(tmp_path)) == [".lock", "checkpoints", "summary.json"]


def test_summary_is_utf8_in_every_locale(tmp_path):
    script = """if True:
        import sys, pathlib
        from dlrun.runfolder import RunFolder
        folder = RunFolder(pathlib.Path(sys.argv[1]))
        folder.claim("abcd1234", ["dlrun", "seed=1"])
        folder.update_summary(error="Gr\\u00f6\\u00dfe")
        folder.update_summary(status="failed")
    """
    plain = {**os.environ, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], env=plain, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert strictly(tmp_path / "summary.json")["error"] == "Größe"


def test_run_ids():
    ids = {new_run_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert {len(run_id) for run_id in ids} == {8}
    assert set("".join(ids)) == set(string.ascii_lowercase + string.digits)


def test_versions_are_those_that_run():
    found = versions()
    assert found["dlrun"] == dlrun.__version__
    assert found["python"] == platform.python_version()
    assert found["torch"] == torch.__version__.partition("+")[0]
    assert found["numpy"] == numpy.__version__
    expected = {"dlrun", "python", "platform", "torch", "torchvision", "hydra-core", "albumentations", "numpy", "wandb"}
    assert found.keys() == expected


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A real repository with one commit, as the working directory; call it to run git."""

    def git(*words: str) -> str:
        identity = ("-c", "user.name=A", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
        return subprocess.run(["git", *identity, *words], check=True, capture_output=True, text=True).stdout.strip()

    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))  # look no higher for a repository
    monkeypatch.chdir(tmp_path)
    git("init", "--quiet")
    (tmp_path / "model.py").write_text("a = 1\n")
    git("add", "model.py")
    git("commit", "--quiet", "-m", "first")
    return git


def test_git_state(repository, tmp_path, monkeypatch):
    first = repository("rev-parse", "HEAD")
    assert len(first) == 40
    assert git_state() == {"commit": first, "dirty": False}
    (tmp_path / "outputs.txt").write_text("not added to git: results, say")
    assert git_state() == {"commit": first, "dirty": False}
    (tmp_path / "model.py").write_text("a = 2\n")
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path / "folder")
    assert git_state() == {"commit": first, "dirty": True}
    monkeypatch.chdir(tmp_path)
    repository("add", "model.py")
    assert git_state() == {"commit": first, "dirty": True}
    repository("commit", "--quiet", "-m", "second")
    assert git_state() == {"commit": repository("rev-parse", "HEAD"), "dirty": False}


def test_no_git_state_without_a_commit_a_repository_or_git(repository, tmp_path, monkeypatch):
    empty = tmp_path / "empty"
    repository("init", "--quiet", "empty")
    monkeypatch.chdir(empty)
    assert git_state() is None
    monkeypatch.chdir(tmp_path)
    assert git_state() is not None
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert git_state() is None
    monkeypatch.undo()
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    (tmp_path / ".git").rename(tmp_path / "no_git")
    monkeypatch.chdir(tmp_path)
    assert git_state() is None


@pytest.mark.parametrize("text", ["[" * 50_000, "\n".join(" " * level + "a:" for level in range(2_000)), "- " * 20_000])
def test_a_config_nested_deeper_than_any_reader_goes_is_one_line(tmp_path, text):
    (tmp_path / "config.yaml").write_text(text)  # libyaml would end the process
    with pytest.raises(UserError, match=r"config\.yaml can't be read"):
        RunFolder(tmp_path).read_config()


def test_what_is_not_committed_lies_beside_the_summary(repository, tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    first = repository("rev-parse", "HEAD")
    assert folder.keep_git_state() == {"commit": first, "dirty": False}
    assert not folder.uncommitted.exists()
    changed = "a = 'é'\nstorage = 'postgresql://me:secret@host/db'  # of me@example.org\n"
    (tmp_path / "model.py").write_text(changed, encoding="utf-8")
    (tmp_path / "unknown.py").write_text("not added to git")
    repository("config", "diff.noprefix", "true")  # which git apply wouldn't take
    assert folder.keep_git_state() == {"commit": first, "dirty": True, "untracked": ["unknown.py"]}  # nor run/
    assert b"unknown" not in folder.uncommitted.read_bytes()
    (tmp_path / "model.py").write_text("a = 1\n")
    repository("apply", str(folder.uncommitted))  # git's own judgement
    assert (tmp_path / "model.py").read_text(encoding="utf-8") == changed.replace("secret", "***")
    repository("commit", "--quiet", "-a", "-m", "second")
    folder.keep_git_state()
    assert not folder.uncommitted.exists()  # it would be of another commit


def test_git_applies_the_changes_whatever_was_changed_and_however_its_user_likes_diffs(
    repository, tmp_path, monkeypatch
):
    (tmp_path / "below").mkdir()
    folder = RunFolder(tmp_path / "below")
    for key in ("diff.noprefix", "diff.relative"):
        repository("config", key, "true")
    (tmp_path / "model.py").write_text("a = 2\n")
    (tmp_path / "weights.bin").write_bytes(bytes(range(256)))
    repository("add", "weights.bin")
    monkeypatch.chdir(folder.path)
    folder.keep_git_state()
    repository("reset", "--quiet", "--hard")
    repository("-C", str(tmp_path), "apply", str(folder.uncommitted))
    assert (tmp_path / "model.py").read_text() == "a = 2\n"
    assert (tmp_path / "weights.bin").read_bytes() == bytes(range(256))


def test_a_large_diff_is_cut_at_the_end_of_a_line_and_says_so(repository, tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    (tmp_path / "model.py").write_text("".join(f"a{i} = {i}\n" for i in range(100_000)))
    folder.keep_git_state()
    text = folder.uncommitted.read_bytes()
    assert 990_000 < len(text) <= LARGEST_DIFF
    *lines, last = text.decode().splitlines()
    assert last.startswith("# cut off here")
    assert lines[-1].removeprefix("+a").split(" = ")[0] == lines[-1].rpartition(" = ")[2]  # whole


CLAIMING = """if True:
    import os, random, sys
    from pathlib import Path

    from dlrun import launch
    from dlrun.compose import compose, parse_arguments
    from dlrun.runfolder import RunFolder

    runs, ids = map(int, sys.argv[1:])
    if ids:
        launch.new_run_id = lambda: f"{random.SystemRandom().randrange(ids):08}"
    sys.argv[1:] = []
    cfg = compose(parse_arguments([]))
    ready, go = os.pipe(), os.pipe()
    children = []
    for _ in range(runs):
        children.append(os.fork())
        if children[-1] == 0:
            os.close(go[1])
            os.write(ready[1], b"x")
            os.read(go[0], 1)  # until the last one that could write has closed it
            run_id, *_ = launch._make_folder(cfg)
            RunFolder(Path(cfg.hydra.run.dir)).write_config({"run_id": run_id})
            os._exit(0)
    for _ in range(runs):
        os.read(ready[0], 1)
    os.close(go[1])
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * runs
"""


@pytest.mark.parametrize(("runs", "ids"), [(200, 0), (20, 30)], ids=["200", "those that draw the same id"])
def test_runs_that_begin_at_once_have_folders_of_their_own(tmp_path, runs, ids):
    """Forked, and let go at the same moment; the last ones draw from a generator of thirty ids."""
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
    words = [sys.executable, "-c", CLAIMING, str(runs), str(ids)]
    done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    folders = list((tmp_path / "outputs").glob("*/*"))
    assert len(folders) == runs
    told = [strictly(folder / "summary.json")["run_id"] for folder in folders]
    assert told == [folder.name[-8:] for folder in folders]
    assert told == [RunFolder(folder).read_config()["run_id"] for folder in folders]
    assert ids or len(set(told)) == runs
