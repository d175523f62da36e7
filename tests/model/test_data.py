"""A batch from a file: .npy, .npz and .safetensors, and what is refused."""

from __future__ import annotations

import gc
import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.commands import Result
from safetensors.numpy import save_file

import gradprobe
from gradprobe.model.batch import INPUT_KEYS, LABEL_KEYS, load_batch, random_batch
from gradprobe.spec.network import InputSpec

GIB = 2**30
VECTOR = InputSpec((3,))
TOKENS = InputSpec((3,), tokens=10)
X = np.arange(60, dtype=np.float32).reshape(20, 3) / 10
SPEC = "input: {shape: [3]}\nlayers: [Linear: {out_features: 4}, Tanh, Linear: {out_features: 4}]\n"


def write(path: Path, **arrays: np.ndarray) -> str:
    """The arrays in the format that the path's suffix names."""
    if path.suffix == ".npy":
        [array] = arrays.values()
        np.save(path, array)
    elif path.suffix == ".npz":
        np.savez(path, **arrays)
    else:
        save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, path)
    return str(path)


def load(path: str, spec: InputSpec = VECTOR, size: int | None = None, limit: int = GIB) -> Any:
    return load_batch(path, spec, size, limit)


def refused(path: str, spec: InputSpec = VECTOR, **options: Any) -> str:
    with pytest.raises(gradprobe.InputError) as caught:
        load(path, spec, **options)
    assert Path(path).name in str(caught.value)
    return str(caught.value)


# ---- what is read


def test_of_many_arrays_without_inputs_eight_are_named(tmp_path: Path) -> None:
    path = tmp_path / "many.npz"
    np.savez(path, **dict.fromkeys("jihgfedcba", X))
    assert refused(str(path)).endswith("among its arrays: a, b, c, d, e, f, g, h")


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors", ".NPY"])
def test_each_format_gives_the_same_batch(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"batch{suffix}"
    if suffix == ".NPY":
        path.write_bytes(Path(write(tmp_path / "batch.npy", x=X)).read_bytes())
    else:
        write(path, x=X)
    batch = load(str(path))
    assert torch.equal(batch.inputs, torch.from_numpy(X))
    assert batch.inputs.dtype is torch.float32
    assert batch.labels is None


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize("inputs", INPUT_KEYS)
@pytest.mark.parametrize("labels", LABEL_KEYS)
def test_inputs_and_labels_are_found_by_their_names(
    tmp_path: Path, suffix: str, inputs: str, labels: str
) -> None:
    y = np.arange(20)
    path = write(tmp_path / f"b{suffix}", **{labels: y, inputs: X, "other": np.zeros(2)})
    batch = load(path)
    assert torch.equal(batch.inputs, torch.from_numpy(X))
    assert batch.labels.tolist() == y.tolist()


def test_one_array_alone_may_have_any_name(tmp_path: Path) -> None:
    assert load(write(tmp_path / "b.npz", features=X)).inputs.shape == (20, 3)


def test_several_arrays_of_other_names_are_listed(tmp_path: Path) -> None:
    text = refused(write(tmp_path / "b.npz", one=X, two=X))
    assert "one, two" in text
    assert "inputs" in text


@pytest.mark.parametrize(("size", "expected"), [(None, 20), (5, 5), (20, 20), (1000, 20), (1, 1)])
def test_the_first_samples_are_taken(tmp_path: Path, size: int | None, expected: int) -> None:
    path = write(tmp_path / "b.npz", x=X, y=np.arange(20))
    batch = load(path, size=size)
    assert torch.equal(batch.inputs, torch.from_numpy(X[:expected]))
    assert batch.labels.tolist() == list(range(expected))


def test_without_a_size_at_most_32_samples_are_taken(tmp_path: Path) -> None:
    assert len(load(write(tmp_path / "b.npy", x=np.zeros((99, 3)))).inputs) == 32


@pytest.mark.parametrize("dtype", ["u1", "i4", "i8", "f2", "f4", "f8", "?"])
def test_numbers_of_any_type_become_floating(tmp_path: Path, dtype: str) -> None:
    x = np.array([[0, 1, 1], [1, 0, 1]], dtype=dtype)
    inputs = load(write(tmp_path / "b.npy", x=x)).inputs
    assert inputs.dtype is (torch.float64 if dtype == "f8" else torch.float32)
    assert inputs.tolist() == x.astype(float).tolist()


@pytest.mark.parametrize("dtype", ["u1", "i2", "i4", "i8"])
def test_tokens_become_integers_of_64_bits(tmp_path: Path, dtype: str) -> None:
    tokens = np.array([[0, 9, 3], [1, 2, 3]], dtype=dtype)
    inputs = load(write(tmp_path / "b.npy", x=tokens), TOKENS).inputs
    assert inputs.dtype is torch.int64
    assert inputs.tolist() == tokens.tolist()


def test_arrays_that_are_not_contiguous_are_read(tmp_path: Path) -> None:
    np.save(tmp_path / "b.npy", np.asfortranarray(X))
    assert torch.equal(load(str(tmp_path / "b.npy")).inputs, torch.from_numpy(X))


# ---- what is refused, and how it is told


@pytest.mark.parametrize(
    ("array", "spec", "words"),
    [
        (np.zeros((5, 4)), VECTOR, ["[4]", "[3]"]),
        (np.zeros((5, 3, 1)), VECTOR, ["[3, 1]", "[3]"]),
        (np.zeros(3), VECTOR, ["[]", "[3]"]),
        (np.float64(3.0), VECTOR, ["[3]"]),
        (np.zeros((0, 3)), VECTOR, ["no samples"]),
        (np.zeros((5, 3)), TOKENS, ["integer tokens", "float64"]),
        (np.full((5, 3), 10), TOKENS, ["10 to 10", "0 to 9"]),
        (np.full((5, 3), -1), TOKENS, ["-1", "0 to 9"]),
        (np.array([["a", "b", "c"]]), VECTOR, [".npy"]),
        (np.zeros((5, 3), dtype=complex), VECTOR, ["complex"]),
    ],
)
def test_data_that_does_not_fit_the_spec_says_how(
    tmp_path: Path, array: np.ndarray, spec: InputSpec, words: list[str]
) -> None:
    text = refused(write(tmp_path / "b.npy", x=array), spec)
    assert [word for word in words if word not in text] == []


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_sample_that_is_not_finite_is_named(tmp_path: Path, bad: float) -> None:
    x = X.copy()
    x[7, 2] = bad
    path = write(tmp_path / "b.npy", x=x)
    assert "sample 7 holds NaN or infinity" in refused(path)
    load(path, size=7)  # the seven before it are whole


def test_fewer_labels_than_samples_are_refused(tmp_path: Path) -> None:
    assert "fewer labels" in refused(write(tmp_path / "b.npz", x=X, y=np.arange(19)))
    load(write(tmp_path / "b.npz", x=X, y=np.arange(19)), size=19)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".pkl", ".pickle", ".bin"])
