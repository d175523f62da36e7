"""Paths as the user names them → the spec files to check, in one fixed order."""

from __future__ import annotations

import codecs
import glob
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import yaml

from gradprobe.files import SPEC_SUFFIXES, near_file, open_regular, outside, read_start
from gradprobe.spec.options import CheckOptions
from gradprobe.tasks.check.ignore import Pattern, ignored, matches, read_patterns

# Never searched, whatever a .gitignore says; a file named outright is checked wherever it lies.
SKIPPED = frozenset({"node_modules", "site-packages", "venv", "__pycache__"})
_HINTED = 5  # so many missing paths get a suggestion, which reads their folder
# Most specs have `layers:` at the beginning of a line; the others are parsed to find out.
_BLOCK = re.compile(rb"^(\xef\xbb\xbf)?[\"']?layers[\"']?\s*:", re.M)


class Missing(NamedTuple):
    """A path that led to no spec."""

    path: str
    why: str
    hint: str = ""


class Discovery(NamedTuple):
    """The files to check, and the paths that led to none."""

    files: tuple[str, ...]  # sorted; relative to the working directory where they lie below it
    missing: tuple[Missing, ...]


OptionsOf = Callable[[Path], CheckOptions]  # of the files in a directory


def discover(paths: Iterable[str], options_of: OptionsOf, force_exclude: bool = False) -> Discovery:
    """The files that ``paths`` name: files, directories, globs and ``-``, each file once.

    A directory stands for the specs below it that neither a .gitignore nor ``exclude`` leaves out;
    a YAML file is taken for one by its key ``layers``. A file named outright is checked in any
    case, unless ``force_exclude`` says that ``exclude`` holds for it too.
    """
    excluded = _Excluded(options_of)
    files: dict[str, str] = {}  # by real path
    missing: list[Missing] = []
    for path in paths:
        named = [path]
        if path != "-" and not os.path.lexists(path):
            named = _matching(path) if glob.has_magic(path) else []
            if not named:
                missing.append(_missing(path, hinted=len(missing) < _HINTED))
        for name in named:
            if os.path.isdir(name):
                before = len(missing)
                below = list(_specs_below(Path(name), excluded, missing))
                if not below and name == path and len(missing) == before:
                    why = "no spec below it that is not ignored or excluded"
                    missing.append(Missing(path, why))
                for file in below:
                    files.setdefault(os.path.realpath(file), shown(file))
            elif name == "-":
                files.setdefault("-", "-")
            elif not (force_exclude and excluded(Path(name))):
                files.setdefault(os.path.realpath(name), shown(name))
    return Discovery(tuple(sorted(files.values())), tuple(missing))


def shown(path: str | Path) -> str:
    """A path as it is shown: relative to the working directory where it lies below it."""
    absolute = os.path.abspath(path)
    inside = _below(absolute, os.getcwd())
    return (os.path.relpath(absolute) if inside else absolute).replace(os.sep, "/")


def shard(files: tuple[str, ...], number: int, count: int) -> tuple[str, ...]:
    """Every ``count``-th of the sorted files, from the ``number``-th on; numbers count from 1."""
    return files[number - 1 :: count]


class _Excluded:
    """Whether a path is left out by the ``exclude`` of the configuration that counts for it."""

    def __init__(self, options_of: OptionsOf) -> None:
        self.options_of = options_of

    def __call__(self, path: Path) -> bool:
        options = self.options_of(Path(os.path.abspath(path)).parent)
        if not options.exclude:
            return False
        name = f"{path}/" if path.is_dir() else path
        return matches(options.exclude, options.exclude_root, name)


def _matching(pattern: str) -> list[str]:
    """The files that a glob matches; ``**`` goes into no hidden directory and no symbolic link."""
    if "**" not in pattern:
        return sorted(glob.glob(pattern))
    fixed = pattern[: min(i for i in map(pattern.find, "*?[") if i >= 0)].rpartition("/")[0]
    root = fixed or ("/" if pattern.startswith("/") else ".")
    wanted = pattern.removeprefix("./") if fixed in ("", ".") else pattern[len(fixed) :]
    anchored = [f"/{wanted.lstrip('/')}"]
    matching = []
    for place, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".") and name not in SKIPPED]
        paths = [os.path.join(place, name) for name in names]
        matching += [path for path in paths if matches(anchored, root, path)]
    return sorted(path.removeprefix("./") for path in matching)


