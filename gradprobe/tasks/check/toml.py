"""A TOML file → its values, each held to what it may be; an error names line and column."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from gradprobe.errors import InputError, Place, located, suggestion
from gradprobe.files import read_regular
from gradprobe.spec.entry import PerFileIgnore
from gradprobe.spec.options import ALWAYS, NEVER, SEVERITIES, misordered
from gradprobe.spec.seeds import AUTO, MAX_SEEDS, is_seed
from gradprobe.spec.sizes import parse_bytes
from gradprobe.spec.vocabulary import THRESHOLDS
from gradprobe.tasks.check.ignore import pattern_of
from gradprobe.verdict.rules.table import RULES

MAX_BYTES = 1 << 20  # of a configuration


class Reader:
    """One file: its text, its table, and its values, whose errors know the line.

    Raises:
        InputError: the file cannot be read, or is not TOML; a value does not fit.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.section = "tool.gradprobe" if path.name == "pyproject.toml" else ""
        try:
            self.text = read_regular(path, MAX_BYTES).decode("utf-8-sig")
            body: Any = tomllib.loads(self.text)
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror or error}") from error
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: not UTF-8: byte offset {error.start}") from error
        except (ValueError, RecursionError) as error:
            self._fail_in_syntax(str(error))
        for key in filter(None, self.section.split(".")):
            body = body.get(key, {}) if isinstance(body, dict) else body
        if not isinstance(body, dict):
            self.fail(f"{self.section}: expected a table", self.section.split(".")[-1:])
        self.body: Mapping[str, Any] = body

    def fail(self, message: str, keys: list[str], hint: str = "") -> NoReturn:
        raise located(message, self.place(keys), self.text.splitlines(), hint)

    def place(self, keys: list[str]) -> Place:
        """Where the last of ``keys`` stands, each inside the one before; the file's start if not.

        tomllib keeps no positions: this looks for the words, in the section first.
        """
        line = column = 1
        lines = self.text.splitlines()
        start = 0
        if self.section:
            section = self.section.split(".")
            header = re.compile(r"\s*\[\s*" + r"\s*\.\s*".join(map(_key, section)) + r"\b")
            start = next((i for i, text in enumerate(lines) if header.match(text)), 0)
        for key in keys:
            for number in range(start, len(lines)):
                begin = column if number + 1 == line else 0
                match = re.compile(rf"(?<![\w-]){_key(key)}(?![\w-])").search(
                    _without_comment(lines[number]), begin
                )
                if match:
                    line, column, start = number + 1, match.start() + 1, number
                    break
        return Place(str(self.path), line, column)

    def _fail_in_syntax(self, message: str) -> NoReturn:
        position = re.search(r"\(at line (\d+), column (\d+)\)", message)
        lines = self.text.splitlines()
        line, column = map(int, position.groups()) if position else (max(1, len(lines)), 1)
        message = message.split(" (at ")[0]
        raise located(f"not valid TOML: {message}", Place(str(self.path), line, column), lines)

    # ---- values

    def words(self, keys: list[str], value: Any) -> tuple[str, ...]:
        if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
            self.fail(f"{keys[-1]}: expected a list of strings", keys)
        return tuple(value)

    def patterns(self, keys: list[str], value: Any) -> tuple[str, ...]:
        words = self.words(keys, value)
        for word in words:
            self.pattern(keys, word)
        return words

    def pattern(self, keys: list[str], word: str) -> None:
        if pattern_of(word) is None:
            self.fail(f"'{word}' is no pattern", [*keys, word])

    def rules(self, keys: list[str], value: Any) -> tuple[str, ...]:
        words = self.words(keys, value)
        for word in words:
            self.rule(keys, word)
        return words

    def rule(self, keys: list[str], word: object) -> str:
        if not isinstance(word, str):
            self.fail(f"{keys[-1]}: a rule is a string, such as 'GP101'", keys)
        if problem := unknown_rule(word):
            self.fail(f"{keys[-1]}: no rule '{word}'", [*keys, word], problem)
        return word

    def thresholds(self, keys: list[str], value: Any) -> dict[str, float]:
        limits = dict(THRESHOLDS)
        for key, number in self.table(keys, value).items():
            if key not in THRESHOLDS:
                hint = suggestion(key, THRESHOLDS) or f"known: {', '.join(THRESHOLDS)}"
                self.fail(f"thresholds: unknown key '{key}'", [*keys, key], hint)
            limits[key] = self.positive([*keys, key], number)
        if wrong := misordered(limits):
            self.fail(wrong, keys)
        return limits

    def table(self, keys: list[str], value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            self.fail(f"{keys[-1]}: expected a table", keys)
        return value

    def positive(self, keys: list[str], value: Any) -> float:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not 0 < value <= sys.float_info.max:
            self.fail(f"{keys[-1]}: expected a number greater than 0", keys)
        return float(value)

    def factor(self, keys: list[str], value: Any) -> float:
        if (factor := self.positive(keys, value)) < 1:
            self.fail(f"{keys[-1]}: a factor of at least 1", keys)
        return factor

    def boolean(self, keys: list[str], value: Any) -> bool:
        if not isinstance(value, bool):
            self.fail(f"{keys[-1]}: expected true or false", keys)
        return value

    def trial(self, keys: list[str], value: Any) -> str:
        if value != AUTO and not isinstance(value, bool):
            self.fail(f'{keys[-1]}: expected true, false or "auto"', keys)
        return {True: ALWAYS, False: NEVER}.get(value, AUTO)

    def whole(self, keys: list[str], value: Any, most: int = 2**40) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
            self.fail(f"{keys[-1]}: expected an integer from 1 to {most:,}", keys)
        return value

    def size(self, keys: list[str], value: Any) -> int:
        if not isinstance(value, str):
            return self.whole(keys, value)
        try:
            return parse_bytes(value)
        except InputError as error:
            self.fail(f"{keys[-1]}: '{value}' is not a size", keys, error.hint)

    def seeds(self, keys: list[str], value: Any) -> tuple[int, ...]:
        if isinstance(value, list):
            if not value or not all(is_seed(seed) for seed in value):
                self.fail("seeds: a number of seeds, or a list of integers of at least 0", keys)
            return tuple(dict.fromkeys(value))
        return tuple(range(self.whole(keys, value, MAX_SEEDS)))

    def severity(self, keys: list[str], value: Any) -> str:
        if value not in SEVERITIES:
            hint = suggestion(str(value), SEVERITIES) or f"known: {', '.join(SEVERITIES)}"
            self.fail(f"{keys[-1]}: unknown severity '{value}'", keys, hint)
        return str(value)

    def per_file_ignores(self, keys: list[str], value: Any) -> tuple[PerFileIgnore, ...]:
        """The ignores of ``"legacy/*.yaml" = [{rule = "GP103", reason = "…"}]``, or words alone."""
        ignores = []
        for pattern, entries in self.table(keys, value).items():
            inside = [*keys, pattern]
            self.pattern(keys, pattern)
            if not isinstance(entries, list):
                self.fail(f"{pattern}: expected a list of rules", inside)
            for entry in entries:
                rule, reason = self._ignore(inside, entry)
                ignores.append(PerFileIgnore(pattern, rule=rule, reason=reason))
        return tuple(ignores)

    def _ignore(self, keys: list[str], entry: Any) -> tuple[str, str]:
        if not isinstance(entry, dict):
            return self.rule(keys, entry), f"per-file-ignores in {self.path.name}"
        if set(entry) != {"rule", "reason"}:
            wrong = next((key for key in entry if key not in ("rule", "reason")), None)
            hint = "{rule = 'GP103', reason = 'a warm-up makes up for it'}"
            message = f"unknown key '{wrong}'" if wrong else "a rule and a reason are needed"
            self.fail(f"per-file-ignores: {message}", keys, hint)
        reason = entry["reason"]
        if not isinstance(reason, str) or not reason.strip():
            self.fail("per-file-ignores: the reason is empty", keys)
        return self.rule(keys, entry["rule"]), reason


def unknown_rule(word: str) -> str:
    """What to say of a word that names no rule; an empty string where it names one."""
    if any(rule.named(word) for rule in RULES):
        return ""
    return suggestion(word, [rule.name for rule in RULES]) or "gradprobe rules lists them"


def _key(word: str) -> str:
    """A pattern for a key or a string as TOML may write it, quoted or not."""
    return rf"[\"']?{re.escape(word)}[\"']?"


def _without_comment(line: str) -> str:
    quote = ""
    for index, character in enumerate(line):
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character == "#":
            return line[:index]
    return line
