"""Paths as the user names them → the spec files to check, in one fixed order."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from pathspec import GitIgnoreSpec

from gradprobe.config import CheckOptions

# Never searched, whatever a .gitignore says; a file named outright is checked wherever it lies.
SKIPPED = frozenset({"node_modules", "site-packages", "venv", "__pycache__"})
_SUFFIXES = (".yaml", ".yml")
# `layers:` at the top, or `model:` with a `target:` in it.
_BLOCK = re.compile(
    rb"^(\xef\xbb\xbf)?[\"']?(layers[\"']?\s*:|model[\"']?\s*:\s*(\{|\n)(.|\n)*target[\"']?\s*:)",
    re.M,
)
_FLOW = re.compile(rb"[{,]\s*[\"']?(layers[\"']?\s*:|model[\"']?\s*:\s*\{[^}]*target)")


class Found(NamedTuple):
    """What the paths come down to: the files to check, and the paths that led to none."""

    files: tuple[str, ...]  # sorted; relative to the working directory where they lie below it
    missing: tuple[tuple[str, str], ...]  # (path, why)


OptionsOf = Callable[[Path], CheckOptions]  # of the files in a directory


def discover(paths: Iterable[str], options_of: OptionsOf, force_exclude: bool = False) -> Found:
    """The files that ``paths`` name: files, directories, globs and ``-``, each file once.

    A directory stands for the specs below it that neither a .gitignore nor ``exclude`` leaves out;
    a YAML file is taken for one by its key ``layers``. A file named outright is checked in any
    case, unless ``force_exclude`` says that ``exclude`` holds for it too.
    """
    excluded = _Excluded(options_of)
    files: dict[str, str] = {}  # by real path
    missing = []
    for path in paths:
        named = [path]
        if path != "-" and not os.path.lexists(path):
            named = sorted(glob.glob(path, recursive=True)) if glob.has_magic(path) else []
            if not named:
                missing.append((path, _why_missing(path)))
        for one in named:
            if os.path.isdir(one):
                below = list(_specs_below(Path(one), excluded))
                if not below and one == path:
                    missing.append((path, "no spec below this directory"))
                for file in below:
                    files.setdefault(os.path.realpath(file), shown(file))
            elif one == "-":
                files.setdefault("-", "-")
            elif not (force_exclude and excluded(Path(one))):
                files.setdefault(os.path.realpath(one), shown(one))
    return Found(tuple(sorted(files.values())), tuple(missing))


def shown(path: str | Path) -> str:
    """A path as it is shown: relative to the working directory where it lies below it."""
    absolute = os.path.abspath(path)
    inside = os.path.commonpath([absolute, os.getcwd()]) == os.getcwd()
    return (os.path.relpath(absolute) if inside else absolute).replace(os.sep, "/")


def shard(files: tuple[str, ...], number: int, count: int) -> tuple[str, ...]:
    """Every ``count``-th of the sorted files, from the ``number``-th on; numbers count from 1."""
    return files[number - 1 :: count]


def matches(patterns: Iterable[str], root: str, path: str | Path) -> bool:
    """Whether .gitignore-like patterns, relative to ``root``, match a file below it."""
    try:
        inside = Path(os.path.abspath(path)).relative_to(os.path.abspath(root))
    except ValueError:
        return False
    return bool(GitIgnoreSpec.from_lines(patterns).match_file(inside.as_posix()))


class _Excluded:
    """Whether a path is left out by the ``exclude`` of the configuration that counts for it."""

    def __init__(self, options_of: OptionsOf) -> None:
        self.options_of = options_of

    def __call__(self, path: Path) -> bool:
        options = self.options_of(Path(os.path.abspath(path)).parent)
        name = f"{path}/" if path.is_dir() else path
        return bool(options.exclude) and matches(options.exclude, options.root, name)


def _specs_below(folder: Path, excluded: _Excluded) -> Iterator[str]:
    """The specs below a directory, sorted, with every .gitignore from the repository's root on."""
    ignores = _gitignores_above(folder)
    for place, folders, names in os.walk(folder):
        ignores[place] = _gitignore(Path(place))
        active = [(root, spec) for root, spec in ignores.items() if spec and _below(place, root)]
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".")
            and name not in SKIPPED
            and not _ignored(active, os.path.join(place, name) + "/")
            and not excluded(Path(place, name))
        )
        for name in sorted(names):
            path = os.path.join(place, name)
            left_out = _ignored(active, path) or excluded(Path(path))
            if name.endswith(_SUFFIXES) and not left_out and _is_spec(path):
                yield path


def _is_spec(path: str) -> bool:
    """Whether a file looks like a spec; one that cannot be read does, so that it is not missed."""
    try:
        with open(path, "rb") as stream:
            data = stream.read(1 << 20)
    except OSError:
        return True
    return bool(_BLOCK.search(data)) or (
        data.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"{" and bool(_FLOW.search(data))
    )


def _gitignore(folder: Path) -> GitIgnoreSpec | None:
    try:
        lines = (folder / ".gitignore").read_text("utf-8", errors="replace").splitlines()
        return GitIgnoreSpec.from_lines(lines)
    except (OSError, ValueError):
        return None


def _gitignores_above(folder: Path) -> dict[str, GitIgnoreSpec | None]:
    """Those of the directories above, up to the root of the repository, outermost first."""
    found = []
    for parent in Path(os.path.abspath(folder)).parents:
        found.append(parent)
        if (parent / ".git").exists():
            return {str(one): _gitignore(one) for one in reversed(found)}
    return {}


def _ignored(active: list[tuple[str, GitIgnoreSpec]], path: str) -> bool:
    """The innermost .gitignore that says anything of a path decides."""
    for root, spec in reversed(active):
        inside = os.path.relpath(path, root).replace(os.sep, "/")
        said = spec.check_file(inside + ("/" if path.endswith("/") else "")).include
        if said is not None:
            return said
    return False


def _below(place: str, root: str) -> bool:
    absolute, above = os.path.abspath(place), os.path.abspath(root)
    return os.path.commonpath([absolute, above]) == above


def _why_missing(path: str) -> str:
    if not path:
        return "the path is empty"
    return "the pattern matches nothing" if glob.has_magic(path) else "no such file or directory"
