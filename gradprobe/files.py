"""Files: the nearest name, and writing that leaves an old file whole."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from gradprobe.errors import InputError, suggested

SPEC_SUFFIXES = (".yaml", ".yml")


def near_file(path: Path, *others: str, folders: bool = False) -> str:
    """``did you mean 'net.yaml'?``: a spec beside a missing one, or another word, of such a name.

    ``folders``: or a folder there that is not hidden.
    """
    try:
        beside = [
            entry.name
            for entry in os.scandir(path.parent)
            if entry.name.endswith(SPEC_SUFFIXES)
            or (folders and entry.name[0] != "." and entry.is_dir())
        ]
    except (OSError, ValueError):
        beside = []
    near = {Path(name).stem: str(path.with_name(name)) for name in beside if name != path.name}
    return suggested(path.stem, {word: word for word in others} | near)


def write_atomically(path: str, text: str) -> None:
    """Write ``text`` to ``path``, whole or not at all: an old file stays intact on failure.

    Raises:
        InputError: the file cannot be written.
    """
    if not path:
        raise InputError("-o: the name of the file is empty")
    target = Path(path)
    try:
        if target.exists() and not target.is_file():  # /dev/stdout, a pipe
            target.write_text(text, encoding="utf-8")
            return
        if target.exists() and not os.access(target, os.W_OK):
            raise PermissionError(13, "Permission denied")
        replace_file(target, text)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error


def replace_file(path: Path, text: str) -> None:
    """Put a file with ``text`` in the place of what is there, whose mode it keeps, or nothing.

    Raises:
        OSError: it cannot be written; the old one is as it was.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".gradprobe-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as stream:
            stream.write(text)
        mode = path.stat().st_mode if path.exists() else 0o666 & ~_umask()
        with contextlib.suppress(OSError):  # some file systems have no modes
            os.chmod(name, mode & 0o777)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
