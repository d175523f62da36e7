"""A checkpoint in a model: the same numbers as the model itself, or the keys that do not fit."""

from __future__ import annotations

import json
import os
import pickle
import sys
from pathlib import Path

import pytest
import torch
from helpers.commands import Run
from safetensors.torch import load_file, save_file
from torch import nn

import gradprobe
from gradprobe.errors import InputError
from gradprobe.model.build import build
from gradprobe.model.saved import saved_in
from gradprobe.model.weights import load_weights, read_weights
from gradprobe.render.text import render_report
from gradprobe.spec.network import Weights
from gradprobe.spec.sources.table import TargetOptions
from gradprobe.spec.weights import WeightsOptions, digest_of
from gradprobe.tasks.probe import probe_target
from gradprobe.tasks.targets import load_target

NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, layers=3):
        super().__init__()
        self.stem = nn.Linear(6, 8)
        self.blocks = nn.ModuleList(nn.Linear(8, 8) for _ in range(layers))
        self.norm = nn.BatchNorm1d(8)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = x + torch.tanh(block(x))
        return self.head(self.norm(x))

def batch():
    return torch.linspace(-1, 1, 96).reshape(16, 6)
"""
MOST = 1 << 20
CALL = ("probe", "net:Net", "--inputs", "net:batch", "--trusted-in-process", "--format", "json")


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """Half trained, in a folder with its code."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "net.py").write_text(NET)
    module: dict[str, type[nn.Module]] = {"__name__": "net"}
    exec(NET, module)
    torch.manual_seed(7)
    net = module["Net"]()
    x, y = module["batch"](), torch.arange(16) % 5
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(10):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
    return net


def sharded(state: dict[str, torch.Tensor], folder: Path) -> str:
    names = {key: f"part-{index % 2}.safetensors" for index, key in enumerate(state)}
    for name in set(names.values()):
        save_file({k: v for k, v in state.items() if names[k] == name}, folder / name)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": names}))
    return str(index)


def saved(state: dict[str, torch.Tensor], kind: str, folder: Path) -> str:
    """The checkpoint of that kind."""
    file = folder / kind
    if kind == "index":
        return sharded(state, folder)
    if file.suffix == ".safetensors":
        save_file(state, file)
    else:
        inside = {f"model.{key}": tensor for key, tensor in state.items()}
        loop = {"epoch": 3, "state_dict": inside | {"loss.weight": torch.ones(2)}}
        torch.save(loop if file.suffix == ".ckpt" else state, file)
    return str(file)


@pytest.mark.parametrize("kind", ["w.safetensors", "w.pt", "w.ckpt", "index"])
def test_a_half_trained_network_is_probed_as_it_is(
    run: Run, trained: nn.Module, tmp_path: Path, kind: str
) -> None:
    file = saved(trained.state_dict(), kind, tmp_path)
    prefix = ("--weights-prefix", "model.") if kind == "w.ckpt" else ()
    ended = run(*CALL, "--weights", file, *prefix)
    assert ended.code == 0, ended.err
    report = json.loads(ended.out)
    expected = gradprobe.probe(trained, torch.linspace(-1, 1, 96).reshape(16, 6))
    own = {row.name: row.gradient_norm for row in expected.rows}
    assert {row["name"]: row["gradient_norm"] for row in report["rows"]} == pytest.approx(own)
    assert report["config"]["weights"] == file
    assert report["config"].get("weights_prefix") == (prefix[1] if prefix else None)
    assert json.loads(run(*CALL).out)["rows"] != report["rows"]


def test_a_spec_and_a_stack_take_a_checkpoint(tmp_path: Path) -> None:
    plain = load_target("plain")
    assert isinstance(plain, gradprobe.NetworkSpec)
    network = build(plain, seed=5)
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    weights = WeightsOptions(str(tmp_path / "w.safetensors"))
    report = probe_target(load_target("plain", TargetOptions(weights=weights)))
    assert report.reach != gradprobe.probe(plain).reach
    norms = {row.name: row.weight_norm for row in gradprobe.probe(plain, seed=5).rows}
    assert {row.name: row.weight_norm for row in report.rows} == norms
    assert "weights of" in render_report(report)


