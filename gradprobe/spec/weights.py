"""``--weights FILE`` → the files that a checkpoint is made of. Reads names; imports no torch."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from gradprobe.errors import InputError
from gradprobe.files import open_regular, read_regular
from gradprobe.spec.network import Weights
from gradprobe.spec.options import Shown, option

T = TypeVar("T")
INDEX = ".index.json"
_MOST_IN_INDEX = 1 << 26  # bytes
_MOST_SHARDS = 10_000


@dataclass(frozen=True, slots=True)
class WeightsOptions:
    """What the command line says about a checkpoint.

    Raises:
        InputError: there is a prefix, and no file.
    """

    file: str | None = option(
        None,
        Shown("A checkpoint: .safetensors, .pt or *.index.json.", ("--weights",), metavar="FILE"),
    )
    prefix: str = option(
        "",
        Shown("Take its keys that begin so, without it.", ("--weights-prefix",), metavar="PREFIX"),
    )

    def __post_init__(self) -> None:
        if self.prefix and not self.file:
            raise InputError("--weights-prefix is about a checkpoint", hint="--weights FILE")

    @property
    def weights(self) -> Weights | None:
        """The checkpoint, where there is one."""
        return Weights(self.file, self.prefix) if self.file else None


def gathered(file: str, read: Callable[[Path], Mapping[str, T]]) -> dict[str, T]:
    """What ``read`` gives of a checkpoint's file, by key; of a sharded one for the index's keys.

    Raises:
        InputError: as ``shards_of`` and ``read``; a shard lacks a key that the index says it has.
    """
    if not file.endswith(INDEX):
        return dict(read(Path(file)))
    keys: dict[Path, list[str]] = {}
    for key, shard in shards_of(file).items():
        keys.setdefault(shard, []).append(key)
    state: dict[str, T] = {}
    for shard, names in keys.items():
        held = read(shard)
        if missing := [name for name in names if name not in held]:
            raise InputError(f"{file}: {shard.name} does not hold '{missing[0]}'")
        state |= {name: held[name] for name in names}
    return state


def shards_of(file: str) -> dict[str, Path]:
    """The keys of a sharded checkpoint, each with the file beside the index that holds it.

    A shard that is a link may lead to where the index itself leads, as in Hugging Face's cache.

    Raises:
        InputError: it cannot be read, is no index, or names a file of another folder.
    """
    try:
        index = json.loads(read_regular(file, _MOST_IN_INDEX))
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file} is not JSON: {type(error).__name__}") from error
    names = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(names, dict) or not names:
        raise InputError(f"{file}: no 'weight_map': this is no index of a sharded checkpoint")
    if len(set(map(str, names.values()))) > _MOST_SHARDS:
        raise InputError(f"{file}: more than {_MOST_SHARDS:,} files")
    return {key: _beside(file, name) for key, name in names.items()}


def _beside(file: str, name: object) -> Path:
    """The file called ``name`` in the folder of an index."""
    if not isinstance(name, str) or name in ("", ".", "..") or "/" in name or "\\" in name:
        raise InputError(f"{file}: '{name}' is no file beside it")
    shard = Path(file).with_name(name)
    folders = {Path(file).parent.resolve(), Path(file).resolve().parent}
    if shard.resolve().parent not in folders:
        raise InputError(f"{file}: '{name}' leads out of its folder")
    return shard


def digest_of(file: str) -> str:
    """SHA-256 over all bytes of a checkpoint, its shards included.

    Raises:
        InputError: a file cannot be read.
    """
    sharded = file.endswith(INDEX)
    digest = hashlib.sha256()
    for path in [Path(file), *sorted(set(shards_of(file).values()))] if sharded else [Path(file)]:
        try:
            with open_regular(path) as stream:
                size = os.fstat(stream.fileno()).st_size
                digest.update(size.to_bytes(8, "big"))  # where one file ends and another begins
                while part := stream.read(1 << 20):
                    digest.update(part)
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    return digest.hexdigest()
