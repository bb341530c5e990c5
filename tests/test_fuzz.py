"""Whatever is typed: a run, or exit code 2 with one clear line; never a traceback, never a half-made folder."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from command_line import CommandLine, Result
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

CONF = Path(__file__).resolve().parent.parent / "conf"

# Whichever of the two limits a word takes away, the other one ends the training.
SHORT = ["tracking=none", "trainer.max_epochs=3", "trainer.max_steps=4"]
TABLE = ["data=blobs", "data.size=60", "data.features=5", "data.informative=4", "data.num_classes=2"]
FAKE = ["data=fake", "data.size=40", "data.num_classes=2"]
IMAGES = [*FAKE, "data.shape=[1,8,8]"]
TEXTS = [*FAKE, "data.modality=text", "data.sequence_length=5", "data.vocab_size=9"]
DIGITS = ["data=digits", "data.limit=40", "augment=none"]
CSV = ["data=text_csv", "data.file=reviews.csv", "data.max_length=5"]
LINEAR, MLP = ["model=perceptron"], ["model=mlp", "model.hidden_sizes=[4]"]
CNN = ["model=cnn", "model.channels=[2]", "model.hidden_size=4"]
SPEEDNET = ["model=speednet", "model.widths=[2]"]
RNN, LSTM = ([f"model={name}", "model.embedding_dim=4", "model.hidden_size=4"] for name in ("rnn", "lstm"))
TRANSFORMER = ["model=transformer", "model.d_model=8", "model.d_ff=8", "model.num_layers=1"]
TOP = [*LINEAR, *TABLE]


def listed(text: str) -> list[str]:
    return text.split()


def homes(group: str, names: str, words: list[str]) -> dict[str, list[str]]:
    return {name: [*words, f"{group}={name}"] for name in listed(names)}


# A tiny run with each choice of each group.
HOMES = {
    "model": {
        "perceptron": TOP,
        "mlp": [*MLP, *TABLE],
        "cnn": [*CNN, *IMAGES],
        "speednet": [*SPEEDNET, *IMAGES],
        "rnn": [*RNN, *IMAGES],
        "lstm": [*LSTM, *TEXTS],
        "transformer": [*TRANSFORMER, *IMAGES],
    },
    "data": {
        "blobs": TOP,
        "breast_cancer": [*LINEAR, "data=breast_cancer"],
        "digits": [*LINEAR, *DIGITS],
        "fake": [*LINEAR, *IMAGES],
        "text_csv": [*LINEAR, *CSV],
    },
    "augment": homes("augment", "none light standard strong affine tensor", [*LINEAR, *DIGITS[:2]]),
    "task": {"classification": TOP},
    "optimizer": homes(
        "optimizer", "sgd adam adamw nadam radam rmsprop adagrad adadelta adafactor muon", [*MLP, *TABLE]
    ),
    "scheduler": homes(
        "scheduler", "none step multistep exponential cosine plateau onecycle linear polynomial warm_restarts", TOP
    ),
    "precision": homes("precision", "fp32 tf32 bf16 bf16_weights fp16", TOP),
    "trainer": {"default": TOP},
}
# What compiles, downloads, talks to a server, or takes seconds to import.
LEFT_OUT = listed(
    "compile torchvision timm mnist fashion_mnist cifar10 cifar100 image_folder pydocs wandb tensorboard experiment="
)


def keys() -> Iterator[tuple[str, list[str]]]:
    """Every key of conf/ that a tiny run has, with the words of that run."""
    for key, value in yaml.safe_load((CONF / "config.yaml").read_text()).items():
        if key not in ("defaults", "hydra", "sweep"):
            yield key, TOP
            yield from ((f"{key}.{option}", TOP) for option in value) if isinstance(value, dict) else ()
    for group, choices in HOMES.items():
        yield group, TOP
        for choice, words in choices.items():
            options = yaml.safe_load((CONF / group / f"{choice}.yaml").read_text())
            yield from ((f"{group}.{option}", words) for option in options if option != "defaults")


KEYS = list(keys())
HYDRAS = listed("""
    run run.dir output_subdir job job.name job.chdir job.num job.id job.env_set job.env_copy job_logging
    job_logging.version job_logging.root.level job_logging.handlers callbacks mode verbose searchpath runtime.choices
    launcher sweeper sweeper.params sweep.subdir