def _specs_below(folder: Path, excluded: _Excluded, missing: list[Missing]) -> Iterator[str]:
    """The specs below a directory, sorted, with every .gitignore from the repository's root on."""
    ignores = _gitignores_above(folder, missing)

    def unlisted(error: OSError) -> None:
        missing.append(Missing(shown(error.filename), f"cannot be listed: {error.strerror}"))

    for place, folders, names in os.walk(folder, onerror=unlisted):
        ignores[place] = _gitignore(Path(place), missing)
        active = [(root, patterns) for root, patterns in ignores.items() if _below(place, root)]
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".")
            and name not in SKIPPED
            and not ignored(active, os.path.join(place, name), True)
            and not excluded(Path(place, name))
        )
        for name in sorted(names):
            path = os.path.join(place, name)
            if not name.endswith(SPEC_SUFFIXES) or ignored(active, path, False):
                continue
            if excluded(Path(path)):
                continue
            if why := _unfit(path, folder):
                missing.append(Missing(shown(path), why))
            elif _is_spec(path):
                yield path


def _unfit(path: str, folder: Path) -> str:
    """Why a file that was found is not read; an empty string where it may be."""
    try:
        open_regular(path).close()
    except OSError as error:
        return f"cannot be read: {(error.strerror or str(error)).lower()}"
    if outside(path, folder):
        return "a link out of the tree that is checked: name it to have it read"
    return ""


def _is_spec(path: str) -> bool:
    """Whether a file looks like a spec."""
    data = read_start(path, 1 << 20)
    if _BLOCK.search(data):
        return True
    if data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        return b"layers" in data.replace(b"\0", b"")
    return any(word in data for word in (b"layers", b"model")) and _has_keys(data)


def _has_keys(data: bytes) -> bool:
    """Whether the outermost mapping has the keys of a spec, however it is written."""
    depth, keys, count = 0, set(), 0
    try:
        for event in yaml.parse(data.decode("utf-8", "replace"), yaml.SafeLoader):
            if isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
            if depth == 1 and not isinstance(event, yaml.CollectionEndEvent):
                if count % 2 == 0 and isinstance(event, yaml.ScalarEvent):
                    keys.add(event.value)
                count += 1
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
                if depth == 1 and not isinstance(event, yaml.MappingStartEvent):
                    return False
    except (yaml.YAMLError, ValueError, RecursionError):
        pass  # what came before the error decides
    return "layers" in keys or ("model" in keys and b"target" in data)


def _gitignore(folder: Path, missing: list[Missing]) -> tuple[Pattern, ...]:
    file = folder / ".gitignore"
    try:
        return read_patterns(file)
    except OSError as error:
        missing.append(Missing(shown(file), f"cannot be read: {error.strerror}"))
        return ()


def _gitignores_above(folder: Path, missing: list[Missing]) -> dict[str, tuple[Pattern, ...]]:
    """The .gitignore of each directory above, from the root of the repository inwards."""
    folders = []
    for parent in Path(os.path.abspath(folder)).parents:
        folders.append(parent)
        if (parent / ".git").exists():
            return {str(folder): _gitignore(folder, missing) for folder in reversed(folders)}
    return {}


def _below(place: str, root: str) -> bool:
    absolute, above = os.path.abspath(place), os.path.abspath(root)
    return os.path.commonpath([absolute, above]) == above


def _missing(path: str, hinted: bool) -> Missing:
    if not path:
        return Missing(path, "the path is empty")
    if glob.has_magic(path):
        return Missing(path, "the pattern matches nothing")
    hint = near_file(Path(path), folders=True) if hinted else ""
    return Missing(path, "no such file or directory", hint)
