"""A dataclass as options: words and YAML in, a config or a clear error out."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from transframer.errors import ConfigError, TransframerError, UnknownNameError
from transframer.given import was_given
from transframer.options import parse


@dataclass(frozen=True)
class Settings:
    """Settings.

    Attributes:
        run: where it lies.
        images: some images.
        task: what is done, at 100%
            or less.
        out: a folder.
    """

    run: Path
    images: tuple[str, ...]
    task: str
    out: Path | None = None
    times: tuple[float, ...] | None = None
    names: list[str] = field(default_factory=list)
    weights: dict[str, float] = field(default_factory=dict)
    precision: Literal["fp32", "bf16"] = "fp32"
    batch_size: int | None = None
    rate: float = 0.5
    compile: bool = False
    no_cache: bool = False


def read(words: str) -> Settings:
    return parse(Settings, words.split(), prog="x", positional=("run", "images"))


def test_defaults_and_positionals():
    assert read("r a.png --task t") == Settings(Path("r"), ("a.png",), "t")


def test_what_was_given_is_noted():
    config = read("r a.png --task t --rate 0.5 --no-compile")
    names = ("run", "task", "rate", "compile", "out", "names")
    assert [name for name in names if was_given(config, name, None)] == ["run", "task", "rate", "compile"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--out o", {"out": Path("o")}),
        ("--times 0 1.5", {"times": (0.0, 1.5)}),
        ("--times -1,0", {"times": (-1.0, 0.0)}),
        ("--names a b", {"names": ["a", "b"]}),
        ("--names a,b --batch-size 3", {"names": ["a", "b"], "batch_size": 3}),
        ("--names=a,b", {"names": ["a", "b"]}),
        ("--weights.a 2 --weights.b 3", {"weights": {"a": 2.0, "b": 3.0}}),
        ("--precision bf16 --rate 1e-3", {"precision": "bf16", "rate": 0.001}),
        ("--compile --no-cache", {"compile": True, "no_cache": True}),
        ("--compile --no-compile", {"compile": False}),
    ],
)
def test_typed_options(words, expected):
    assert read(f"r a.png --task t {words}") == Settings(Path("r"), ("a.png",), "t", **expected)


def test_a_list_of_numbers_ends_where_a_positional_begins():
    settings = read("r --task t --times 0 1 a.png b.png")
    assert (settings.times, settings.images) == ((0.0, 1.0), ("a.png", "b.png"))


def test_yaml_is_read_and_options_win_over_it(tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("names: [u, v]\nbatch_size: 4\ncompile: true\nweights: {a: 1}\n")
    settings = read(f"r a.png --task t --config {file} --batch-size 8")
    assert (settings.names, settings.batch_size, settings.compile) == (["u", "v"], 8, True)
    assert settings.weights == {"a": 1.0}


def test_print_config_gives_yaml_that_is_read_again(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        read("r a.png --task t --names p q --batch-size 8 --print-config")
    assert stopped.value.code == 0
    file = tmp_path / "printed.yaml"
    file.write_text(capsys.readouterr().out)
    assert "rate: 0.5\n" in file.read_text(), "the defaults too"
    assert read(f"r a.png --config {file}") == read("r a.png --task t --names p q --batch-size 8")


def test_help_has_the_docstring_of_every_field(capsys):
    with pytest.raises(SystemExit) as stopped:
        read("--help")
    assert stopped.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "--batch-size" in text
    assert "what is done, at 100% or less" in text
    assert "where it lies" in text


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        (
            "r a --task t --batchsize 3",
            UnknownNameError,
            "unknown option --batchsize, did you mean --batch-size?",
        ),
        ("r a --task t --batch 3", UnknownNameError, "unknown option --batch, did you mean"),
        ("r a --task t --batch-size x", ConfigError, "--batch-size: 'x'\nexpected a whole number"),
        ("r a --task t --batch-size 1.5", ConfigError, "--batch-size: '1.5'\nexpected a whole number"),
        ("r a --task t --rate fast", ConfigError, "--rate: 'fast'\nexpected a number"),
        ("r a --task t --precision fp8", ConfigError, "--precision: 'fp8'\nexpected one of fp32, bf16"),
        ("r a --task t --times=x", ConfigError, "--times: 'x'\nexpected a list: each a number"),
        ("r a --task t --times x", ConfigError, "--times: no value is given"),
        ("r a --task t --weights 3", ConfigError, "--weights: '3'"),
        ("r a --task t --out", ConfigError, "--out: expected one argument"),
        ("r a", ConfigError, "required: task"),
        ("r --task t", ConfigError, "required: images"),
        ("--task t", ConfigError, "required: run, images"),
        ("r a --task t --config nowhere.yaml", ConfigError, "--config: File does not exist"),
    ],
)
def test_errors_say_what_was_found_and_what_was_expected(words, error, message):
    with pytest.raises(error) as caught:
        read(words)
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("batch_sise: 3", "unknown option --batch-sise, did you mean --batch-size?"),
        ("batch_size: many", "--batch-size: 'many'\nexpected a whole number"),
        ("names: [a", "while parsing"),
        ("- 1", ""),
        ("\x00", ""),
    ],
)
def test_errors_in_yaml(tmp_path, text, message):
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    with pytest.raises(TransframerError) as caught:
        read(f"r a --task t --config {file}")
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 3
