"""Patterns as a .gitignore writes them: read, and matched in time linear in pattern and path."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from gradprobe.files import read_regular

MAX_BYTES = 1 << 20  # of an ignore file
_WILD = re.compile(r"\*+|\?|\\.|\[[!^]?\]?(?:\\.|[^\\\]])*\]|[^*?\\\[]+")


class Pattern(NamedTuple):
    """One line: whether what it means is ignored or taken back, and what it means."""

    ignores: bool
    folders_only: bool
    regex: re.Pattern[str]

    def means(self, path: str, is_dir: bool) -> bool:
        """Whether it means this very file or directory, and not one above it."""
        return (is_dir or not self.folders_only) and self.regex.fullmatch(path) is not None


def pattern_of(line: str) -> Pattern | None:
    """The pattern of a line; ``None`` for a comment, an empty line and what means nothing."""
    text = re.sub(r"(?<!\\)\s+$", "", line)
    if text.startswith("#"):
        return None
    ignores = not text.startswith("!")
    text = text if ignores else text[1:]
    body = text.removesuffix("/")
    parts = body.removeprefix("/").split("/")
    if not body or "" in parts:
        return None
    parts = parts if "/" in body else ["**", *parts]
    try:
        regex = re.compile(_path(parts), re.DOTALL)
    except (re.error, ValueError):
        return None
    return Pattern(ignores, text.endswith("/"), regex)


@cache
def _patterns(lines: tuple[str, ...]) -> tuple[Pattern, ...]:
    return tuple(pattern for line in lines if (pattern := pattern_of(line)))


def read_patterns(file: Path) -> tuple[Pattern, ...]:
    """Those of an ignore file; none where there is none.

    Raises:
        OSError: it is no regular file, too large, or cannot be read.
    """
    try:
        text = read_regular(file, MAX_BYTES).decode(errors="replace")
    except FileNotFoundError:
        if file.is_symlink():
            raise
        return ()
    return _patterns(tuple(text.split("\n")))


def matches(lines: Iterable[str], root: str, path: str | Path) -> bool:
    """Whether patterns, relative to ``root``, match a file below it, or a folder it lies in.

    A path that ends in a slash is a folder.
    """
    try:
        inside = Path(os.path.abspath(path)).relative_to(os.path.abspath(root)).parts
    except ValueError:
        return False
    patterns = _patterns(tuple(lines))
    last_is_dir = str(path).endswith("/")
    return any(
        _said(patterns, "/".join(inside[:count]), count < len(inside) or last_is_dir)
        for count in range(1, len(inside) + 1)
    )


def ignored(active: Sequence[tuple[str, Sequence[Pattern]]], path: str, is_dir: bool) -> bool:
    """The last pattern that means this very path decides, the innermost file's last.

    Args:
        active: the directory of each ignore file, with its patterns.
    """
    said = False
    for root, patterns in active:
        said = _said(patterns, os.path.relpath(path, root).replace(os.sep, "/"), is_dir, said)
    return said


def _said(patterns: Sequence[Pattern], path: str, is_dir: bool, before: bool = False) -> bool:
    meant = (pattern.ignores for pattern in reversed(patterns) if pattern.means(path, is_dir))
    return next(meant, before)


def _path(parts: Sequence[str]) -> str:
    """An expression for names between slashes, some of them ``**``.

    What stands before another ``**`` takes the first place that it fits, for good (an atomic
    group): a later place would leave less for what follows, so none is ever tried.
    """
    runs: list[list[str]] = [[]]
    for part in parts:
        if part == "**":
            runs.append([])
        else:
            runs[-1].append(_name(part))
    first, *others = ["/".join(run) for run in runs]
    if not others:
        return first
    *middle, last = others
    text = f"{first}/" if first else ""
    text += "".join(rf"(?>(?:[^/]+/)*?{run}/)" for run in middle if run)
    return text + (rf"(?:[^/]+/)*{last}" if last else ".+")


def _name(part: str) -> str:
    """An expression for one name; its stars take the first fit for good, but the last one's."""
    tokens = _WILD.findall(part)
    if "".join(tokens) != part:
        raise ValueError(part)  # a bracket or a backslash without its end
    chunks = [""]
    for token in tokens:
        if token[0] == "*":
            chunks.append("")
        else:
            chunks[-1] += _token(token)
    first, *others = chunks
    if not others:
        return first
    *middle, last = others
    text = first + "".join(f"(?>[^/]*?{chunk})" for chunk in middle) + f"[^/]*{last}(?=/|$)"
    return f"(?=[^/]){text}"


def _span(match: re.Match[str]) -> str:
    """One character in brackets, or a range; a reversed one is its first character, as in git."""
    first, last = match[1][-1], (match[2] or match[1])[-1]
    return re.escape(first) if last <= first else f"{re.escape(first)}-{re.escape(last)}"


_RANGE = re.compile(r"(\\?.)(?:-(\\?.))?", re.DOTALL)  # in brackets: one character, or two ends


def _token(token: str) -> str:
    if token == "?":
        return "[^/]"
    if token[0] == "[":
        negated = token[1] in "!^"
        inside = token[2 if negated else 1 : -1]
        inside = _RANGE.sub(_span, inside)
        return f"(?!/)[{'^' if negated else ''}{inside}]"
    return re.escape(token[1:] if token[0] == "\\" else token)
