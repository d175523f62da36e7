"""``assert_healthy``, the pytest plugin, and the recipes in docs/python.md."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers.places import ROOT
from torch import nn

import gradprobe
from gradprobe.pytest_plugin import gradient_report

X = torch.randn(16, 8, generator=torch.Generator().manual_seed(0))


def stack(depth: int, activation: type[nn.Module] = nn.Tanh) -> nn.Sequential:
    torch.manual_seed(0)
    layers = [layer for _ in range(depth) for layer in (nn.Linear(8, 8), activation())]
    return nn.Sequential(*layers, nn.Linear(8, 2))


def test_a_healthy_model_passes_and_gives_its_report() -> None:
    report = gradprobe.assert_healthy(stack(3), X)
    assert report.verdict == "healthy"


def test_another_raises_with_the_whole_report() -> None:
    with pytest.raises(AssertionError) as raised:
        gradprobe.assert_healthy(stack(20, nn.Sigmoid), X)
    assert str(raised.traceback.filter(raised)[-1].path) == __file__  # as pytest shows it
    text = str(raised.value)
    assert "GP101 vanishing" in text
    assert "Sequential" in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("ignore", ["GP101", "GP1", ["vanishing"], {"GP101": "on purpose"}])
def test_what_is_ignored_does_not_fail(ignore: object) -> None:
    report = gradprobe.assert_healthy(stack(20, nn.Sigmoid), X, ignore=ignore)
    assert report.verdict == "vanishing"
    [finding] = report.findings
    assert finding.ignored == ("on purpose" if isinstance(ignore, dict) else "ignored by the test")
    with pytest.raises(AssertionError):
        gradprobe.assert_healthy(stack(20, nn.Sigmoid), X, ignore=["GP102", "GP2"])


def test_a_shattered_gradient_is_found_by_a_second_look() -> None:
    torch.manual_seed(0)
    blocks = [part for _ in range(40) for part in (nn.Linear(32, 32), nn.LayerNorm(32), nn.ReLU())]
    model = nn.Sequential(nn.Linear(32, 32), *blocks, nn.Linear(32, 2))
    x = torch.randn(16, 32, generator=torch.Generator().manual_seed(0))
    gradprobe.assert_healthy(model, x)
    with pytest.raises(AssertionError, match="GP104 shattered"):
        gradprobe.assert_healthy(model, x, deep=True)


def test_fail_on_is_the_least_severity() -> None:
    frozen = stack(3)
    frozen[0].requires_grad_(False)
    gradprobe.assert_healthy(frozen, X, fail_on="warning")
    with pytest.raises(AssertionError, match="GP203 frozen"):
        gradprobe.assert_healthy(frozen, X, fail_on="info")
    with pytest.raises(gradprobe.InputError, match="did you mean 'error'"):
        gradprobe.assert_healthy(frozen, X, fail_on="eror")


def test_a_misspelt_rule_is_refused() -> None:
    with pytest.raises(gradprobe.InputError, match="did you mean 'vanishing'"):
        gradprobe.assert_healthy(stack(3), X, ignore=["vanishin"])


SPEC = gradprobe.load(str(ROOT / "model_specs" / "plain_relu.yaml"))


def test_what_probe_takes_it_takes() -> None:
    model = stack(3)
    report = gradprobe.assert_healthy(model, X, blocks=True, max_memory=2**30, level="leaves")
    assert report == gradprobe.probe(model, X, blocks=True, max_memory=2**30, level="leaves")
    with pytest.raises(TypeError, match="blokcs"):
        gradprobe.assert_healthy(model, X, blokcs=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"thresholds": {"vanish": 1}}, "thresholds: unknown word 'vanish'"),
        ({"level": "leafs"}, "level: unknown word 'leafs'"),
        ({"loss": "mes"}, "loss: unknown word 'mes'"),
        ({"loss": "own"}, "loss: unknown word 'own'"),
        ({"rows": "1.*"}, "rows: a spec's rows are its layers"),
        ({"seed": -1}, "seed -1 is out of range (0 to 2^63 - 1)"),
        ({"seeds": 0}, "seeds: 0 is out of range (1 to 1,000)"),
        ({"seed": 3, "seeds": [1]}, "seed and a list of seeds contradict each other"),
        ({"fail_on": "eror"}, "fail_on: unknown word 'eror'"),
        ({"ignore": ["GP999"]}, "ignore: no rule 'GP999'"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_an_error_calls_the_arguments_by_their_names(
    arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(gradprobe.InputError) as raised:
        gradprobe.assert_healthy(SPEC, **arguments)
    assert raised.value.message == message
    assert "--" not in str(raised.value)


# ---- the plugin, in a pytest of its own


TEST = """
import sys