def test_what_is_tied_need_not_be_there_twice(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes = {"n_layer": 2, "n_embd": 16, "n_head": 2, "vocab_size": 50, "n_positions": 16}
    model = GPT2LMHeadModel(GPT2Config(**sizes))
    model.save_pretrained(tmp_path, max_shard_size="10KB")
    index = tmp_path / "model.safetensors.index.json"
    assert "lm_head.weight" not in json.loads(index.read_text())["weight_map"]
    options = TargetOptions(weights=WeightsOptions(str(index)))
    report = probe_target(load_target(str(tmp_path / "config.json"), options))
    [row] = [row for row in report.rows if row.name == "transformer.h.1"]
    norm = sum(
        float(p.detach().double().square().sum()) for p in model.transformer.h[1].parameters()
    )
    assert row.weight_norm == pytest.approx(norm**0.5, rel=1e-6)


def test_each_key_that_does_not_fit_is_told_with_the_nearest(
    run: Run, trained: nn.Module, tmp_path: Path
) -> None:
    state = trained.state_dict()
    state["stemm.weight"] = state.pop("stem.weight")
    state["head.bias"] = torch.zeros(4)
    save_file(state, tmp_path / "w.safetensors")
    ended = run(*CALL, "--weights", "w.safetensors")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.splitlines() == [
        "gradprobe: error: --weights w.safetensors does not fit Net: "
        "1 key missing, 1 unknown, 1 of another shape",
        "  missing: stem.weight [8, 6]; the file has stemm.weight",
        "  unknown: stemm.weight [8, 6]; the model has stem.weight",
        "  shape: head.bias [5]; the file has [4]",
    ]


def test_a_prefix_that_would_fit_is_named(run: Run, trained: nn.Module, tmp_path: Path) -> None:
    file = saved(trained.state_dict(), "w.ckpt", tmp_path)
    ended = run(*CALL, "--weights", file)
    assert ended.code == 2
    assert "and 6 more" in ended.err
    assert "hint: --weights-prefix model. takes 15 keys that fit" in ended.err
    ended = run(*CALL, "--weights", file, "--weights-prefix", "modell.")
    assert "no key of" in ended.err
    assert "'model.stem.weight'" in ended.err
    ended = run(*CALL, "--weights-prefix", "model.")
    assert "hint: --weights FILE" in ended.err


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("pwned",)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", ["w.pt", "w.pth", "w.ckpt", "w.bin"])
def test_no_code_of_a_pickle_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, zipped: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    if zipped:
        torch.save({"w": torch.ones(2), "x": Evil()}, name)
    else:
        Path(name).write_bytes(pickle.dumps(Evil()))
    with pytest.raises(InputError, match=name):
        read_weights(name, MOST)
    assert not Path("pwned").exists()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("w.safetensors", b""),
        ("w.safetensors", (2**40).to_bytes(8, "little") + b"{}"),
        ("w.pt", b"PK\5\6" + bytes(18)),
        ("w.pt", b""),
        ("w.h5", b"x"),
        ("w.index.json", b"{"),
        ("w.index.json", b"[" * 100_000),
        ("w.index.json", b"[]"),
        ("w.index.json", b'{"weight_map": {}}'),
        ("w.index.json", b'{"weight_map": {"a": 1}}'),
        ("w.index.json", b'{"weight_map": {"a": "../secret.safetensors"}}'),
        ("w.index.json", b'{"weight_map": {"a": "link.safetensors"}}'),
        ("w.index.json", b'{"weight_map": {"a": "absent.safetensors"}}'),
        ("w.index.json", b'{"weight_map": {"a": "pipe.safetensors"}}'),
        ("w.index.json", b'{"weight_map": {"absent": "good.safetensors"}}'),
        ("absent.pt", None),
        ("pipe.safetensors", None),
    ],
)
def test_what_is_no_checkpoint_is_refused(tmp_path: Path, name: str, data: bytes | None) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    save_file({"a": torch.ones(2)}, tmp_path / "secret.safetensors")
    save_file({"a": torch.ones(2)}, folder / "good.safetensors")
    (folder / "link.safetensors").symlink_to(tmp_path / "secret.safetensors")
    os.mkfifo(folder / "pipe.safetensors")
    if data is not None:
        (folder / name).write_bytes(data)
    with pytest.raises(InputError) as caught:
        read_weights(str(folder / name), MOST)
    assert name.partition(".")[0] in str(caught.value)


