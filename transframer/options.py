"""A dataclass as the options of a command: YAML (`--config`) plus typed overrides, by jsonargparse."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import inspect
import json
import re
import typing
from collections.abc import Sequence
from types import NoneType
from typing import Any, TypeVar

import jsonargparse

from transframer.errors import ConfigError, UnknownNameError
from transframer.given import note_given

Config = TypeVar("Config")


def parse(
    cls: type[Config],
    words: Sequence[str],
    *,
    prog: str,
    description: str = "",
    positional: Sequence[str] = (),
) -> Config:
    """Reads a config from the words of a command line.

    Every field becomes an option with dashes for underscores and its text under "Attributes:" as help.

    Args:
        cls: a dataclass of plain types, paths, literals, lists, tuples and dicts.
        words: what follows the command's name.
        prog: the command's name, for the help.
        positional: the fields that are given without their name; a list takes one value or more, a field with
            a default none or one.

    Raises:
        ConfigError: a value of the wrong type, a missing option or argument, an unreadable file.
        UnknownNameError: an option or a setting in the file that the command does not have.
    """
    hints = typing.get_type_hints(cls)
    parser = jsonargparse.ArgumentParser(
        prog=prog,
        description=description,
        exit_on_error=False,
        allow_abbrev=False,
        print_config="--print-config",
    )
    parser.add_argument(
        "--config", action="config", help="a YAML file of these settings; options win over it"
    )
    _add_fields(parser, cls, hints, positional)
    known = [option for action in parser._actions for option in action.option_strings]
    for word in words:
        option = word.partition("=")[0].partition(".")[0]
        if option.startswith("--") and option != "--" and option not in known:
            raise _unknown(option, known)
    try:
        words = _lists_as_json(words, hints)
        values, named = parser.parse_args(words), parser.parse_args(words, defaults=False)
    except (argparse.ArgumentError, TypeError, ValueError) as error:
        raise _readable(str(error), hints) from error
    given = {
        name: tuple(values[name]) if name in positional and _is_list(hints[name]) else values[name]
        for name in hints
        if name in values
    }
    config = cls(**given)
    note_given(config, (name for name in hints if name in named))
    return config


def _add_fields(
    parser: jsonargparse.ArgumentParser, cls: type, hints: dict[str, Any], positional: Sequence[str]
) -> None:
    texts = documented(cls)
    for name in positional:
        if _is_list(hints[name]):
            kind = typing.get_args(hints[name])[0]
            parser.add_argument(name, type=kind, nargs="+", help=texts.get(name))
        else:
            default = next(field.default for field in dataclasses.fields(cls) if field.name == name)
            optional = {} if default is dataclasses.MISSING else {"nargs": "?", "default": default}
            parser.add_argument(name, type=hints[name], help=texts.get(name), **optional)
    for field in dataclasses.fields(cls):
        if field.name in positional:
            continue
        settings: dict[str, Any] = {"type": hints[field.name], "help": texts.get(field.name)}
        if field.default is not dataclasses.MISSING:
            settings["default"] = field.default
        elif field.default_factory is not dataclasses.MISSING:
            settings["default"] = field.default_factory()
        else:
            settings["required"] = True
        if settings["type"] is bool:
            del settings["type"]
            prefix: Any = None if field.name.startswith("no_") else "no-"
            settings["action"] = jsonargparse.ActionYesNo(no_prefix=prefix)
        parser.add_argument(_option(field.name), dest=field.name, **settings)


def _option(name: str) -> str:
    return "--" + name.rstrip("_").replace("_", "-")  # a trailing _ is that of a Python keyword: from_


def documented(cls: type) -> dict[str, str]:
    """What a class's docstring says of each field under "Attributes:", each on one line."""
    text = inspect.cleandoc(cls.__doc__ or "").partition("Attributes:\n")[2]
    entries = re.findall(r"^    (\w+): (.*(?:\n      .*)*)", text, flags=re.MULTILINE)
    return {name: re.sub(r"\s+", " ", entry).rstrip(".") for name, entry in entries}


def _is_list(hint: Any) -> bool:
    return any(typing.get_origin(part) in (list, tuple) for part in (hint, *typing.get_args(hint)))


def _lists_as_json(words: Sequence[str], hints: dict[str, Any]) -> list[str]:
    """`--times 0 1 photo.png` and `--tasks=a,b` with each list as one word, which jsonargparse reads.

    A list of numbers ends at the first word that is none, so that a positional may follow it.
    """
    lists = {_option(name): hint for name, hint in hints.items() if _is_list(hint)}
    out, position = [], 0
    while position < len(words):
        word = words[position]
        option, equals, value = word.partition("=")
        position += 1
        if option not in lists or value.startswith("["):
            out.append(word)
            continue
        numbers = "str" not in str(lists[option])
        items = value.split(",") if equals else []
        while not equals and position < len(words):
            word = words[position]
            if not _is_number(word.split(",")[0]) if numbers else word.startswith("-"):
                break
            items += word.split(",")
            position += 1
        if not items:
            raise ConfigError("no value is given", field=option)
        out.append(f"{option}=[{','.join(items)}]" if numbers else f"{option}={json.dumps(items)}")
    return out


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _unknown(option: str, known: Sequence[str]) -> UnknownNameError:
    near = difflib.get_close_matches(option, known, n=1, cutoff=0.4)
    hint = f", did you mean {near[0]}?" if near else ""
    return UnknownNameError(f"unknown option {option}{hint}", next_step="--help lists the options")


def _readable(message: str, hints: dict[str, Any]) -> ConfigError | UnknownNameError:
    """jsonargparse's message in one to three lines."""
    if stranger := re.search(r"Option '([\w.]+)' is not accepted", message):
        return _unknown(_option(stranger[1]), [_option(name) for name in hints])
    key = re.search(r'Parser key "(\w+)": *\n?(.*)', message)
    given = re.search(r"(?:Given value|Got value): (.*)", message)
    if key and given and key[1] in hints:
        return ConfigError(repr(given[1]), field=_option(key[1]), expected=_described(hints[key[1]]))
    if key:
        return ConfigError(key[2], field=_option(key[1]))
    return ConfigError(" ".join(message.split())[:300], next_step="--help lists the options")


def _described(hint: Any) -> str:
    parts = [part for part in typing.get_args(hint) if part is not NoneType]
    if typing.get_origin(hint) is typing.Literal:
        return "one of " + ", ".join(map(str, parts))
    if typing.get_origin(hint) in (list, tuple):
        return f"a list: each {_described(parts[0])}"
    if len(parts) == 1:
        return _described(parts[0])
    return {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}.get(
        hint, str(hint)
    )
