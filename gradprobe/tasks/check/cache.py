"""Measurements on disk, so that what has not changed is not measured again.

Measurements are kept and not verdicts: a new threshold needs no new run. Where a spec is wrong,
what is wrong with it is kept. An entry's name is a hash of the target's bytes, the resolved options
and the versions of gradprobe and torch. Its first line binds the rest to that name by a secret of
the user's, kept outside of every tree: what is damaged, or came with a clone, is measured anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import secrets
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from gradprobe._version import __version__
from gradprobe.files import read_regular, replace_file
from gradprobe.spec.options import ProbeOptions
from gradprobe.spec.weights import digest_of
from gradprobe.worker.exchange import Reply, decode

NAME = ".gradprobe_cache"
MAX_BYTES = 1 << 26  # of an entry
_FORMAT = "11"  # of the entries
_TAG = "Signature: 8a477f597d28d172789f06886806bc55\n# This directory is gradprobe's cache.\n"


class DamagedError(Exception):
    """An entry that is not what was written."""


class Cache:
    """The entries below one directory, which is made when the first is written.

    Raises:
        OSError: the user's secret cannot be had.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.secret = _secret()

    def reply(self, key: str) -> Reply | None:
        """What is kept under ``key``; ``None`` where there is nothing.

        Raises:
            DamagedError: there is one, and it is not what was written.
        """
        path = self._path(key)
        try:
            if path.parent.is_symlink():
                raise DamagedError("its folder is a link")
            text = read_regular(path, MAX_BYTES).decode()
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise DamagedError(str(error)) from error
        digest, _, body = text.partition("\n")
        if not hmac.compare_digest(digest.encode(), self._digest(key, body).encode()):
            raise DamagedError("it was not written here")
        try:
            reply = decode(Reply, body)
        except ValueError as error:
            raise DamagedError(str(error)) from error
        if reply.result is None:
            raise DamagedError("it is empty")
        return reply

    def write(self, key: str, body: str) -> None:
        """Keep an encoded ``Reply``, whole or not at all, also when two runs write at once.

        Raises:
            OSError: it could not be written.
        """
        path = self._path(key)
        if not path.parent.is_dir():
            new = not self.folder.exists()
            path.parent.mkdir(parents=True, exist_ok=True)
            if new:  # a directory that was there belongs to someone
                replace_file(self.folder / "CACHEDIR.TAG", _TAG)
                replace_file(self.folder / ".gitignore", "*\n")
        if path.parent.is_symlink():
            raise OSError(f"{path.parent} is a link")
        replace_file(path, f"{self._digest(key, body)}\n{body}")

    def _digest(self, key: str, body: str) -> str:
        return hmac.new(self.secret, f"{key}\n{body}".encode(), "sha256").hexdigest()

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / key[2:]


def key_of(data: bytes, options: ProbeOptions, torch_version: str) -> str:
    """The name of the entry for a target of these bytes, probed with these options.

    Neither the target's name nor what it is judged by counts: a file may be renamed, and another
    limit judges the same numbers. Of a file with data its bytes count.

    Raises:
        InputError: the data cannot be read.
    """
    versions = [_FORMAT, __version__, torch_version]
    if options.data is not None:
        versions.append(digest_of(options.data))
    head = json.dumps([versions, asdict(options)], sort_keys=True).encode()
    return hashlib.sha256(head + b"\0" + data).hexdigest()


def open_cache(folder: Path, warn: Callable[[str], None]) -> Cache | None:
    """The cache in a directory, or ``None``, with a warning, where it is not to be believed."""
    try:
        reason = _foreign(folder)
        if not reason:
            return Cache(folder)
    except OSError as error:
        reason = str(error)
    warn(f"no cache: {folder}: {reason}")
    return None


def _foreign(folder: Path) -> str:
    """Why a directory is no cache of this user's; an empty string where it may be."""
    if folder.is_symlink():
        return "it is a link"
    if not folder.exists():
        return ""
    if not folder.is_dir():
        return "it is no directory"
    if hasattr(os, "getuid") and folder.stat().st_uid != os.getuid():
        return "it belongs to another user"
    for parent in folder.absolute().parents:
        with contextlib.suppress(OSError):
            name = folder.absolute().relative_to(parent).as_posix()
            if f"{name}/".encode() in read_regular(parent / ".git" / "index", MAX_BYTES):
                return "git tracks it"
    return ""


def _secret() -> bytes:
    """64 digits in the user's own state directory, made the first time."""
    path = _state() / "gradprobe" / "secret"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, new = tempfile.mkstemp(dir=path.parent, prefix=".secret-")  # its mode is 0600
        try:
            with os.fdopen(handle, "w") as stream:
                stream.write(secrets.token_hex(32))
            with contextlib.suppress(FileExistsError):  # another run was first
                os.link(new, path)
        finally:
            os.unlink(new)
    secret = read_regular(path, 64)
    if len(secret) < 64:
        raise OSError(f"{path} is damaged: remove it")
    return secret


def _state() -> Path:
    state = Path(os.environ.get("XDG_STATE_HOME", ""))
    if state.is_absolute():  # a relative one is to be ignored, says the standard
        return state
    try:
        return Path.home() / ".local" / "state"
    except RuntimeError as error:
        raise OSError("this user has no home directory") from error
