"""Every option of every command with every kind of target: an effect, or the one sentence.

An effect is another request to what measures: the measuring itself is recorded, not done. What it
makes of a request is in tests/cli/test_table.py and in the rooms below.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from helpers.commands import Run
from helpers.projects import CONFIG, NET, SPEC

from gradprobe.cli.app import app_for
from gradprobe.errors import InputError
from gradprobe.spec.sources.yaml import parse_any
from gradprobe.tasks.check.job import Job, about

CODE_SPEC = "model: {target: 'net:Net', inputs: {shape: [8, 8]}}\n"
ALLOWED = ("--allow-code",)
Ask = Callable[..., str | InputError]
TARGETS: dict[str, tuple[str, tuple[str, ...]]] = {
    "stack": ("residual", ()),
    "spec": ("net.yaml", ()),
    "name": ("net:Net", ()),
    "code spec": ("code.yaml", ALLOWED),
    "named": ("timm:resnet18", ()),
    "config": ("config.json", ()),
}
LAYERS = "stack spec"
CODE = "name code_spec"
BUILT = f"{CODE} named"
ALL = f"{LAYERS} {BUILT} config"

# Each option with words for it, and the kinds of target that it has an effect on.
OPTIONS: dict[str, tuple[str, str]] = {
    "depth": ("--depth 4", "stack"),
    "width": ("--width 9", "stack"),
    "activation": ("--activation relu", "stack"),
    "init": ("--init zeros", "stack"),
    "norm": ("--norm layer", "stack"),
    "zero_init": ("--zero-init", "stack"),
    "gain": ("--gain 1", "stack"),
    "arg": ("--arg layers=2", BUILT),
    "path": ("--path sub", BUILT),
    "input": ("--input shape=4,8", BUILT),
    "inputs": ("--inputs net:batch", BUILT),
    "train_mode": ("--eval-mode", f"{BUILT} config"),
    "timeout": ("--timeout 9", BUILT),
    "trusted_in_process": ("--trusted-in-process", BUILT),
    "layers": ("--layers 1", "config"),
    "set": ("--set n_embd=8", "config"),
    "seed": ("--seed 1", ALL),
    "seeds": ("--seeds 2", ALL),
    "batch_size": ("--batch-size 4", f"{LAYERS} named config"),
    "dtype": ("--dtype bfloat16", ALL),
    "device": ("--device cuda", ALL),
    "loss": ("--loss cross_entropy", ALL),
    "data": ("--data x.npy", f"{LAYERS} {BUILT}"),
    "weights": ("--weights w.pt", ALL),
    "weights_prefix": ("--weights-prefix a. --weights w.pt", ALL),
    "level": ("--level leaves", ALL),
    "by": ("--by position", LAYERS),
    "blocks": ("--blocks", ALL),
    "attention": ("--attention", ALL),
    "precision": ("--precision", ALL),
    "theory": ("--theory", LAYERS),
    "rows": ("--rows *", f"{BUILT} config"),
    "deep": ("--deep", ALL),
    "stream": ("--stream", f"{LAYERS} config"),
    "boundaries": ("--boundaries bfloat16 --stream", f"{LAYERS} config"),
    "lr": ("--lr 0.1", ALL),
    "overfit": ("--overfit", ALL),
    "overfit_time": ("--overfit --overfit-time 3", ALL),
    "max_parameters": ("--max-parameters 9", f"{LAYERS} named config"),
    "max_memory": ("--max-memory 1GiB", ALL),
    "row": ("--row 1.1", ALL),
    "max_paths": ("--max-paths 2", ALL),
}
# What is about the run and what is printed, whatever the target: tested with the commands.
OTHERS = (
    "target targets paths context emit_spec step write regression jobs allow_code "
    "format output_format output html svg figure all color fail_on exit_zero quiet verbose "
    "select ignore exclude force_exclude config isolated show_config "
    "baseline write_baseline prune_baseline shard no_cache cache_dir"
).split()
# Where a command means something else by an option.
OWN: dict[tuple[str, str], tuple[str, str]] = {
    ("sweep", "depth"): ("--depth 2,4", LAYERS),
    ("check", "timeout"): ("--timeout 9", ALL),
    ("check", "deep"): ("--no-deep", ALL),
    ("check", "overfit_time"): ("--overfit-time 3", ALL),
    ("fix", "seeds"): ("--seeds 2", ALL),
}
RECORDED = {
    "check": "gradprobe.worker.pool.run",
    "probe": "gradprobe.cli.commands.probe.probe_seeds",
    "compare": "gradprobe.cli.options.probe_target",
    "block": "gradprobe.cli.commands.block.take_apart",
    "paths": "gradprobe.cli.commands.paths.expand",
    "sweep": "gradprobe.tasks.sweep.run",
    "fix": "gradprobe.tasks.fix.target.mend",
}
NEEDED = {  # what a command does not go without
    ("sweep", "name"): "--arg width=8",
    ("sweep", "code spec"): "--arg width=8",
    ("sweep", "named"): "--arg width=8",
    ("sweep", "config"): "--set n_head=2",
}


class RecordedError(Exception):
    """What is asked of what measures."""


@cache
def application(command: str) -> Any:
    """The command line of one command, which takes a while to make."""
    return app_for([command])


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """A command on a kind of target: what it asks of what measures, or how it refuses."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    for file, text in {
        "net.py": NET,
        "net.yaml": SPEC,
        "code.yaml": CODE_SPEC,
        "config.json": json.dumps(CONFIG),
        "x.npy": "",
        "w.pt": "",
    }.items():
        (tmp_path / file).write_text(text)

    def record(*arguments: Any, **keywords: Any) -> Any:
        raise RecordedError(repr([_plain(value) for value in (*arguments, *keywords.values())]))

    for name in set(RECORDED.values()):
        module, _, function = name.rpartition(".")
        monkeypatch.setattr(import_module(module), function, record)

    def call(command: str, kind: str, *words: str) -> str | InputError:
        target, own = TARGETS[kind]
        more = ("--no-cache", *ALLOWED) if command == "check" else own
        try:
            application(command).main([command, target, *more, *words], standalone_mode=False)
        except RecordedError as recorded:
            return str(recorded)
        except InputError as error:
            return error
        raise AssertionError("nothing was measured, and nothing refused")

    return call