""")
NAMES = sorted({key for key, _ in KEYS} | {f"hydra.{key}" for key in HYDRAS})
GROUPS = [*HOMES, *listed("tracking experiment debug hydra/job_logging hydra/launcher hydra/output hydra")]
CHOICES = [f"{group}={choice}" for group, choices in HOMES.items() for choice in choices]
CHOICES += [f"{group}={choice}" for group in GROUPS for choice in listed("none null default cnn fast disabled")]
FLAGS = listed("""
    --help -h --version --hydra-help --cfg=job --cfg=hydra --cfg=all --cfg --resolve --info --info=all --info=defaults
    --info=plugins --info=searchpath --info=x -c -cjob -p --package=model --package --run -r --config-dir
    --config-dir=. --config-dir=/nowhere --config-name --config-name=config --config-name=no --config-path=.
    --config-path=/nowhere -cd -cn -cp --experimental-rerun --experimental-rerun=x --multirun -m --shell-completion
    -sc -scinstall=bash -scquery=bash -- - --foo -x --=1 train list info
""")

NUMBERS = listed("""
    0 1 -1 2 3 7 0.5 1.0 1.5 -0.0 -0.5 1e-9 1e-200 1e-320 1e30 3.4e38 1e300 -1e308 1e400 nan inf -inf 1e3 0x10 1_000
    007 1. .5 1e 2**3 4294967295 4294967296 1000000000000000 9223372036854775807 9223372036854775808
    -9223372036854775809 1e18
