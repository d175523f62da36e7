"""Models by a name that an installed library knows, and prefixes that other packages add.

The libraries are stand-ins that have what is used of them; benchmarks/named_models.py has the real.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.commands import Run
from helpers.libraries import installed

from gradprobe.spec.sources import table

__all__ = ["installed"]  # a fixture

HERE = "--trusted-in-process"


@pytest.fixture
def answer(run: Run) -> Callable[..., dict]:
    def call(*words: str) -> dict:
        ended = run(*words, "--format", "json")
        assert ended.code == 0, ended.err
        return json.loads(ended.out)

    return call


def test_it_is_built_at_random_with_inputs_of_the_librarys_own(
    answer: Callable[..., dict], installed: Path
) -> None:
    report = answer("probe", "timm:tiny", HERE)
    assert report["target"] == "timm:tiny"
    assert report["config"]["inputs"] == "--input shape=8,3,6,7, by its metadata"
    assert [row["name"] for row in report["rows"]][:2] == ["stem", "blocks.0"]
    fewer = answer("probe", "timm:tiny.in1k", "--batch-size", "3", "--arg", "width=6", HERE)
    assert fewer["config"]["batch_size"] == 3
    assert fewer["parameters"] > report["parameters"]
    own = answer("probe", "timm:tiny", "--input", "shape=2,3,9,9", HERE)
    assert own["config"]["batch_size"] == 2


@pytest.mark.parametrize(("mode", "idle"), [((), False), (("--eval-mode",), True)])
def test_it_is_in_train_mode_unless_told_otherwise(
    answer: Callable[..., dict], installed: Path, mode: tuple[str, ...], idle: bool
) -> None:
    report = answer("probe", "timm:tiny", *mode, HERE)
    assert ("GP713" in {finding["rule"] for finding in report["findings"]}) == idle


def test_no_part_of_a_torchvision_model_comes_with_weights(
    answer: Callable[..., dict], installed: Path
) -> None:
    report = answer("probe", "torchvision:detector", HERE)
    assert report["config"]["inputs"] == "--input shape=8,3,5,5, by its metadata"


def test_a_detector_gets_images_and_what_is_to_be_found_in_them(
    answer: Callable[..., dict], installed: Path
) -> None:
    report = answer("probe", "torchvision:scenes", HERE)
    assert report["config"]["inputs"] == "Scenes.example_input_array"


def test_an_optical_flow_is_between_two_images(
    answer: Callable[..., dict], installed: Path
) -> None:
    report = answer("probe", "torchvision:flow", HERE)
    assert report["config"]["inputs"] == "Flow.example_input_array"


@pytest.mark.parametrize(
    "words",
    [
        ("compare", "timm:tiny", "plain", "--depth", "2"),
        ("block", "timm:tiny"),
        ("paths", "timm:tiny"),
        ("sweep", "timm:tiny", "--arg", "depth=1,2"),
        ("fix", "timm:tiny", "--seeds", "1"),
    ],
)
def test_every_command_takes_it(run: Run, installed: Path, words: tuple[str, ...]) -> None:
    ended = run(*words, HERE)
    assert ended.code == 0, ended.err
    assert "timm:tiny" in ended.out


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        ("timm:tinny", "timm has no model 'tinny'", "did you mean 'tiny'?"),
        ("torchvision:detectr", "torchvision has no model 'detectr'", "did you mean 'detector'?"),
        ("timm:hf-hub:a/b", "'hf-hub:a/b' is no name of a model", "like timm:resnet50"),
        ("timm:tiny --pretrained", "no such option: --pretrained\n", "--weights FILE loads some"),
        ("timm:tiny --arg pretrained=true", "no weights come from timm", "--weights FILE"),
        ("torchvision:detector --arg weights_backbone=A", "no weights come", "--weights FILE"),
        ("timm:huge --max-memory 1MiB", "weights and gradients would take", "--max-memory"),
        ("timm:tiny --max-parameters 99", "it has more than 99 parameters", "--max-parameters"),
        ("timm:tiny --layers 3", "no effect on timm:tiny, a model of an installed", "--arg"),
        ("timm:tiny --allow-code", "--allow-code is for Python models", "nothing here runs code"),
        ("acme:wrong", "acme has no wrong", ""),
        ("acme:text", "acme: (acme_models:load) gave no spec, but a value of str", ""),
        ("acme:many", "acme: (acme_models:load) failed: ValueError: invalid literal", ""),
        ("hf:nowhere", "there is no nowhere here", "nothing is downloaded"),
    ],
)
def test_what_cannot_be_had_is_told(
    run: Run, installed: Path, words: str, message: str, hint: str
) -> None:
    about_code = [] if words.startswith(("acme", "hf")) else [HERE]
    ended = run("probe", *words.split(), *about_code)
    assert ended.code == 2
    assert message in ended.err
    assert hint in ended.err


def test_a_library_that_is_not_there_is_told_with_what_to_install(
    run: Run, installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    ended = run("probe", "timm:tiny", HERE)
    assert ended.code == 2
    assert "timm:tiny needs timm" in ended.err
    assert "pip install 'gradprobe[timm]'" in ended.err


def test_another_package_adds_a_prefix(answer: Callable[..., dict], installed: Path) -> None:
    assert [row["kind"] for row in answer("probe", "acme:3")["rows"]] == ["Linear"] * 3
    code = answer("probe", "acme:code", "--arg", "depth=2", HERE)
    assert code["target"] == "acme:code"
    assert [row["name"] for row in code["rows"]] == ["stem", "blocks.0", "blocks.1", "head"]
    assert len(answer("compare", "acme:3", "acme:code", HERE)["reports"]) == 2


def test_a_prefix_in_front_of_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("gpt").mkdir()
    Path("gpt", "config.json").write_text('{"model_type": "gpt2", "n_layer": 2}')
    plain, prefixed = table.load("gpt"), table.load("hf:gpt")
    assert prefixed == replace(plain, source="hf:gpt")
    assert table.load("hf:gpt/config.json").values == plain.values


def test_a_models_own_metadata_says_what_any_model_of_code_takes() -> None:
    from gradprobe.worker.guess import guess

    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 600 * 600, 2))
    model.default_cfg = {"input_size": (3, 600, 600)}
    guessed = guess(model, 0)
    assert guessed is not None
    assert guessed.inputs.shape == (2, 3, 600, 600)  # of large images few
    model.default_cfg = {"input_size": (3, 7, 7)}
    guessed = guess(model, 0, 4)
    assert guessed is not None
    assert guessed.inputs.shape == (4, 3 * 600 * 600)
