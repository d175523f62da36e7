"""Files: reading that cannot hang, the nearest name, and writing that leaves an old file whole."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tempfile
from pathlib import Path
from typing import BinaryIO

from gradprobe.errors import InputError, suggested

_UNFINISHED: set[str] = set()  # the temporary files that are being written
SPEC_SUFFIXES = (".yaml", ".yml")


def open_regular(path: str | Path) -> BinaryIO:
    """Open a regular file to be read: every file that a user or a tree names is read by this.

    Raises:
        OSError: it cannot be opened, or is a directory, a pipe, a device or a socket.
    """
    _check_regular(os.stat(path))  # to open a device may already do something
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        _check_regular(os.fstat(handle))
    except OSError:
        os.close(handle)
        raise
    return os.fdopen(handle, "rb")


def _check_regular(status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file")


def read_start(path: str | Path, most: int) -> bytes:
    """The first ``most`` bytes of a regular file.

    Raises:
        OSError: as ``open_regular``.
    """
    with open_regular(path) as stream:
        return stream.read(most)


def read_regular(path: str | Path, most: int) -> bytes:
    """All of a regular file of at most ``most`` bytes.

    Raises:
        OSError: as ``open_regular``, or it is larger.
    """
    data = read_start(path, most + 1)
    if len(data) > most:
        raise OSError(errno.EFBIG, f"larger than {most >> 20} MiB")
    return data


def outside(path: str | Path, folder: str | Path = "") -> bool:
    """Whether a path leads, by a link, out of the tree that it seems to lie in.

    The tree is the repository around it, or else the working directory if it lies below that, or
    else the file's own folder. What lies below ``folder``, which was named, is inside too.
    """
    real, parent = Path(os.path.realpath(path)), Path(os.path.abspath(path)).parent
    above = (parent, *parent.parents)
    working = Path.cwd() if Path.cwd() in above else parent
    tree = next((place for place in above if (place / ".git").exists()), working)
    inside = [tree, *([folder] if folder else [])]
    return not any(real.is_relative_to(os.path.realpath(place)) for place in inside)


def in_tree_of(folder: str | Path, path: str | Path) -> bool:
    """Whether a path leads into the repository around a folder, or into the folder."""
    own = Path(os.path.abspath(folder))
    tree = next((place for place in (own, *own.parents) if (place / ".git").exists()), own)
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(tree))


def near_file(
    path: Path, *others: str, folders: bool = False, suffixes: tuple[str, ...] = SPEC_SUFFIXES
) -> str:
    """``did you mean 'net.yaml'?``: a spec beside a missing one, or another word, of such a name.

    ``folders``: or a folder there that is not hidden. ``suffixes``: of the files that may be meant.
    """
    try:
        beside = [
            entry.name
            for entry in os.scandir(path.parent)
            if entry.name.endswith(suffixes)
            or (folders and entry.name[0] != "." and entry.is_dir())
        ]
    except (OSError, ValueError):
        beside = []
    near = {Path(name).stem: str(path.parent / name) for name in beside if name != path.name}
    return suggested(path.stem, {word: word for word in others} | near)


def write_atomically(path: str, text: str | bytes) -> None:
    """Write ``text`` to ``path``, whole or not at all: an old file stays intact on failure.

    Raises:
        InputError: the file cannot be written.
    """
    if not path:
        raise InputError("-o: the name of the file is empty")
    target = Path(path)
    data = text.encode("utf-8", "backslashreplace") if isinstance(text, str) else text
    try:
        if target.exists() and not target.is_file():  # /dev/stdout, a pipe
            target.write_bytes(data)
            return
        if target.exists() and not os.access(target, os.W_OK):
            raise PermissionError(13, "Permission denied")
        if target.exists() and target.stat().st_nlink > 1:
            overwrite_file(target, data)
            return
        replace_file(target, data)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error


def overwrite_file(path: Path, data: bytes) -> None:
    """Write into a file that has other names (hard links), which go on being its names.

    Raises:
        OSError: it cannot be written; the old text is put back.
    """
    old = path.read_bytes()
    try:
        path.write_bytes(data)
    except OSError:
        path.write_bytes(old)
        raise


def replace_file(path: Path, text: str | bytes) -> None:
    """Put a file with ``text`` in the place of what is there, whose mode it keeps, or nothing.

    Raises:
        OSError: it cannot be written; the old one is as it was.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".gradprobe-")
    _UNFINISHED.add(name)
    try:
        data = text.encode("utf-8", "backslashreplace") if isinstance(text, str) else text
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
        mode = path.stat().st_mode if path.exists() else 0o666 & ~_umask()
        with contextlib.suppress(OSError):  # some file systems have no modes
            os.chmod(name, mode & 0o777)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    finally:
        _UNFINISHED.discard(name)


def remove_unfinished() -> None:
    """Take away the temporary files of what is being written, before the process ends at once."""
    for name in list(_UNFINISHED):
        Path(name).unlink(missing_ok=True)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
