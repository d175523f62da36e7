"""Data files: pickles, damaged archives, arrays that do not fit."""

from __future__ import annotations

import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.bad_inputs import GOOD, WORDS, clean, told
from helpers.commands import Run
from safetensors.torch import save_file


class Evil:
    """Unpickled, it makes a directory."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize(
    "name", "a.pt a.pth a.pkl a.pickle a.bin a.npy a.npz a.safetensors a.ckpt a.yaml a".split()
)
def test_a_pickle_is_refused_and_never_read(run: Run, tmp_path: Path, name: str) -> None:
    (tmp_path / "good.yaml").write_text(GOOD)
    evil = tmp_path / name
    evil.write_bytes(pickle.dumps(Evil(tmp_path / "pwned")))
    results = [
        run("probe", str(tmp_path / "good.yaml"), "--data", str(evil)),
        run("probe", str(evil)),
    ]
    assert not (tmp_path / "pwned").exists()
    told(results[0], name)
    clean(results[1])
    for unsafe in ("allow_pickle", "weights_only"):  # no advice to read it after all
        assert unsafe not in results[0].err
    if name.endswith((".pt", ".pth", ".pkl")):
        assert "safetensors" in results[0].err


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_an_array_of_objects_is_refused(probe: Run, tmp_path: Path, suffix: str) -> None:
    evil = tmp_path / f"x{suffix}"
    array = np.array([Evil(tmp_path / "pwned")], dtype=object)
    with evil.open("wb") as stream:
        (np.save if suffix == ".npy" else np.savez)(stream, array)
    result = probe(GOOD, "--data", str(evil))
    assert not (tmp_path / "pwned").exists()
    told(result, f"x{suffix}")
    assert "allow_pickle" not in result.err


def header(body: bytes) -> bytes:
    return struct.pack("<Q", len(body)) + body


def tensor(**fields: Any) -> bytes:
    return header(json.dumps({"x": {"dtype": "F32", "shape": [2, 6], **fields}}).encode())


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(struct.pack("<Q", 2**40) + b"{}", id="header-of-2^40"),
        pytest.param(struct.pack("<Q", 2**64 - 1) + b"{}", id="header-of-2^64"),
        pytest.param(struct.pack("<Q", 0), id="header-of-0"),
        pytest.param(b"", id="empty"),
        pytest.param(b"\1\2\3", id="three-bytes"),
        pytest.param(header(b"{not json}"), id="not-json"),
        pytest.param(header(b"[" * 10_000), id="nested-json"),
        pytest.param(header(b"\xff\xfe{}"), id="not-utf-8"),
        pytest.param(tensor(data_offsets=[0, 2**50]) + bytes(48), id="offset-behind-the-end"),
        pytest.param(tensor(data_offsets=[48, 0]) + bytes(48), id="offsets-reversed"),
        pytest.param(tensor(shape=[2**40, 2**40], data_offsets=[0, 48]) + bytes(48), id="shape"),
        pytest.param(tensor(dtype="F99", data_offsets=[0, 48]) + bytes(48), id="dtype"),
        pytest.param(tensor(data_offsets=[0, 48]) + bytes(40), id="cut-short"),
        pytest.param(GOOD.encode(), id="a-spec"),
    ],
)
def test_safetensors(probe: Run, tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.safetensors").write_bytes(data)
    told(probe(GOOD, "--data", str(tmp_path / "x.safetensors")), "x.safetensors")


def npy(description: str) -> bytes:
    text = description.encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def npy_of(shape: str, dtype: str = "<f4") -> bytes:
    return npy(f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}") + bytes(64)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\x93NUMPY", id="magic-only"),
        pytest.param(npy_of("(8, 6)"), id="cut-short"),
        pytest.param(npy_of(f"({2**40}, 6)"), id="claims-26-TiB"),
        pytest.param(npy_of("(-8, 6)"), id="negative-shape"),
        pytest.param(npy_of("'x'"), id="shape-is-a-word"),
        pytest.param(npy_of("(2, 6)", "|O"), id="objects"),
        pytest.param(npy("__import__('os').mkdir('pwned')"), id="code-for-header"),
        pytest.param(npy("(" * 4000), id="nested-header"),
        pytest.param(b"1,2,3,4,5,6\n", id="comma-separated"),
    ],
)
def test_npy(probe: Run, tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.npy").write_bytes(data)
    told(probe(GOOD, "--data", str(tmp_path / "x.npy")), "x.npy")


ROWS = np.linspace(-1, 1, 48, dtype="f4").reshape(8, 6)
LABELS = np.arange(8) % 4


@pytest.mark.parametrize(
    ("arrays", "spec", "words"),
    [
        pytest.param({"x": ROWS[:, :5]}, GOOD, ("[5]", "[6]"), id="wrong-width"),
        pytest.param({"x": ROWS[0]}, GOOD, ("[]", "[6]"), id="one-sample-without-batch"),
        pytest.param({"x": ROWS[:0]}, GOOD, ("no samples",), id="no-samples"),
        pytest.param({"x": np.float32(3)}, GOOD, ("[6]",), id="a-scalar"),
        pytest.param({"x": ROWS + np.where(np.arange(6) == 4, np.nan, 0)}, GOOD, ("sample 0",),
                     id="nan"),
        pytest.param({"x": np.copysign(np.inf, ROWS)}, GOOD, ("infinity",), id="infinity"),
        pytest.param({"x": ROWS.astype("c8")}, GOOD, ("complex",), id="complex"),
        pytest.param({"x": ROWS.astype("U")}, GOOD, ("x.npz",), id="strings"),
        pytest.param({"x": ROWS.astype("i8").astype("M8[s]")}, GOOD, ("x.npz",), id="dates"),
        pytest.param({"a": ROWS, "b": ROWS}, GOOD, ("inputs", "a, b"), id="which-array"),
        pytest.param({}, GOOD, ("x.npz",), id="no-array"),
        pytest.param({"x": ROWS, "y": LABELS[:5]}, GOOD, ("label",), id="too-few-labels"),
        pytest.param({"x": ROWS, "y": LABELS + 1}, GOOD + "loss: cross_entropy\n", ("4 classes",),
                     id="label-out-of-range"),
        pytest.param({"x": ROWS, "y": -LABELS}, GOOD + "loss: cross_entropy\n", ("4 classes",),
                     id="label-negative"),
        pytest.param({"x": ROWS, "y": LABELS / 2}, GOOD + "loss: cross_entropy\n", ("integer",),
                     id="label-float"),
        pytest.param({"x": ROWS, "y": ROWS}, GOOD + "loss: mse\n", ("[4]", "[6]"), id="target"),
        pytest.param({"x": ROWS}, WORDS.replace("[5]", "[6]") + "layers: [Embedding: "
                     "{embedding_dim: 3}]\n", ("integer",), id="float-tokens"),
        pytest.param({"x": (ROWS > 0) * 11}, WORDS.replace("[5]", "[6]") + "layers: [Embedding: "
                     "{embedding_dim: 3}]\n", ("11", "10"), id="token-too-large"),
        pytest.param({"x": ((ROWS > 0) * 11).astype("u2")}, WORDS.replace("[5]", "[6]") + "layers: "
                     "[Embedding: {embedding_dim: 3}]\n", ("11", "10"), id="token-uint16"),
        pytest.param({"x": (ROWS > 0) * -1}, WORDS.replace("[5]", "[6]") + "layers: [Embedding: "
                     "{embedding_dim: 3}]\n", ("-1",), id="token-negative"),
    ],
)  # fmt: skip
def test_arrays_that_do_not_fit(
    probe: Run, tmp_path: Path, arrays: dict[str, Any], spec: str, words: tuple[str, ...]
) -> None:
    np.savez(tmp_path / "x.npz", **arrays)
    told(probe(spec, "--data", str(tmp_path / "x.npz")), *words)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda data: data[: len(data) // 2], id="cut-short"),
        pytest.param(lambda data: b"PK\3\4" + data[50:], id="header"),
        pytest.param(lambda data: data[:200] + bytes([data[200] ^ 255]) + data[201:], id="crc"),
        pytest.param(lambda data: b"", id="empty"),
    ],
)
def test_npz(probe: Run, tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, x=ROWS)
    path.write_bytes(damage(path.read_bytes()))
    told(probe(GOOD, "--data", str(path)), "x.npz")


def test_a_zip_bomb_is_refused_by_its_size(probe: Run, tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", npy_of("(8, 6)") + bytes(100 * 2**20))
    assert path.stat().st_size < 2**20
    told(probe(GOOD, "--data", str(path), "--max-memory", "64MiB"), "x.npz", "--max-memory")


def test_good_files_are_read(probe: Run, tmp_path: Path) -> None:
    """So that the cases above fail for the reason that they say."""
    np.save(tmp_path / "x.npy", ROWS)
    np.savez(tmp_path / "x.npz", x=ROWS, y=LABELS)
    save_file({"x": torch.from_numpy(ROWS.copy())}, tmp_path / "x.safetensors")
    for name in ("x.npy", "x.npz", "x.safetensors"):
        assert probe(GOOD, "--data", str(tmp_path / name)).code == 0
