"""Models of the transformers library, from nothing but a configuration."""

from __future__ import annotations

import json
import shutil
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from helpers.commands import Result
from helpers.places import CONFIGS

pytest.importorskip("transformers")

import torch
from helpers.unchanged import unchanged

import gradprobe
from gradprobe.errors import ExitCode, InputError
from gradprobe.model import transformers as architectures
from gradprobe.spec.network import ArchitectureSpec, NetworkSpec
from gradprobe.spec.options import OWN_LOSS, ProbeOptions
from gradprobe.spec.sources import huggingface
from gradprobe.spec.sources.huggingface import ArchitectureOptions
from gradprobe.spec.sources.table import TargetOptions
from gradprobe.tasks.probe import probe_target
from gradprobe.tasks.targets import load_target

NAMES = sorted(path.name for path in CONFIGS.iterdir())

# The rows that a person would call the layers, and what stands before and behind them.
ROWS = {
    "bert": "bert.embeddings bert.encoder.layer.0 bert.encoder.layer.1 bert.encoder.layer.2 cls",
    "gpt2": "transformer.wte transformer.wpe transformer.h.0 transformer.h.1 transformer.h.2 "
    "transformer.ln_f lm_head",
    "llama": "model.embed_tokens model.layers.0 model.layers.1 model.layers.2 model.norm lm_head",
    "mamba": "backbone.embeddings backbone.layers.0 backbone.layers.1 backbone.layers.2 "
    "backbone.norm_f lm_head",
    "mixtral": "model.embed_tokens model.layers.0 model.layers.1 model.layers.2 model.norm lm_head",
    "resnet": "resnet.embedder resnet.encoder.stages.0.layers.0 resnet.encoder.stages.0.layers.1 "
    "resnet.encoder.stages.1.layers.0 resnet.encoder.stages.1.layers.1 "
    "resnet.encoder.stages.1.layers.2 resnet.pooler classifier.0 classifier.1",
    "t5": "encoder.block.0 encoder.block.1 decoder.block.0 decoder.block.1 decoder.block.2 lm_head",
    "vit": "vit.embeddings vit.layers.0 vit.layers.1 vit.layers.2 vit.layernorm classifier",
    "whisper": "model.encoder.conv1 model.encoder.layers.0 model.encoder.layers.1 "
    "model.decoder.layers.0 model.decoder.layers.1 proj_out",
}


def config(name: str) -> str:
    return str(CONFIGS / name)


def load(target: str, layers: int, settings: Sequence[str] = ()) -> NetworkSpec | ArchitectureSpec:
    options = ArchitectureOptions(layers, tuple(settings))
    return load_target(target, TargetOptions(architecture=options))


def built(
    name: str, loss: str | None = None, size: int = 3
) -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    spec, device = huggingface.load(config(name)), torch.device("cpu")
    options = ProbeOptions(loss=loss)
    return architectures.build(spec, options, batch_size=size, dtype=torch.float32, device=device)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any) -> None:
        raise AssertionError("a connection was made")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("name", NAMES)
def test_the_rows_are_the_layers(name: str) -> None:
    report = probe_target(load_target(config(name)), ProbeOptions(batch_size=3))
    found = [row.name for row in report.rows]
    expected = ROWS[name].split()
    if name in ("t5", "whisper"):  # a person would leave their embeddings and norms to the tool
        found = [row for row in found if row in expected]
    assert found == expected
    assert report.verdict == "healthy"
    assert {finding.rule for finding in report.findings} <= {"GP203"}
    assert all(r.gradient_norm for r in report.rows if "embed_positions" not in r.name)


@pytest.mark.parametrize("name", NAMES)
def test_the_model_is_left_as_it_was(name: str) -> None:
    model, inputs = built(name)
    with unchanged(model, inputs):
        gradprobe.probe(model, inputs, loss=lambda out: architectures.main_output(out).sum())


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_those_of_backward(name: str) -> None:
    """Without dropout, against torch's own backward pass, tied weights included."""
    model, inputs = built(name)
    model.eval()
    report = gradprobe.probe(
        model, inputs, loss=lambda out: architectures.main_output(out).square().sum()
    )
    architectures.main_output(model(**inputs)).square().sum().backward()
    found = {p.name: p.gradient_norm for row in report.rows for p in row.parameters}
    assert found
    largest = max(value for value in found.values() if value is not None)
    for parameter, value in found.items():
        gradient = model.get_parameter(parameter).grad
        if gradient is None:
            assert value is None, parameter
        else:
            expected = float(gradient.norm())
            assert value == pytest.approx(expected, rel=1e-4, abs=1e-6 * largest), parameter
    assert report.profile.parameters == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_the_model_s_own_loss(name: str) -> None:
    spec = load_target(config(name))
    report = probe_target(spec, ProbeOptions(batch_size=3, loss="own"))
    model, inputs = built(name, OWN_LOSS)
    torch.manual_seed(0)
    classes = 99 if "labels" in inputs and inputs["labels"].dim() == 2 else 2
    # At its start a model knows nothing: its loss is near that of guessing.
    guess = float(torch.tensor(float(classes)).log())
    assert report.profile.loss == pytest.approx(guess, rel=0.6)
    assert report.profile.loss == pytest.approx(float(model(**inputs).loss.detach()), rel=0.2)
    assert report.config["loss"] == "own"