def test_nothing_is_imported_before_something_is_measured(gradient_report):
    assert "torch" not in sys.modules

def model():
    import torch
    from torch import nn

    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), nn.Linear(4, 2))

def test_one(gradient_report):
    import torch

    assert gradient_report(model(), torch.ones(3, 4)).verdict == "healthy"
    gradient_report(model(), torch.ones(3, 4), level="leaves")
"""


def pytest_in(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-p", "gradprobe.pytest_plugin", "-q", *arguments]
    return subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )


@pytest.mark.slow
def test_the_fixture_probes_and_keeps_its_reports(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(TEST)
    done = pytest_in(tmp_path, "--gradprobe-report", "reports")
    assert done.returncode == 0, done.stdout + done.stderr
    kept = sorted(path.name for path in (tmp_path / "reports").iterdir())
    stem = "test_it.py__test_one"
    assert kept == [f"{stem}-2.json", f"{stem}-2.txt", f"{stem}.json", f"{stem}.txt"]
    body = json.loads((tmp_path / "reports" / f"{stem}.json").read_text())
    assert body["verdict"] == "healthy"
    assert "healthy" in (tmp_path / "reports" / f"{stem}.txt").read_text()


# ---- the recipes


def recipe(name: str) -> str:
    text = (ROOT / "docs" / "python.md").read_text()
    [code] = re.findall(rf"^```python {name}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return code


def test_the_plain_loop_runs_as_it_stands(capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(recipe("plain"), "docs/python.md", "exec"), {"__name__": "recipe"})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [["0", "healthy"], ["10", "healthy"]]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the library's own
def test_the_lightning_recipe_runs_as_it_stands() -> None:
    lightning = pytest.importorskip("lightning")
    names: dict[str, object] = {}
    exec(compile(recipe("lightning"), "docs/python.md", "exec"), names)

    class Module(lightning.LightningModule):
        def __init__(self, depth: int, activation: type[nn.Module]) -> None:
            super().__init__()
            self.net = stack(depth, activation)
            self.steps = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.net(x)

        def loss(self, output: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            return nn.functional.cross_entropy(output, labels)

        def training_step(self, batch: list[torch.Tensor], index: int) -> torch.Tensor:
            self.steps += 1
            return self.loss(self(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    data = torch.utils.data.TensorDataset(X, torch.randint(2, (16,)))
    for depth, activation, steps in ((3, nn.Tanh, 4), (20, nn.Sigmoid, 1)):
        module = Module(depth, activation)
        trainer = lightning.Trainer(
            max_epochs=2,
            callbacks=[names["GradientProbe"]()],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            accelerator="cpu",
        )
        trainer.fit(module, torch.utils.data.DataLoader(data, batch_size=8))
        assert module.steps == steps


def test_reports_are_kept_where_pytest_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    config = SimpleNamespace(
        getoption=lambda name: "reports", invocation_params=SimpleNamespace(dir=tmp_path)
    )
    node = SimpleNamespace(nodeid="tests/test_it.py::test_one")
    request: Any = SimpleNamespace(config=config, node=node)
    probed = inspect.unwrap(gradient_report)(request)  # type: ignore[arg-type]
    probed(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)), torch.ones(3, 4))
    assert len(list((tmp_path / "reports").iterdir())) == 2
