"""Measurements on disk, so that what has not changed is not measured again.

Measurements are kept and not verdicts: a new threshold needs no new run. Where a spec is wrong,
what is wrong with it is kept. An entry's name is a hash of the target's bytes, the resolved options
and the versions of gradprobe and torch; its first line is a hash of the rest, so that a damaged one
is found and measured anew.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

from gradprobe._version import __version__
from gradprobe.files import read_regular, replace_file
from gradprobe.measure.measurement import Measurement
from gradprobe.spec.options import ProbeOptions
from gradprobe.worker.exchange import Failure, Reply, decode

NAME = ".gradprobe_cache"
MAX_BYTES = 1 << 26  # of an entry
_FORMAT = "7"  # of the entries
_TAG = "Signature: 8a477f597d28d172789f06886806bc55\n# This directory is gradprobe's cache.\n"


class DamagedError(Exception):
    """An entry that is not what was written."""


class Cache:
    """The entries below one directory, which is made when the first is written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, key: str) -> Measurement | Failure | None:
        """What is kept under ``key``; ``None`` where there is nothing.

        Raises:
            DamagedError: there is one, and it is not what was written.
        """
        try:
            text = read_regular(self._path(key), MAX_BYTES).decode()
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise DamagedError(str(error)) from error
        digest, _, body = text.partition("\n")
        if digest != _digest(body):
            raise DamagedError("its checksum does not fit")
        try:
            entry = decode(Reply, body).result
        except ValueError as error:
            raise DamagedError(str(error)) from error
        if entry is None:
            raise DamagedError("it is empty")
        return entry

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
        replace_file(path, f"{_digest(body)}\n{body}")

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / key[2:]


def key_of(data: bytes, options: ProbeOptions, torch_version: str) -> str:
    """The name of the entry for a target of these bytes, probed with these options.

    Neither the target's name nor what it is judged by counts: a file may be renamed, and another
    limit judges the same numbers.
    """
    versions = [_FORMAT, __version__, torch_version]
    head = json.dumps([versions, asdict(options)], sort_keys=True).encode()
    return hashlib.sha256(head + b"\0" + data).hexdigest()


def _digest(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()
