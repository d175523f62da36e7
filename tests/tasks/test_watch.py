"""``gradprobe.watch`` in a plain loop, and as a callback of real trainers."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from importlib import import_module
from logging.handlers import BufferingHandler
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gradprobe
from gradprobe.errors import InputError


def train(steps: int = 5, depth: int = 3, activation: type[nn.Module] = nn.Tanh) -> list[Tensor]:
    torch.manual_seed(0)
    blocks = [nn.Sequential(nn.Linear(8, 8), activation()) for _ in range(depth)]
    model = nn.Sequential(*blocks, nn.Linear(8, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        x = torch.randn(16, 8, generator=generator)
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
    return [p.detach().clone() for p in model.parameters()]


@pytest.fixture
def logged() -> Iterator[list[logging.LogRecord]]:
    """What gradprobe logs, from INFO on."""
    logger, handler = logging.getLogger("gradprobe"), BufferingHandler(1000)
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    yield handler.buffer
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)


def test_the_first_step_and_every_so_many(tmp_path: Path, logged: list[logging.LogRecord]) -> None:
    alone = train()
    file = tmp_path / "reports.jsonl"
    with gradprobe.watch(every=2, file=file) as watch:
        result = train()
        assert [r.target for r in watch.reports] == [f"step {n} of SGD" for n in (1, 2, 4)]
    assert all(torch.equal(a, b) for a, b in zip(alone, result, strict=True))
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["verdict"] for line in lines] == [str(r.verdict) for r in watch.reports]
    assert logged[0].getMessage().startswith("step 1 of SGD: healthy, reach ")
    assert {record.levelno for record in logged} == {logging.INFO}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device is always full")
def test_a_full_disk_stops_no_training(logged: list[logging.LogRecord]) -> None:
    with gradprobe.watch(file="/dev/full") as watch:
        train(steps=2)
    assert len(watch.reports) == 1
    assert logged[-1].getMessage() == "cannot write /dev/full: No space left on device"


def test_a_file_that_cannot_be_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot write .*nowhere"):
        gradprobe.watch(file=tmp_path / "nowhere" / "reports.jsonl")


def test_what_is_wrong_is_a_warning(logged: list[logging.LogRecord]) -> None:
    with gradprobe.watch():
        train(steps=1, depth=30, activation=nn.Sigmoid)
    assert logged[0].levelno == logging.WARNING
    assert "vanishing" in logged[0].getMessage()
    assert "GP101" in logged[0].getMessage()


def test_after_close_nothing_is_watched_and_before_it_only_optimizers_are() -> None:
    from torch.nn.modules import module

    before = dict(module._global_forward_hooks), torch.autograd.backward
    watch = gradprobe.watch(every=100)
    train(steps=2)
    assert (dict(module._global_forward_hooks), torch.autograd.backward) == before
    watch.close()
    watch.close()
    train(steps=1)
    assert len(watch.reports) == 1


def test_only_the_model_that_is_named() -> None:
    torch.manual_seed(0)
    mine, other = nn.Linear(4, 2), nn.Linear(4, 64)
    both = torch.optim.SGD([*mine.parameters(), *other.parameters()], lr=0.1)
    with gradprobe.watch(mine) as watch:
        x = torch.randn(8, 4)
        (mine(x).square().mean() + other(x).square().mean()).backward()
        both.step()
    assert watch.reports[0].profile.parameters == 10


def test_what_is_watched_is_a_module() -> None:
    with pytest.raises(InputError, match=r"the model is no nn\.Module but a function"):
        gradprobe.watch(lambda x: x)  # type: ignore[arg-type]


def test_every_is_a_number_of_steps() -> None:
    with pytest.raises(InputError, match="every"):
        gradprobe.watch(every=0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_callback_of_lightning(tmp_path: Path) -> None:
    import lightning

    from gradprobe.integrations.lightning import GradientReport

    class Net(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 8), nn.Linear(8, 2))

        def training_step(self, batch: list[Tensor], index: int) -> Tensor:
            return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters())

    data = torch.utils.data.TensorDataset(torch.randn(64, 4), torch.randint(2, (64,)))
    report = GradientReport(every=3)
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False}
    trainer = lightning.Trainer(
        max_epochs=1,
        accelerator="cpu",
        callbacks=[report],
        enable_progress_bar=False,
        default_root_dir=tmp_path,
        **quiet,
    )
    trainer.fit(Net(), torch.utils.data.DataLoader(data, 16))
    assert report.watch
    assert [r.target for r in report.watch.reports] == ["step 1 of Adam", "step 3 of Adam"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_callback_of_transformers(tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

    from gradprobe.integrations.transformers import GradientReport

    size = {"n_layer": 2, "n_embd": 16, "n_head": 2, "vocab_size": 20, "n_positions": 8}
    model = GPT2LMHeadModel(GPT2Config(**size, use_cache=False, bos_token_id=1, eos_token_id=1))
    rows = [torch.randint(20, (8,)) for _ in range(16)]
    arguments = TrainingArguments(
        str(tmp_path),
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        max_steps=4,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    report = GradientReport(every=2)
    data = [{"input_ids": row, "labels": row} for row in rows]
    Trainer(model, arguments, train_dataset=data, callbacks=[report]).train()
    assert report.watch
    assert [r.target.split(" of")[0] for r in report.watch.reports] == [
        "step 1",
        "step 2",
        "step 4",
    ]


def test_a_second_training_is_not_watched_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the first one ended in an error, transformers tells a callback nothing."""
    stub = ModuleType("transformers")
    monkeypatch.setattr(stub, "TrainerCallback", object, raising=False)
    monkeypatch.setitem(sys.modules, "transformers", stub)
    monkeypatch.delitem(sys.modules, "gradprobe.integrations.transformers", raising=False)
    module: Any = import_module("gradprobe.integrations.transformers")
    sys.modules.pop("gradprobe.integrations.transformers")
    module.watch = lambda **options: SimpleNamespace(close=lambda: closed.append(1))
    closed: list[int] = []
    callback = module.GradientReport(every=1)
    for count in (0, 1):
        callback.on_train_begin(None, None, None)
        assert len(closed) == count