def _plain(value: Any) -> Any:
    """What of a request decides what is measured."""
    if isinstance(value, Sequence) and value and isinstance(value[0], Job):
        return [_decisive(job) for job in value]
    return None if callable(value) else value


def _decisive(job: Job) -> Any:
    spec = job.spec or parse_any(job.data, job.name)
    return spec, asdict(about(spec, job.options)), job.timeout, job.allow_code


def options_of(command: str) -> Iterator[tuple[str, list[str], set[str]]]:
    """The options of a command, with words for each and the kinds that it is about."""
    function = getattr(import_module(f"gradprobe.cli.commands.{command}"), command)
    for name in inspect.signature(function).parameters:
        if name not in OTHERS:
            words, kinds = OWN.get((command, name)) or OPTIONS[name]
            yield name, words.split(), {kind.replace("_", " ") for kind in kinds.split()}


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("command", RECORDED)
def test_every_option_has_an_effect_or_is_refused(ask: Ask, command: str, kind: str) -> None:
    needed = NEEDED.get((command, kind), "").split()
    usual = ask(command, kind, *needed)
    assert isinstance(usual, str)
    wrong: dict[str, object] = {}
    for name, words, kinds in options_of(command):
        request = ask(command, kind, *needed, *words)
        if kind in kinds:
            if request == usual or isinstance(request, InputError):
                wrong[name] = request
        elif isinstance(request, str) or "it has no effect on" not in request.message:
            wrong[name] = request
    assert wrong == {}


# What has no effect beside another option: the words, and what is said of them.
TRIAL = "--overfit-time is the time of a trial, and there is none: --overfit"
IDLE = {
    "check net.yaml --no-overfit --overfit-time 5": TRIAL,
    "check net.yaml --config never.toml --overfit-time 5": TRIAL,
    "probe plain --overfit-time 5": TRIAL,
    "block plain --step --format json": "--step has no effect beside --format json",
    "block plain --step -o block.txt": "--step has no effect beside --output",
    "probe plain --emit-spec --format json": "--format has no effect beside --emit-spec",
    "probe plain --emit-spec --deep": "--deep has no effect beside --emit-spec",
    "probe net.yaml --emit-spec --html a.html": "--html has no effect beside --emit-spec",
}


@pytest.mark.parametrize("words", IDLE)
def test_an_option_without_effect_beside_another_is_refused(
    run: Run, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.yaml").write_text(SPEC)
    Path("never.toml").write_text("overfit = false\n")
    done = run(*words.split())
    assert (done.code, done.out) == (2, "")
    assert IDLE[words] in done.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.yaml", "never.toml"]
