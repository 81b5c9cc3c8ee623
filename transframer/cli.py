"""The command line: `transframer COMMAND ...`. Imports nothing heavy before a command is known and its
options are understood."""

from __future__ import annotations

import argparse
import errno
import importlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import transframer
from transframer import registry
from transframer.errors import ConfigError, TransframerError, unknown_name


@dataclass(frozen=True)
class Command:
    """A subcommand.

    Attributes:
        summary: one line for the help.
        run: "module:function", imported only when the options are understood; a whole number that it returns
            is the exit code.
        config: "module:Class", a dataclass whose fields are the options and whose instance `run` gets;
            its module must import nothing heavy. None for a command without options.
        positional: the fields that are given without their name.
    """

    summary: str
    run: str
    config: str | None = None
    positional: tuple[str, ...] = ()


COMMANDS = {
    "tasks": Command("list the registered tasks", "transframer.cli:print_tasks"),
    "train": Command(
        "train one model on all tasks, or on some",
        "transframer.training.loop:train",
        "transframer.training.config:TrainConfig",
    ),
    "finetune": Command(
        "fine-tune a trained model on your own data",
        "transframer.finetune:finetune",
        "transframer.finetune_config:FinetuneConfig",
    ),
    "benchmark": Command(
        "measure a trained run on held-out data, beside floor and ceiling",
        "transframer.benchmarks.quality:benchmark",
        "transframer.benchmarks.config:BenchmarkConfig",
        ("run",),
    ),
    "benchmark speed": Command(
        "time everything, beside its peers and its limits (a run folder of this name: ./speed)",
        "transframer.benchmarks.speed:measure_speed",
        "transframer.benchmarks.speed_config:SpeedConfig",
    ),
    "predict": Command(
        "predict on your own images",
        "transframer.predict:predict_files",
        "transframer.predict_config:PredictConfig",
        ("images",),
    ),
    "video": Command(
        "draw the video that goes on from your image or clip",
        "transframer.video:draw_video",
        "transframer.video_config:VideoConfig",
        ("context",),
    ),
    "new-task": Command(
        "write the package of a new task, which works as it stands, to be changed",
        "transframer.new_task:write_package",
        "transframer.new_task_config:NewTaskConfig",
        ("name",),
    ),
    "data check": Command(
        "look through a data set: what cannot be read, and what to change",
        "transframer.data_check:check",
        "transframer.data_config:CheckConfig",
        ("data",),
    ),
    "data show": Command(
        "draw records of a data set as the frames of a task, before and after coding",
        "transframer.data_show:show",
        "transframer.data_config:ShowConfig",
        ("data",),
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        argv: the arguments after the program's name; those of the process if not given.

    Returns:
        The exit code: 0, or the command's own (1 of `data check` where there is something to mend), 2 for an
        error the user can mend, 130 when interrupted, 141 when the reader of the output went away.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    traceback = "--traceback" in words or bool(os.environ.get("TRANSFRAMER_DEBUG"))
    try:
        options, words = _common_options().parse_known_args(words)
        for source in options.include:
            registry.include(source)
        code = _dispatch(words)
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("transframer: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
        return 141
    except Exception as error:
        message = _explained(error)
        if message is None or traceback:
            raise
        print(f"transframer: {message}", file=sys.stderr)
        return 2
    return code


def print_tasks() -> None:
    """Prints each registered task and where it comes from; reads entry points only, and what is included.

    Raises:
        TransframerError: no task is registered, or two claim one name.
    """
    origins = registry.task_origins()
    if not origins:
        raise TransframerError(
            "no task is registered", next_step="is the package installed? run pip install -e ."
        )
    for name, origin in sorted(origins.items()):
        place = "built in" if origin.source == "transframer" else f"plugin {origin.source}"
        print(f"{name:<24} {place:<24} {origin.target}")
    for reason in registry.failed_plugins().values():
        print(reason, file=sys.stderr)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Raises, where argparse would print its usage and exit."""
        raise ConfigError(message)


def _common_options() -> argparse.ArgumentParser:
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("--include", action="append", default=[], metavar="SOURCE")
    parser.add_argument("--traceback", action="store_true")
    return parser


def _help() -> str:
    commands = "\n".join(f"  {name:<16} {command.summary}" for name, command in COMMANDS.items())
    return f"""usage: transframer COMMAND [options]

One generative model for many vision tasks.

commands:
{commands}

options of every command:
  --include SOURCE  register the tasks of a .py file, package folder or module; may be given again.
                    The environment variable {registry.VARIABLE} names them for good ({os.pathsep!r} between).
  --traceback       show the Python traceback of an error; the variable TRANSFRAMER_DEBUG does too
  --version         print the version
  -h, --help        print this, or the options of a command: transframer COMMAND --help
"""


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(_help(), end="")
        return 0
    if words[0] == "--version":
        print(f"transframer {transframer.__version__}")
        return 0
    name, *rest = words
    if rest and f"{name} {rest[0]}" in COMMANDS:  # a command of two words
        name = f"{name} {rest.pop(0)}"
    if name.startswith("-"):
        raise unknown_name("option", name, ["--include", "--traceback", "--version", "--help"])
    if name not in COMMANDS:
        raise unknown_name("command", name, COMMANDS)
    command = COMMANDS[name]
    if command.config is None:
        _Parser(prog=f"transframer {name}", description=command.summary).parse_args(rest)
        result = _imported(command.run)()
    else:
        from transframer.options import parse  # its jsonargparse costs more than all else here together

        config = parse(
            _imported(command.config),
            rest,
            prog=f"transframer {name}",
            description=f"{command.summary}. Options of every command: transframer --help",
            positional=command.positional,
        )
        result = _imported(command.run)(config)
    return result if isinstance(result, int) else 0


def _imported(target: str) -> Any:
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _explained(error: Exception) -> str | None:
    """The message for an error the user can mend; None for a fault of the program."""
    if isinstance(error, TransframerError):
        return str(error)
    # Writers of tensors wrap the system's error in their own classes, and keep only its text.
    if "No space left on device" in str(error) or getattr(error, "errno", None) == errno.ENOSPC:
        place = f" for {error.filename}" if isinstance(error, OSError) and error.filename else ""
        return f"the disk is full{place}\nfree some space, or name another folder with --out"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return None