def test_a_model_without_a_head_has_no_loss_of_its_own(tmp_path: Path) -> None:
    values = json.loads((CONFIGS / "bert" / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**values, "architectures": ["BertModel"]}))
    with pytest.raises(InputError, match=r"BertModel"):
        probe_target(load_target(str(tmp_path)), ProbeOptions(loss="own"))


def test_pre_norm_and_post_norm_as_xiong_et_al_have_them() -> None:
    """Pre-LN keeps a clean skip, and the gradient grows towards the bottom by ever less; in Post-LN
    the norm stands on the skip, and each layer scales the gradient down (arXiv 2002.04745)."""
    options, settings = (
        ProbeOptions(blocks=True, batch_size=4),
        ["initializer_range=0.1", "hidden_size=64"],
    )
    gpt2 = probe_target(load(config("gpt2"), 12, settings), options)
    bert = probe_target(load(config("bert"), 12, settings), options)
    pre = [row for row in gpt2.rows if row.kind == "GPT2Block"]
    post = [row for row in bert.rows if row.kind == "BertLayer"]
    assert len(pre) == len(post) == 12
    assert all(abs(row.jacobian.highway.value - 1) < 0.05 for row in pre)
    assert all(row.jacobian.highway.value < 0.95 for row in post)
    grows = [row.gradient_norm for row in pre]
    assert grows == sorted(grows, reverse=True)
    assert grows[0] > 1.5 * grows[-1]
    assert post[0].gradient_norm < 0.7 * post[-1].gradient_norm


def test_paths_of_a_transformer_add_up() -> None:
    from gradprobe.tasks.probe import paths as expand

    for name, blocks in (("gpt2", 3), ("bert", 3), ("resnet", 4)):
        options = ProbeOptions(batch_size=2, dtype="float64")
        found = expand(load_target(config(name)), options, None)
        assert found.blocks == blocks
        assert found.error < 1e-12


# ---- the command


def test_a_folder_and_its_file_are_the_same(run: Callable[..., Result]) -> None:
    options = ["--batch-size", "2", "--format", "json"]
    folder = run("probe", config("gpt2"), *options)
    file = run("probe", f"{config('gpt2')}/config.json", *options)
    assert folder.code == file.code == 0
    first, second = json.loads(folder.out), json.loads(file.out)
    assert first.pop("target") != second.pop("target")
    assert first == second
    assert first["name"] == "GPT2LMHeadModel"
    assert run("probe", config("gpt2"), *options).out == folder.out
    other = json.loads(run("probe", config("gpt2"), *options, "--seed", "1").out)
    assert other["reach"] != first["reach"]


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] if n == "mamba" else []) for n in NAMES]
)
def test_layers_and_set_change_the_model(name: str) -> None:
    spec = load(config(name), 1)
    report = probe_target(spec, ProbeOptions(batch_size=2))
    blocks = [row for row in report.rows if row.kind.endswith(("Layer", "Block"))]
    assert len(blocks) == (2 if name in ("t5", "whisper", "resnet") else 1)


def test_set_reads_values_and_checks_keys(run: Callable[..., Result]) -> None:
    done = run("probe", config("gpt2"), "--set", "n_embd=16", "--layers", "1", "--batch-size", "2")
    assert done.code == 0
    width, tokens, positions = 16, 99, 24
    block = 12 * width**2 + 13 * width  # attention, feed-forward, two norms, all with biases
    parameters = (tokens + positions + 2) * width + block
    assert f"{parameters:,} parameters" in done.out
    wrong = run("probe", config("gpt2"), "--set", "n_emb=16")
    assert wrong.code == ExitCode.USAGE
    assert "did you mean 'n_embd'?" in wrong.err
    assert run("probe", config("gpt2"), "--set", "n_embd").code == ExitCode.USAGE
    assert run("probe", config("gpt2"), "--layers", "0").code == ExitCode.USAGE
    assert run("probe", config("llama"), "--set", "hidden_size=x").code == ExitCode.USAGE
    assert run("probe", "plain", "--layers", "3").code == ExitCode.USAGE
    assert run("probe", config("gpt2"), "--max-parameters", "1000").code == ExitCode.USAGE
    assert run("probe", config("gpt2"), "--max-memory", "1KiB").code == ExitCode.USAGE