def test_a_pickle_is_refused_unread(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"batch{suffix}"
    path.write_bytes(b"\x80\x04never read")
    assert "a pickle can run code" in refused(str(path))


class Runs:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_an_array_of_objects_runs_no_code(tmp_path: Path, suffix: str) -> None:
    trace = tmp_path / "trace"
    path = tmp_path / f"b{suffix}"
    write(path, x=np.array([Runs(trace)], dtype=object))
    assert "not a readable" in refused(str(path))
    assert not trace.exists()
    raw = tmp_path / f"raw{suffix}"
    raw.write_bytes(pickle.dumps(Runs(trace)))
    assert "not a readable" in refused(str(raw))
    assert not trace.exists()
    gc.collect()  # a file that was left open is told of here


def lying_header() -> bytes:
    """A .npy file whose header promises a terabyte."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        stream, {"descr": "<f8", "fortran_order": False, "shape": (10**12, 3)}
    )
    return stream.getvalue() + b"\0" * 64


BROKEN = {
    "empty": b"",
    "a few bytes": b"\x93NUMPY",
    "text": b"not an array at all",
    "a zip of nothing": b"PK\x05\x06" + b"\0" * 18,
    "a header of a terabyte": lying_header(),
    "a safetensors header of a terabyte": (2**40).to_bytes(8, "little") + b"{}",
}


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors"])
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_an_error_of_one_line(tmp_path: Path, suffix: str, name: str) -> None:
    path = tmp_path / f"b{suffix}"
    path.write_bytes(BROKEN[name])
    text = refused(str(path))
    assert len(text.splitlines()) == 1


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors"])
def test_a_file_cut_short_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"b{suffix}"
    whole = Path(write(path, x=X)).read_bytes()
    for length in (9, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        refused(str(path))


def test_a_file_that_unpacks_to_more_than_the_memory_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "b.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", b"\0" * 5_000_000)
    assert path.stat().st_size < 10_000
    assert "--max-memory" in refused(str(path), limit=1_000_000)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("missing.npy", "No such file"),
        ("folder.npy", "directory"),
        ("data.csv", "expected a .npy, .npz, .safetensors file"),
        ("data", "expected a .npy"),
    ],
)
def test_a_path_that_is_no_data_file_is_told_as_such(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "folder.npy").mkdir()
    (tmp_path / "data.csv").write_text("1,2,3\n")
    assert words.lower() in refused(str(tmp_path / name)).lower()


# ---- from the command line


@pytest.fixture
def spec(tmp_path: Path) -> str:
    (tmp_path / "net.yaml").write_text(SPEC)
    return str(tmp_path / "net.yaml")


def answer(run: Callable[..., Result], *arguments: object) -> dict[str, Any]:
    ended = run("probe", *arguments, "--format", "json")
    assert ended.code in (0, 1), ended.err
    return json.loads(ended.out)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors"])
def test_a_probe_of_data_measures_that_data(
    run: Callable[..., Result], spec: str, tmp_path: Path, suffix: str
) -> None:
    data = write(tmp_path / f"b{suffix}", x=X)
    found = answer(run, spec, "--data", data)
    by_hand = gradprobe.tasks.probe.probe_target(gradprobe.load(spec), inputs=torch.from_numpy(X))
    assert [row["gradient_norm"] for row in found["rows"]] == [
        row.gradient_norm for row in by_hand.rows
    ]
    assert found["config"]["data"] == data
    assert found["config"]["batch_size"] == 20
    assert found["rows"] != answer(run, spec)["rows"]
    assert answer(run, spec, "--data", data, "--batch-size", 4)["config"]["batch_size"] == 4


def test_the_spec_s_own_batch_size_holds_for_data_too(
    run: Callable[..., Result], tmp_path: Path
) -> None:
    path = tmp_path / "net.yaml"
    path.write_text(SPEC.replace("[3]}", "[3], batch_size: 6}"))
    data = write(tmp_path / "b.npy", x=X)
    assert answer(run, path, "--data", data)["config"]["batch_size"] == 6
    assert answer(run, path, "--data", data, "--batch-size", 7)["config"]["batch_size"] == 7


def test_labels_of_the_file_are_what_the_loss_sees(
    run: Callable[..., Result], spec: str, tmp_path: Path
) -> None:
    losses = []
    for labels in (np.zeros(20, dtype=int), np.full(20, 3), None):
        arrays = {"x": X} if labels is None else {"x": X, "y": labels}
        data = write(tmp_path / "b.npz", **arrays)
        losses.append(answer(run, spec, "--data", data, "--loss", "cross_entropy")["loss"])
    assert len(set(losses)) == 3


@pytest.mark.parametrize(
    ("labels", "loss", "words"),
    [
        (np.full(20, 4), "cross_entropy", "outside the 4 classes"),
        (np.full(20, -1), "cross_entropy", "outside the 4 classes"),
        (np.full(20, 0.5), "cross_entropy", "integer labels"),
        (np.zeros((20, 2), dtype=int), "cross_entropy", "20 integer labels"),
        (np.zeros((20, 3)), "mse", "targets of shape [4]"),
    ],
)
def test_labels_that_do_not_fit_the_network_exit_2(
    run: Callable[..., Result],
    spec: str,
    tmp_path: Path,
    labels: np.ndarray,
    loss: str,
    words: str,
) -> None:
    data = write(tmp_path / "b.npz", x=X, y=labels)
    ended = run("probe", spec, "--data", data, "--loss", loss)
    assert ended.code == 2
    assert words in ended.err
    assert ended.out == ""


def test_data_that_does_not_fit_exits_2_without_output(
    run: Callable[..., Result], spec: str, tmp_path: Path
) -> None:
    ended = run("probe", spec, "--data", write(tmp_path / "b.npy", x=np.zeros((5, 4))))
    assert (ended.code, ended.out) == (2, "")
    assert "samples have shape [4]" in ended.err


# ---- drawn at random


def test_random_samples_are_standard_normal_and_fixed_by_the_seed() -> None:
    wide = InputSpec((100,))
    x = random_batch(wide, 200, 0).inputs
    assert float(x.mean()) == pytest.approx(0, abs=0.02)
    assert float(x.std()) == pytest.approx(1, rel=0.02)
    assert torch.equal(x, random_batch(wide, 200, 0).inputs)
    assert not torch.equal(x, random_batch(wide, 200, 1).inputs)


def test_random_tokens_cover_the_vocabulary_and_nothing_else() -> None:
    tokens = random_batch(TOKENS, 500, 0).inputs
    assert tokens.dtype is torch.int64
    assert set(tokens.flatten().tolist()) == set(range(10))


def test_random_samples_leave_the_global_state_alone() -> None:
    before = torch.random.get_rng_state()
    random_batch(VECTOR, 5, 0)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_numbers_with_the_high_byte_first_are_the_same(tmp_path: Path) -> None:
    np.savez(tmp_path / "b.npz", x=X.astype(">f4"), y=np.arange(20, dtype=">i4"))
    batch = load(str(tmp_path / "b.npz"))
    assert torch.equal(batch.inputs, torch.from_numpy(X.astype("f4")))
    assert batch.labels is not None
    assert batch.labels.tolist() == list(range(20))