""")
NUMBERS += ["9" * 30, "9" * 400, "-" + "9" * 5000]
WORDS = listed(r"""
    true false True yes no on null Null None ~ ??? '' "" abc a/b 'a' "a" '"' "'" \ \\ ' " a'b $ % %s %(x)s # @ : ; =
    == a=b a:b a@b & | * ? ! ^ ` . .. ... ../x ./x x/ // - -- --help -1x balanced auto val/loss min max fp16 cls
    learned text tabular {0} <script> __class__ lambda:0 NaN .nan .inf 2026-01-01 12:30:00 !!python/object:os.system
    ünï 日本 🙂
""")
WORDS += [
    "",
    " ",
    "  ",
    "a b",
    "' '",
    "\t",
    "'\t'",
    "\n",
    "'a\nb'",
    "'a\rb'",
    "\x1b[31m",
    "'\x1b[31m'",
    "'\x85'",
    "\u202e",
]
WORDS += ["\u00a0", "\ufeff", "'\u2028'", "'\udcff'", "\udcff", "'x\x7f'", "x" * 5000, "'" + "é" * 3000 + "'"]
NESTED = listed("""
    [] {} [[]] [{}] {a:1} {a:{b:[1,{}]}} [1] [1,2] [1,2,3] [0] [-1] [0.9,0.99] [1.5,0.5] [2,2] [4,4] [null] [nan] ['']
    [a] [a,b] [true] [1000000000000000] [1000000000000000,1] [1,1000000000000000] [[1,2],[3,4]] {name:mlp} {1:2}
    {null:1} {'':1} {a:1,a:2} [HorizontalFlip:{}] [{HorizontalFlip:{}}] [{HorizontalFlip:{p:2}}]
    [{HorizontalFlip:{p:x}}] [{HorizontalFlip:null}] [{}] [{OneOf:{transforms:[]}}] [{OneOf:{transforms:5}}]
    [{OneOf:{transforms:[{VerticalFlip:{}}]}}] [{Resize:{height:3,width:3}}] [{Lambda:{image:1}}] [{Normalize:{}}]
    [{RandomCrop:{height:99,width:99}}] [{Compose:{transforms:[]}}] [{ToFloat:{}}] [{a:1,b:2}] [{1:{}}]
    [{BasicTransform:{}}] [{Affine:{scale:[0,0]}}] [{Affine:{shear:1e9}}] [{GaussNoise:{std_range:[0,1]}}] [ ] { } [[
    {] }{ [1 1] {a {a: {a:} [,] [,1] {,} [1,,2] (1) a,b 1,2 ,1 1, (,) range(3) range(1,9999999) choice(1,2) choice()
    interval(0,1) glob(*) shuffle(1,2) sort(3,1) extend_list(1) append(1) float(x) float(1) int(3.7) int(x) str(1)
    bool(2) json_str('{') f(1) f( choice(choice(1)) tag(a,choice(1))
""")
NESTED += [
    "[" * 40 + "]" * 40,
    "[" * 600 + "]" * 600,
    "[" * 900,
    "{a:" * 300 + "1" + "}" * 300,
    "['\udcff']",
    "['\x07']",
]
REFERENCES = listed("""
    ${seed} ${notes} ${data} ${model} ${trainer.max_epochs} ${no.such} ${.name} ${..seed} ${...x} ${data.size} ${tags}
    ${plugins} ${oc.env:HOME} ${oc.env:NO_SUCH_VARIABLE} ${oc.env:NO_SUCH_VARIABLE,3} ${oc.env:} ${oc.select:seed}
    ${oc.select:no.such} ${ ${oc.decode:'{'} ${oc.decode:"[1"} ${oc.create:{a:1}} ${oc.dict.keys:model}
    ${oc.dict.values:optimizer} ${oc.deprecated:seed} ${now:%Y} ${now:%} ${now:} ${run_id:} ${run_id:1}
    ${hydra:job.name} ${hydra:runtime.output_dir} ${hydra:no} ${hydra:} } $$ $} ${hydra.x} ${python_version:}
    ${python_version:x} ${no_such:1} ${a:${b:${c:1}}} ${${seed}} \\${seed} ${} ${:} ${a:} x${seed}y ${seed}${seed}
    ${oc.env:PATH} ${SELF} ${SELF}x ${oc.select:SELF} [${SELF}] {a:${SELF}} ${oc.decode:${SELF}} ${seed '${seed' '${'
    '${oc.env:"}'
""")
REFERENCES += ["${oc.env: HOME}", "${now:%s\udcff}"]  # SELF stands for the key itself

texts = st.text(st.characters(exclude_characters="\0"), max_size=8)  # a word of a command line can't hold a zero byte
numbers = st.sampled_from(NUMBERS) | st.integers(-3, 3).map(str) | st.floats(0, 2).map(str)
values = (
    numbers
    | numbers.flatmap(lambda first: numbers.map(lambda second: f"[{first},{second}]"))
    | st.sampled_from(WORDS)
    | st.sampled_from(NESTED)
    | st.sampled_from(REFERENCES)
    | texts
    | st.text("[]{}()$,:='\"\\@~+-. a1\n", max_size=8)
    | st.recursive(
        st.sampled_from([*NUMBERS, *WORDS]),
        lambda inner: (
            st.lists(inner, max_size=3).map(lambda items: "[" + ",".join(items) + "]")
            | st.dictionaries(st.sampled_from("abp1"), inner, max_size=2).map(
                lambda items: "{" + ",".join(f"{key}:{value}" for key, value in items.items()) + "}"
            )
        ),
        max_leaves=5,
    )
)


def assignment(key: str, value: str) -> str:
    return f"{key}={value.replace('SELF', key)}"


@st.composite
def values_of_keys(draw: Callable[..., Any], value: st.SearchStrategy[str], most: int = 1) -> list[str]:
    """A tiny run with up to `most` of its keys changed."""
    key, words = draw(st.sampled_from(KEYS))
    near = [other for other, home in KEYS if home == words and other not in ("trainer.max_epochs", "trainer.max_steps")]
    others = draw(st.lists(st.sampled_from(near), max_size=most - 1))
    return [*words, *SHORT, *(assignment(name, draw(value)) for name in [key, *others])]


@st.composite
def mistyped(draw: Callable[..., Any], known: list[str]) -> str:
    """One of `known` with a typing mistake or two."""
    text = draw(st.sampled_from(known))
    for _ in range(draw(st.integers(1, 2))):
        place = draw(st.integers(0, len(text)))
        extra = draw(
            st.sampled_from([*"@:.=+~-_/\\[]{}()$,#% \t\n'\"ésA1", "..", "::", "@x", "${", "--", "++", "\udcff"])
        )
        front = draw(st.sampled_from(["+", "++", "~", "-", "--", "=", "@", " ", "/", "."]))
        end = draw(st.sampled_from(["@x", "@_global_", "@:x", "@a:b", ":x", ".x", ".", " ", "=", "==1", "[0]"]))
        mistakes = [
            text[:place] + extra + text[place:],
            text[:place] + extra + text[place + 1 :],
            text[:place] + text[place + 1 :],
            text[:place] + text[place : place + 2][::-1] + text[place + 2 :],
            front + text,
            text + end,
            text.upper(),
        ]
        text = draw(st.sampled_from(mistakes))
    return text


@st.composite
def strange_words(draw: Callable[..., Any]) -> list[str]:
    """A tiny run and a word that is near to something that can be typed, or to nothing at all."""
    word = draw(
        st.one_of(
            st.builds(str.__add__, mistyped(NAMES), st.just("") | values.map("=".__add__)),
            st.builds(assignment, st.sampled_from(HYDRAS).map("hydra.".__add__), values),
            st.builds(assignment, st.sampled_from(GROUPS), values),
            mistyped(CHOICES),
            st.sampled_from(FLAGS) | mistyped(FLAGS),
            texts | values,
        )
    )
    words = [*TOP, *SHORT, "trainer.fast_dev_run=1"]
    words.insert(draw(st.sampled_from([0, len(words), len(words)])), word)
    return words


CHANGES = listed("""
    trainer.accumulate_grad_batches=2 trainer.ema_decay=0.9 trainer.patience=1 optimizer.l1=0.01 augment.mixup=0.5
    augment.cutmix=1 task.label_smoothing=0.1 task.class_weights=balanced scheduler.warmup_steps=2 data.batch_size=7
    trainer.gradient_clip_val=null trainer.monitor=val/loss trainer.overfit_batches=1 trainer.limit_train_batches=0.5
    trainer.check_val_every_n_epoch=2 trainer.deterministic=true trainer.log_every_n_steps=1 debug=fast
    data.num_workers=1 data.eval_batch_size=3 trainer.profile=true seed=4294967295 hydra.job.chdir=true
    hydra.output_subdir=null
""")
combinations = st.builds(
    lambda *parts: [*SHORT, *(word for part in parts for word in part)],
    st.sampled_from([LINEAR, MLP, CNN, SPEEDNET, RNN, LSTM, TRANSFORMER]),
    st.sampled_from([TABLE, IMAGES, TEXTS, DIGITS, CSV, ["data=breast_cancer", "data.limit=40"]]),
    *(st.sampled_from([[f"{group}={name}"] for name in HOMES[group]]) for group in ("optimizer", "scheduler")),
    st.sampled_from([["precision=fp32"], ["precision=bf16"], ["precision=bf16_weights"], ["precision=fp16"]]),
    st.sampled_from([[f"augment={name}"] for name in ("none", "none", "light", "strong")]),
    st.lists(st.sampled_from(CHANGES), max_size=4),
)

CASES = {
    "values": (values_of_keys(values), 30),
    "numbers": (values_of_keys(numbers, most=2), 20),
    "strange words": (strange_words(), 90),
    "combinations": (combinations, 12),
    "several values": (values_of_keys(values, most=3), 6),
}


def test_the_walk_is_complete() -> None:
    assert (len(KEYS), len({key for key, _ in KEYS})) == (257, 150)
    for group, choices in HOMES.items():
        left = {path.stem for path in (CONF / group).glob("*.yaml")} - set(choices)
        assert left <= set(LEFT_OUT), left


@pytest.mark.parametrize("case", CASES)
def test_every_outcome_is_a_run_or_one_line(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    strategy, examples = CASES[case]
    fuzz(strategy, settings(max_examples=examples, derandomize=True), capsys)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("case", CASES)
def test_every_outcome_is_a_run_or_one_line_at_random(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    strategy, examples = CASES[case]
    fuzz(strategy, settings(max_examples=25 * examples), capsys)


# (words on top of a tiny run, what is said): each of them once had a traceback, or a line that nobody could read.
BIG, HUGE = "1000000000000000", "9223372036854775807"
FOUND = [
    ([*MLP, *TABLE, f"model.hidden_sizes=[{BIG}]"], "model: too large for this machine (you tried to allocate"),
    ([*MLP, *TABLE, f"model.hidden_sizes=[{HUGE}]"], "model: too large for this machine (Storage size calculation"),
    ([*MLP, *TABLE, f"model.hidden_sizes=[4{HUGE}]"], "each a whole number >= 1, 1 or more of them, got 4922337203"),
    ([*LSTM, *TEXTS, f"model.hidden_size={HUGE}"], "model: too large for this machine (empty(): argument 'size'"),
    ([*LSTM, *TEXTS, f"model.num_layers={BIG}"], "model.num_layers: expected a whole number >= 1 and <= 1000, got 10"),
    ([*LSTM, *TEXTS, f"data.sequence_length={BIG}"], "data: too large for this machine (you tried to allocate"),
    ([*LINEAR, *IMAGES, f"data.size={HUGE}"], "data: too large for this machine (IntArrayRef contains an int that"),
    ([*LINEAR, *IMAGES, f"data.num_classes={BIG}"], "data.num_classes: expected at most data.size=40, got 1000000"),
    ([*TOP, f"data.size={BIG}"], "data: too large for this machine (Unable to allocate"),
    ([*TOP, f"data.size={HUGE}"], "data: too large for this machine (array is too big"),
    ([*TOP, f"trainer.num_threads={HUGE}"], "trainer.num_threads: expected a whole number >= 1 and <= 1024 or null"),
    ([*TOP, "optimizer.lr=1e300"], "optimizer.lr: expected a number > 0, got 1e+300, which a 32-bit float can't hold"),
    ([*TOP, "seed=" + "9" * 4000], "9999 … 9999"),
    ([*TOP, "seed=-" + "9" * 5000], ": Exceeds the limit (4300 digits) for integer string conversion"),
    ([*TOP, "seed=" + "[" * 300 + "]" * 300], "the config is nested too deeply"),
    ([*TOP, "seed=" + "[" * 3000], "[[[[': can't make sense of '[[[["),
    ([*TOP, "seed=${oc.env:NO_SUCH_VARIABLE}"], "seed: can't fill in the ${…}: \"Environment variable 'NO_SUCH_VARIA"),
    ([*TOP, "seed=${now:}"], "seed: can't fill in the ${…}: missing 1 required positional argument"),
    ([*TOP, "notes=${notes}"], "notes: Recursive interpolation detected"),
    ([*TOP, "task='${oc.env:\"}'"], "mismatched input '<EOF>' expecting MATCHING_QUOTE_CLOSE"),
    ([*TOP, "model=${oc.select:no.such}"], "Hydra can't work with this config"),
    ([*TOP, "notes=caf\udce9"], r"can't read 'notes=caf\udce9': it isn't UTF-8"),
    ([*TOP, "notes=a\nb"], r"can't read 'notes=a\nb': unexpected '\n' at character 8; a text with special characters"),
    ([*TOP, "augment='\x1b[31m'"], r"unknown augment '\x1b[31m' (choose from affine"),
    (
        [*TOP, "seed=#"],
        "can't read 'seed=#': unexpected '#' at character 6; a text with special characters needs quotes",
    ),
    ([*TOP, "a b=1"], "can't read 'a b=1': unexpected ' ' at character 2\n"),
    ([*TOP, "seed=append(1)"], "can't read 'seed=append(1)': Unknown function 'append' Available: bool,choice"),
    ([*TOP, "seed=[1"], "can't read 'seed=[1': can't make sense of '[1'"),
    ([*TOP, "seed=1}"], "can't read 'seed=1}': unexpected '}'"),
    ([*TOP, ""], "can't read '': it ends too early"),
    ([*TOP, "seed"], "can't read 'seed': there is no '='; expected key=value"),
    ([*TOP, "=1"], "can't read '=1': there is no key; expected key=value"),
    ([*TOP, "data=5"], "unknown data '5' (choose from blobs"),
    ([*TOP, "tracking=null"], "unknown tracking 'null' (choose from none, tensorboard, wandb)"),
    ([*TOP, "tracking=[none,tensorbord]"], "unknown tracking 'tensorbord'; did you mean 'tensorboard'?"),
    ([*TOP, "optimizer.betas={}"], "optimizer.betas={}: Cannot merge DictConfig with ListConfig"),
    ([*TOP, "hydra.run.dir=[1]"], "hydra.run.dir=[1]: Cannot convert 'list' to string: '[1]'"),
    ([*TOP, "hydra.verbose=3"], "Hydra can't work with this config"),
    ([*TOP, "hydra.job_logging.root.level=X"], "Unable to configure root logger"),
    ([*TOP, "hydra.job.env_copy=[NO_SUCH_VARIABLE]"], "hydra.job.env_copy: no environment variable 'NO_SUCH_VARIA"),
    ([*TOP, "--hel"], "unrecognized arguments: --hel"),
]


@pytest.mark.parametrize(
    ("words", "message"), FOUND, ids=lambda value: ascii(value[-1])[:60] if isinstance(value, list) else ""
)
def test_what_was_found_once(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    result = outcome([*words[:-1], *SHORT, words[-1]], capsys)
    assert (result.code, message in result.err) == (2, True), result.err


def test_whole_numbers_for_betas_once_had_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert outcome([*MLP, *TABLE, *SHORT, "optimizer.betas=[0,0]"], capsys).code == 0


@pytest.mark.parametrize(
    "words",
    [
        [*MLP, *TABLE, "optimizer=adagrad", "optimizer.lr=3e38"],
        [*TOP, "scheduler=exponential", "scheduler.gamma=1e30", "optimizer.lr=1e30"],
        [*TOP, "scheduler=onecycle", "scheduler.div_factor=1e-200", "scheduler.final_div_factor=1e-200"],
    ],
    ids=lambda words: words[-1],
)
def test_what_overflows_fails_honestly(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert outcome([*SHORT, *words], capsys).code == 1


def fuzz(strategy: st.SearchStrategy[list[str]], how: settings, capsys: pytest.CaptureFixture[str]) -> None:
    @settings(how, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(strategy)
    def holds(words: list[str]) -> None:
        assume(not any(name in word for word in words if word not in SHORT for name in LEFT_OUT))
        outcome(words, capsys)

    holds()


def outcome(words: list[str], capsys: pytest.CaptureFixture[str]) -> Result:
    """What the words lead to in a fresh folder, checked; nothing of it is left for the next words."""
    environment, path = dict(os.environ), list(sys.path)
    with tempfile.TemporaryDirectory() as top, pytest.MonkeyPatch.context() as patch:
        patch.setattr(logging.getLogger(), "handlers", [])  # those of an earlier run write to what is closed by now
        home = Path(top, "a", "b")  # so that ../x is ours too
        home.mkdir(parents=True)
        rows = [f"word{i % 5} text,{'good' if i % 2 else 'bad'}" for i in range(40)]
        (home / "reviews.csv").write_text("\n".join(["text,label", *rows]))
        before = set(Path(top).rglob("*"))
        try:
            result = CommandLine(home, patch, capsys)(*words)
            assert Path.cwd() == home
            judge(words, result, set(Path(top).rglob("*")) - before)
        finally:
            os.chdir(home)
            os.environ.clear()
            os.environ.update(environment)
            sys.path[:] = path
    return result


def judge(words: list[str], result: Result, new: set[Path]) -> None:
    """Hold what was printed, and the files that are `new`, against what was promised."""
    assert "Traceback" not in result.out + result.err, result.out + result.err
    if result.code == 2:
        assert re.fullmatch(r"dlrun: \S.*\n", result.err), result.err
        message = result.err.removesuffix("\n")
        assert message.isprintable(), message
        assert len(message) < 2000, message
        noise = r"object at 0x|<class |<function |<lambda>|\w(Exception|Error)\b"
        said = [word for word in re.findall(noise, message) if word not in " ".join(words)]
        assert not said, message
        assert not new, new
        return
    runs = [path.parent for path in new if path.name == "summary.json"]
    if not runs:
        assert result.code == 0, result.err
        assert any(word.startswith("-") or word in ("list", "info") for word in words), "no run, and no word about it"
        assert not new, new
    for folder in runs:
        summary = json.loads((folder / "summary.json").read_text())
        config = yaml.safe_load((folder / "config.yaml").read_text())
        assert not list(folder.rglob("*.partial"))
        if (folder / "dlrun.log").exists():
            assert "Traceback" not in (folder / "dlrun.log").read_text()
        if result.code == 1:  # it began, and failed honestly
            assert (summary["status"], summary["exit_code"]) == ("failed", 1)
            assert summary["error"].startswith("TrainingError: "), summary["error"]
            continue
        assert (result.code, summary["exit_code"], summary["error"]) == (0, 0, None)
        assert summary["status"] in ("finished", "stopped_early")
        assert (folder / "metrics.csv").read_text().count("\n") == summary["epochs"] + 1
        for name in ("best", "last"):
            saved = torch.load(folder / f"checkpoints/{name}.pt", weights_only=True)
            assert saved["config"] == config or "nan" in str(config)
