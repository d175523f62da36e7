"""Paths as the user names them → the spec files to check, in one fixed order."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from gradprobe.files import SPEC_SUFFIXES, near_file, open_regular, outside, read_start
from gradprobe.spec.entry import Entry
from gradprobe.spec.options import CheckOptions
from gradprobe.tasks.check.ignore import Pattern, ignored, matches, read_patterns
from gradprobe.tasks.check.recognise import is_spec
from gradprobe.tasks.check.target import names_network

# Never searched, whatever a .gitignore says; a file named outright is checked wherever it lies.
SKIPPED = frozenset({"node_modules", "site-packages", "venv", "__pycache__"})
_HINTED = 5  # so many missing paths get a suggestion, which reads their folder
_READ = 1 << 20  # bytes of a file that may be a spec


class Missing(NamedTuple):
    """A path that led to no spec."""

    path: str
    why: str
    hint: str = ""


class Discovery(NamedTuple):
    """The files to check, and the paths that led to none."""

    files: tuple[str, ...]  # sorted; relative to the working directory where they lie below it
    missing: tuple[Missing, ...]
    entries: Mapping[str, Entry] = MappingProxyType({})  # of ``files``, the configuration's targets
    skipped: tuple[str, ...] = ()  # YAML files below the directories that are no specs


OptionsOf = Callable[[Path], CheckOptions]  # of the files in a directory


def discover(paths: Iterable[str], options_of: OptionsOf, force_exclude: bool = False) -> Discovery:
    """The files that ``paths`` name: files, directories, globs and ``-``, each file once.

    A directory stands for the specs below it that neither a .gitignore nor ``exclude`` leaves out;
    which files are, ``recognise.is_spec`` says, and the configuration's ``include``. A file named
    outright is checked in any case, unless ``force_exclude`` says that ``exclude`` holds for it.
    """
    excluded = _Excluded(options_of)
    files: dict[str, str] = {}  # by real path
    missing: list[Missing] = []
    skipped: list[str] = []
    entries: dict[str, Entry] = {}
    for path in paths:
        named = [path]
        if names_network(path):
            entries |= {e.label: e for e in options_of(Path()).targets if e.target == path}
            files.setdefault(path, path)
            continue
        if path != "-" and not os.path.lexists(path):
            named = _matching(path) if glob.has_magic(path) else []
            if not named:
                missing.append(_missing(path, hinted=len(missing) < _HINTED))
        for name in named:
            if os.path.isdir(name):
                before, others = len(missing), len(skipped)
                below = list(_specs_below(Path(name), excluded, missing, skipped))
                entries |= (own := _entries(Path(name), options_of))
                if not below and not own and name == path and len(missing) == before:
                    why = "no spec below it that is not ignored or excluded"
                    missing.append(Missing(path, why, _foreign(len(skipped) - others)))
                for file in below:
                    files.setdefault(os.path.realpath(file), shown(file))
            elif name == "-":
                files.setdefault("-", "-")
            elif not (force_exclude and excluded(Path(name))):
                files.setdefault(os.path.realpath(name), shown(name))
    every = sorted({*files.values(), *entries})
    return Discovery(tuple(every), tuple(missing), entries, tuple(skipped))


def _entries(folder: Path, options_of: OptionsOf) -> dict[str, Entry]:
    """The targets of the configuration that counts for a directory, if it lies in it or below."""
    options = options_of(folder)
    named = options.root == "."  # by --config
    return {e.label: e for e in options.targets if named or _below(e.folder, str(folder))}


def _foreign(count: int) -> str:
    """What to say of so many YAML files that are no specs, where there is nothing else."""
    files = "1 YAML file is" if count == 1 else f"{count} YAML files are"
    return f"{files} no spec: -v names what was skipped, 'gradprobe: 1' marks one" if count else ""


def shown(path: str | Path) -> str:
    """A path as it is shown: relative to the working directory where it lies below it."""
    absolute = os.path.abspath(path)
    inside = _below(absolute, os.getcwd())
    return (os.path.relpath(absolute) if inside else absolute).replace(os.sep, "/")


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

    def includes(self, path: Path) -> bool:
        """Whether the configuration's ``include`` says that this is a spec."""
        options = self.options_of(Path(os.path.abspath(path)).parent)
        return bool(options.include) and matches(options.include, options.root, path)


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


def _specs_below(
    folder: Path, excluded: _Excluded, missing: list[Missing], skipped: list[str]
) -> Iterator[str]:
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
            included = excluded.includes(Path(path))
            if not (included or name.endswith(SPEC_SUFFIXES)) or ignored(active, path, False):
                continue
            if excluded(Path(path)):
                continue
            if why := _unfit(path, folder):
                missing.append(Missing(shown(path), why))
            elif included or is_spec(name, read_start(path, _READ)):
                yield path
            else:
                skipped.append(shown(path))


def _unfit(path: str, folder: Path) -> str:
    """Why a file that was found is not read; an empty string where it may be."""
    try:
        open_regular(path).close()
    except OSError as error:
        return f"cannot be read: {(error.strerror or str(error)).lower()}"
    if outside(path, folder):
        return "a link out of the tree that is checked: name it to have it read"
    return ""


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
