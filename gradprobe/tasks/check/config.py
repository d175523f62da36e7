"""``gradprobe.toml`` and ``[tool.gradprobe]`` in pyproject.toml → ``CheckOptions``.

The file nearest above a target counts, alone: nothing is merged.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from gradprobe.errors import InputError, suggestion
from gradprobe.files import outside, read_regular
from gradprobe.spec.options import ALWAYS, MAX_BATCH_SIZE, NEVER, CheckOptions
from gradprobe.tasks.check.entries import read_entries
from gradprobe.tasks.check.ignore import pattern_of
from gradprobe.tasks.check.toml import MAX_BYTES, Reader, unknown_rule

FILES = ("gradprobe.toml", "pyproject.toml")  # the first of a directory counts


def nearest(folder: Path) -> Path | None:
    """The configuration file that counts for what lies in ``folder``, if there is one."""
    for parent in (folder, *folder.parents):
        for name in FILES:
            path = parent / name
            if os.path.lexists(path) and (name == FILES[0] or _has_section(path)):
                return path
    return None


def read(path: Path) -> CheckOptions:
    """The options that a configuration file sets, over the defaults.

    Raises:
        InputError: not TOML, an unknown key, a value out of range; names line and column.
    """
    reader = Reader(path)
    options = CheckOptions(root=str(path.parent), exclude_root=str(path.parent))
    origins = {}
    for key, value in reader.body.items():
        if key not in KEYS:
            hint = suggestion(key, KEYS) or f"known: {', '.join(KEYS)}"
            reader.fail(f"unknown key '{key}'", [key], hint)
        name = _field(key)
        options = replace(options, **{name: KEYS[key](reader, [key], value)})
        origins[name] = f"{path.name}:{reader.place([key]).line}"
    return replace(options, origins=origins)


def _has_section(path: Path) -> bool:
    """Whether a pyproject.toml speaks of gradprobe; what is no TOML does if it looks so."""
    try:
        data = read_regular(path, MAX_BYTES)
    except OSError:
        return True  # and reading it says what is wrong
    if b"gradprobe" not in data:
        return False
    try:
        tool = tomllib.loads(data.decode("utf-8-sig")).get("tool")
        return isinstance(tool, dict) and "gradprobe" in tool
    except (ValueError, RecursionError):
        return bool(re.search(rb"^\s*\[\s*tool\s*\.\s*gradprobe\s*[\].]", data, re.M))


def resolver(
    config: str | None, isolated: bool, overrides: Mapping[str, Any]
) -> Callable[[Path], CheckOptions]:
    """A function from a directory to the options for what lies in it.

    Args:
        config: a configuration file to use everywhere, instead of the nearest.
        isolated: no configuration file at all.
        overrides: fields of ``CheckOptions`` that stand above any file.

    Raises:
        InputError: both are given, or a word of ``overrides`` names no rule; later, what ``read``
            raises.
    """
    _check_rules("--select", overrides.get("select"))
    _check_rules("--ignore", overrides.get("ignore"))
    for pattern in overrides.get("exclude") or ():
        if pattern_of(pattern) is None:
            raise InputError(f"--exclude: '{pattern}' is no pattern")
    if config is not None and isolated:
        raise InputError("--config and --isolated contradict each other")
    fixed = Path(config) if config is not None else None
    read_once = cache(read)

    @cache
    def resolve(folder: Path) -> CheckOptions:
        path = None if isolated else fixed or nearest(folder)
        if path and not fixed and outside(path):
            raise InputError(f"{path} is a link out of its tree: name it with --config")
        options = read_once(path) if path else CheckOptions()
        if fixed is not None:  # as in ruff, patterns are relative to where it is called
            options = replace(options, root=".", exclude_root=".")
        if "exclude" in overrides:
            options = replace(options, exclude_root=".")
        origins = {key: f"--{key.replace('_', '-')}" for key in overrides}
        return replace(options, **overrides, origins={**options.origins, **origins})

    return lambda folder: resolve(folder.absolute())


# Every key of the file, a field of CheckOptions with hyphens, and how its value is read.
KEYS: dict[str, Callable[[Reader, list[str], Any], Any]] = {
    "select": Reader.rules,
    "ignore": Reader.rules,
    "per-file-ignores": Reader.per_file_ignores,
    "exclude": Reader.patterns,
    "include": Reader.patterns,
    "targets": read_entries,
    "thresholds": Reader.thresholds,
    "fail-on": Reader.severity,
    "regression": Reader.factor,
    "seeds": Reader.seeds,
    "deep": Reader.boolean,
    "overfit": Reader.trial,
    "overfit-time": Reader.positive,
    "batch-size": lambda reader, keys, value: reader.whole(keys, value, MAX_BATCH_SIZE),
    "max-parameters": Reader.whole,
    "max-memory": Reader.size,
    "timeout": Reader.positive,
}


def _check_rules(flag: str, words: tuple[str, ...] | None) -> None:
    if words == ():
        raise InputError(f"{flag}: no rule is named")
    for word in words or ():
        if problem := unknown_rule(word):
            raise InputError(f"{flag}: no rule '{word}'", hint=problem)


def values(options: CheckOptions) -> Iterator[tuple[str, object]]:
    """Every key with its value in force, nested tables flattened, as a file would write it."""
    for key in KEYS:
        value = getattr(options, _field(key))
        if key == "thresholds":
            yield from ((f"thresholds.{name}", limit) for name, limit in value.items())
        elif key == "per-file-ignores":
            for ignore in value:
                entry = {"rule": ignore.rule, "reason": ignore.reason}
                yield f'per-file-ignores."{ignore.pattern}"', [entry]
        elif key == "targets":
            yield key, [entry.label for entry in value]
        elif key == "overfit":
            yield key, {ALWAYS: True, NEVER: False}.get(value, value)
        else:
            yield key, list(value) if isinstance(value, tuple) else value
    for name in ("loss", "data", "rows"):  # these are typed: no file has them
        if (value := getattr(options, name)) is not None:
            yield name, value


def _field(key: str) -> str:
    return key.replace("-", "_")