def test_rows_choose_the_blocks(run: Callable[..., Result]) -> None:
    done = run(
        "probe", config("bert"), "--rows", "bert.encoder.layer.*.attention", "--format", "json"
    )
    names = [row["name"] for row in json.loads(done.out)["rows"]]
    assert names[1:4] == [
        "bert.encoder.layer.0.attention",
        "bert.encoder.layer.0.intermediate",
        "bert.encoder.layer.0.output",
    ]
    wrong = run("probe", config("bert"), "--rows", "encoder.layer.*")
    assert wrong.code == ExitCode.USAGE
    assert "no module matches" in wrong.err
    assert run("probe", "plain", "--rows", "1.*").code == ExitCode.USAGE


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "not JSON"),
        ("[1]", "a JSON object"),
        ("{}", "no model_type"),
        ('{"model_type": "gtp2"}', "did you mean 'gpt2'?"),
        ('{"model_type": "mine", "auto_map": {"AutoModel": "mine.Model"}}', "is not run"),
        ('{"model_type": "gpt2", "architectures": ["GPT2LMHedModel"]}', "GPT2LMHeadModel"),
        ('{"model_type": "gpt2", "n_embd": 10, "n_head": 3}', "divisible"),
        ("[" * 100_000, "not JSON"),
        ('{"model_type": "gpt2", "n_embd": 1e400}', ""),
    ],
)
def test_a_wrong_configuration_says_what_is_wrong(
    run: Callable[..., Result], tmp_path: Path, text: str, told: str
) -> None:
    file = tmp_path / "config.json"
    file.write_text(text)
    done = run("probe", str(file))
    assert done.code in (ExitCode.USAGE, ExitCode.FAILURE)
    assert "internal error" not in done.err
    assert told in done.err
    assert done.out == ""


def test_a_folder_s_own_code_is_not_run(run: Callable[..., Result], tmp_path: Path) -> None:
    shutil.copy(CONFIGS / "gpt2" / "config.json", tmp_path / "config.json")
    values = json.loads((tmp_path / "config.json").read_text())
    values["auto_map"] = {"AutoModelForCausalLM": "modeling.Mine"}
    (tmp_path / "config.json").write_text(json.dumps(values))
    (tmp_path / "modeling.py").write_text("raise SystemExit('the code was run')")
    done = run("probe", str(tmp_path), "--batch-size", "2")
    assert done.code == 0
    assert "GPT2LMHeadModel" in done.out


def test_without_transformers_the_command_to_install_it_is_shown(
    run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    done = run("probe", config("gpt2"))
    assert done.code == ExitCode.USAGE
    assert "pip install 'gradprobe[hf]'" in done.err


def test_compare_takes_configurations_and_what_is_for_specs_says_so(
    run: Callable[..., Result],
) -> None:
    done = run("compare", config("gpt2"), config("llama"), "--batch-size", "2")
    assert done.code == 0
    assert "transformer.h.0" in done.out
    assert run("block", config("gpt2"), "--batch-size", "2").code == 0
    refused = run("sweep", config("gpt2"))
    assert refused.code == ExitCode.USAGE
    assert "--layers 2,4,8" in refused.err
    assert run("probe", config("gpt2"), "--by", "position").code == ExitCode.USAGE
    assert run("probe", config("gpt2"), "--emit-spec").code == ExitCode.USAGE
    assert run("probe", "plain", "--loss", "own").code == ExitCode.USAGE


@pytest.mark.parametrize("name", ["bert", "gpt2", "resnet"])
def test_architectures_that_are_known_to_train_are_said_to(name: str) -> None:
    found = probe_target(load_target(config(name)), ProbeOptions(deep=True))
    assert found.training is not None
    own = probe_target(load_target(config(name)), ProbeOptions(deep=True, loss="own"))
    assert own.training is not None
    assert own.training.signals is not None
    assert found.training.signals is not None
    assert own.training.signals.coherence == found.training.signals.coherence  # of the projection
    assert found.training.probability is not None
    assert found.training.probability.sgd > 0.9
    assert str(found.verdict) == "healthy"


def bare_bert(folder: Path) -> str:
    sizes = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}
    values = {"model_type": "bert", "intermediate_size": 16, "vocab_size": 50, **sizes}
    (folder / "config.json").write_text(json.dumps(values))
    return str(folder)


def test_a_pooler_beside_the_last_state_is_read_and_named(tmp_path: Path) -> None:
    spec = load_target(bare_bert(tmp_path))
    assert probe_target(spec, ProbeOptions(batch_size=2)).findings == ()
    report = probe_target(spec, ProbeOptions(batch_size=2, loss="cross_entropy"))
    [finding] = report.findings
    assert "the loss leaves out output['pooler_output']: pooler" in finding.message


def test_the_mode_is_asked_for_and_named(run: Callable[..., Result]) -> None:
    """In eval mode a ResNet's norms are the identity before any training."""
    for flag, mode, idle in (("--eval-mode", "eval", True), ("--train-mode", "train", False)):
        result = run("probe", config("resnet"), flag, "--batch-size", "2", "--format", "json")
        report = json.loads(result.out)
        assert report["config"]["mode"] == mode
        assert ("GP713" in {finding["rule"] for finding in report["findings"]}) == idle
