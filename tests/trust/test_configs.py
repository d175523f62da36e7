"""A configuration of Hugging Face's names sizes, and nothing to load; no network is reached."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.bad_inputs import clean
from helpers.commands import Run

pytest.importorskip("transformers")

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "vocab_size": 50,
    "architectures": ["LlamaForCausalLM"],
}


@pytest.mark.parametrize(
    "more",
    [
        {"attn_implementation": "kernels-community/flash-attn"},
        {"_attn_implementation": "someone/kernel:attention"},
        {"experts_implementation": "someone/experts"},
        {"num_hidden_layers": 100_000},
        {"text_config": {"attn_implementation": "someone/kernel"}},
    ],
)
def test_what_would_be_loaded_or_is_too_large_is_refused(
    run: Run, folder: Path, more: dict[str, Any]
) -> None:
    Path("config.json").write_text(json.dumps(LLAMA | more))
    clean(run("probe", "config.json"))


@pytest.mark.parametrize(
    "more",
    [
        {"quantization_config": {"quant_method": "gptq", "bits": 4}},
        {"auto_map": {"AutoModelForCausalLM": "someone/repo--model.Model"}},
        {"_name_or_path": "someone/weights", "adapter_name_or_path": "someone/adapter"},
        {"use_kernels": True, "kernel_config": {"RMSNorm": "someone/norm"}},
        {"anything": "someone/thing"},
    ],
)
def test_what_names_something_to_load_changes_nothing(
    run: Run, folder: Path, more: dict[str, Any]
) -> None:
    ended = []
    for values in (LLAMA, LLAMA | more):
        Path("config.json").write_text(json.dumps(values))
        ended.append(run("probe", "config.json"))
    assert ended[0].code in (0, 1)
    assert ended[0] == ended[1]


def test_what_stands_in_a_list_is_looked_through_too(run: Run, folder: Path) -> None:
    more = {"parts": [{"attn_implementation": "someone/kernel"}]}
    Path("config.json").write_text(json.dumps(LLAMA | more))
    clean(run("probe", "config.json"))


@pytest.mark.slow
def test_a_target_of_a_configuration_lies_in_its_tree(run: Run, folder: Path) -> None:
    outside = folder.parent / f"{folder.name}-other"
    outside.mkdir()
    (outside / "config.json").write_text(json.dumps({"model_type": "s3cret"}))
    Path("inside").symlink_to(outside)
    for name in (
        f"../{outside.name}/config.json",
        str(outside / "config.json"),
        "inside/config.json",
    ):
        Path("gradprobe.toml").write_text(f'[[targets]]\ntarget = "{name}"\n')
        ended = run("check")
        assert ended.code == 2
        assert "lies outside of the tree" in ended.out
        assert "s3cret" not in ended.out + ended.err