def test_a_cache_of_links_is_read(tmp_path: Path) -> None:
    """As Hugging Face keeps them: index and shards are links into one folder of blobs."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshot"
    blobs.mkdir()
    snapshot.mkdir()
    sharded({"a": torch.ones(2), "b": torch.zeros(3)}, blobs)
    for file in blobs.iterdir():
        (snapshot / file.name).symlink_to(file)
    assert set(read_weights(str(snapshot / "model.safetensors.index.json"), MOST)) == {"a", "b"}


@pytest.mark.parametrize("missing", ["absent", ""])
def test_an_index_names_what_its_shards_hold(tmp_path: Path, missing: str) -> None:
    """Whether they are read at once or row by row; what the index does not name is left out."""
    save_file({"a": torch.ones(2), "other": torch.ones(2)}, tmp_path / "shard.safetensors")
    index = tmp_path / "w.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "shard.safetensors"}}))
    assert set(read_weights(str(index), MOST)) == {"a"}
    places, outline = saved_in(Weights(str(index)))
    assert set(places.places) == set(outline) == {"a"}
    index.write_text(json.dumps({"weight_map": {missing: "shard.safetensors"}}))
    for read in (lambda: read_weights(str(index), MOST), lambda: saved_in(Weights(str(index)))):
        with pytest.raises(InputError, match=f"shard.safetensors does not hold '{missing}'"):
            read()


def test_it_takes_no_more_than_it_may(tmp_path: Path) -> None:
    file = saved({"a": torch.ones(100), "b": torch.ones(100)}, "index", tmp_path)
    with pytest.raises(InputError, match="GiB") as caught:
        read_weights(file, 700)
    assert caught.value.hint == "see --max-memory"


def test_a_digest_is_that_of_every_byte(tmp_path: Path) -> None:
    file = saved({"a": torch.ones(4), "b": torch.ones(4)}, "index", tmp_path)
    before = digest_of(file)
    shard = tmp_path / "part-1.safetensors"
    save_file({key: tensor + 1 for key, tensor in load_file(shard).items()}, shard)
    assert digest_of(file) != before


def test_a_lazy_layer_takes_the_shape_of_the_file(tmp_path: Path) -> None:
    save_file(nn.Sequential(nn.Linear(3, 2)).state_dict(), tmp_path / "w.safetensors")
    model = nn.Sequential(nn.LazyLinear(2))
    load_weights(model, Weights(str(tmp_path / "w.safetensors")), MOST)
    assert model[0].weight.shape == (2, 3)


@pytest.mark.slow
@pytest.mark.usefixtures("forked_workers")
def test_check_has_a_key_and_remembers_by_the_bytes(
    run: Run, trained: nn.Module, tmp_path: Path
) -> None:
    (tmp_path / "gradprobe.toml").write_text(
        'deep = false\noverfit = false\n[[targets]]\ntarget = "net:Net"\n'
        'inputs = "net:batch"\nweights = "w.safetensors"\n'
    )
    check = ("check", "--allow-code", "--format", "json")
    state = trained.state_dict()
    save_file(state, tmp_path / "w.safetensors")
    first = run(*check)
    assert first.code == 0, first.err
    assert '"weights": "w.safetensors"' in first.out
    save_file(state | {"head.weight": 100 * state["head.weight"]}, tmp_path / "w.safetensors")
    assert run(*check).out != first.out
    outside = tmp_path.parent / "s3cret.safetensors"
    save_file(state, outside)
    text = (tmp_path / "gradprobe.toml").read_text()
    (tmp_path / "gradprobe.toml").write_text(text.replace("w.safe", "../s3cret.safe"))
    assert "lies outside of the tree" in run(*check).out
