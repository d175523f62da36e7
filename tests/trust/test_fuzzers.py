"""Files and words with random changes, each drawn from a seed: a sentence, or what they ask for."""

from __future__ import annotations

import io
import json
import random
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.commands import Run
from helpers.mutations import mutate, mutated, random_change
from helpers.places import SPECS
from safetensors.torch import save

from gradprobe.cli.app import COMMANDS
from gradprobe.errors import GradprobeError
from gradprobe.model.batch import load_batch
from gradprobe.model.plan import plan
from gradprobe.spec.network import NetworkSpec
from gradprobe.spec.options import Limits
from gradprobe.spec.sources import huggingface
from gradprobe.spec.sources.yaml import parse_any
from gradprobe.tasks import read_report
from gradprobe.tasks.check import baseline, config
from gradprobe.tasks.check.cache import Cache, DamagedError
from gradprobe.worker.exchange import Failure, Reply, encode

pytestmark = pytest.mark.slow

SEED = 20261129
LONGEST = 2.0  # seconds of the processor
SMALL = Limits(parameters=100_000, memory=64 << 20)
LIMITS = ("--max-memory", "64MiB", "--max-parameters", "100000", "--batch-size", "2")


def changed(text: str, number: int) -> str:
    """``text`` with one to four changes; the same for the same number."""
    draw = random.Random(SEED + number)
    for _ in range(draw.randint(1, 4)):
        text = mutate(text, random_change(draw))
    return text


def damaged(data: bytes, number: int) -> bytes:
    """``data`` with bits turned, bytes cut out, doubled or put in."""
    draw = random.Random(SEED + number)
    changing = bytearray(data)
    for _ in range(draw.randint(1, 4)):
        at = draw.randrange(len(changing) + 1)
        kind = draw.randrange(5)
        if kind == 0 and at < len(changing):
            changing[at] ^= 1 << draw.randrange(8)
        elif kind == 1:
            del changing[at : at + draw.randint(1, 40)]
        elif kind == 2:
            changing[at:at] = changing[at : at + draw.randint(1, 40)]
        elif kind == 3:
            changing[at:at] = draw.randbytes(draw.randint(1, 9))
        else:
            changing[at : at + 8] = draw.choice([b"\xff" * 8, b"\0" * 8, b"99999999"])
    return bytes(changing)


def hold(read: Callable[[int], object], count: int, *refusals: type[Exception]) -> None:
    """Each of ``count`` is read or refused, and in time; both happen."""
    slowest, read_well, refused = 0.0, 0, 0
    for number in range(count):
        start = time.process_time()
        try:
            read(number)
            read_well += 1
        except (GradprobeError, *refusals) as error:
            refused += bool(str(error))
        except Exception as error:
            pytest.fail(f"{SEED} + {number}: {type(error).__name__}: {error}")
        slowest = max(slowest, time.process_time() - start)
    assert slowest < LONGEST
    assert read_well
    assert refused == count - read_well > 0


def test_specs() -> None:
    texts = [path.read_text("utf-8") for path in sorted((SPECS / "good").glob("*.yaml"))]

    def read(number: int) -> None:
        text = mutated(texts[number % len(texts)], SEED + number)
        spec = parse_any(text.encode("utf-8", "surrogatepass"), "net.yaml")
        if isinstance(spec, NetworkSpec):
            plan(spec, 2, SMALL)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as the commands do
        for number in range(50):  # what torch imports at its first layers
            with suppress(GradprobeError):
                read(number)
        hold(read, 4000)


CONFIG = """select = ["ALL"]
ignore = ["GP201", "weak"]
exclude = ["a/**/b", "!c", "[x-z]*"]
include = ["*.net"]
fail-on = "warning"
regression = 2.0
seeds = [0, 1]
deep = true
overfit = "auto"
overfit-time = 1e1
batch-size = 8
max-parameters = 1000
max-memory = "1GiB"
timeout = 60

[thresholds]
vanishing = 1e-5
weak_low = 0.001

[per-file-ignores]
"old/*.yaml" = ["GP101", {rule = "weak", reason = "old"}]

[[targets]]
target = "a.b:make"
args = {depth = 3}
inputs = {shape = [8, 4], dtype = "int64", high = 7}
mode = "eval"
"""


def test_configurations(tmp_path: Path) -> None:
    path = tmp_path / "gradprobe.toml"

    def read(number: int) -> None:
        path.write_bytes(changed(CONFIG, number).encode("utf-8", "surrogatepass"))
        list(config.values(config.read(path)))

    hold(read, 4000)


@pytest.fixture
def documents(run: Run, folder: Path) -> dict[str, str]:
    """A report, a baseline and a cache's entry as they are written."""
    bad = "layers: [repeat: {times: 20, layers: [Linear: {out_features: 8}, Tanh]}]\n"
    bad += "input: {shape: [8]}\n"
    Path("bad.yaml").write_text(bad)
    report = run("probe", "bad.yaml", "--format", "json", "--deep", "--blocks").out
    run("check", "--write-baseline", "base.json")
    entry = next(Path(".gradprobe_cache").glob("??/*")).read_text()
    return {"report": report, "baseline": Path("base.json").read_text(), "entry": entry}


@pytest.mark.usefixtures("forked_workers")
def test_baselines_reports_and_cache_entries(run: Run, documents: dict[str, str]) -> None:
    def read_baseline(number: int) -> None:
        Path("b.json").write_bytes(damaged(documents["baseline"].encode(), number))
        baseline.load("b.json")

    def read_reports(number: int) -> None:
        text = changed(documents["report"], number)
        Path("r.json").write_bytes(text.encode("utf-8", "surrogatepass"))
        read_report.load("r.json")
        ended = run("compare", "r.json", "r.json", *(["--format", "json"] * (number % 2)))
        assert ended.code in (0, 1, 2), ended

    cache = Cache(Path("other_cache"))

    def read_entry(number: int) -> None:
        """With the right signature, as one who has the secret could write it."""
        body = documents["entry"].partition("\n")[2]
        cache.write("ab" * 32, changed(body, number).encode("utf-8", "replace").decode())
        cache.reply("ab" * 32)

    def read_entry_unsigned(number: int) -> None:
        if number == 0:
            cache.write("cd" * 32, encode(Reply(failure=Failure(2, "x"))))  # type: ignore[arg-type]
            cache.reply("cd" * 32)
            return
        path = Path("other_cache") / "cd" / ("cd" * 31)
        good = path.read_bytes()
        path.write_bytes(damaged(good, number))
        changes = path.read_bytes() != good
        try:
            cache.reply("cd" * 32)
            assert not changes
        finally:
            path.write_bytes(good)

    hold(read_baseline, 3000)
    hold(read_reports, 800)
    hold(read_entry, 2000, DamagedError)
    hold(read_entry_unsigned, 2000, DamagedError)


def test_data(tmp_path: Path) -> None:
    numbers = np.arange(24, dtype=np.float32).reshape(6, 4)
    plain, zipped = io.BytesIO(), io.BytesIO()
    np.save(plain, numbers)
    np.savez(zipped, inputs=numbers, labels=np.arange(6))
    tensors = save({"inputs": torch.zeros(6, 4), "labels": torch.arange(6)})
    files = [("npy", plain.getvalue()), ("npz", zipped.getvalue()), ("safetensors", tensors)]

    def read(number: int) -> None:
        suffix, data = files[number % 3]
        path = tmp_path / f"d.{suffix}"
        path.write_bytes(damaged(data, number))
        load_batch(str(path), None, None, 1 << 24)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        hold(read, 6000)


def test_configurations_of_hugging_face(tmp_path: Path) -> None:
    values = {
        "model_type": "llama", "hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 50,
        "architectures": ["LlamaForCausalLM"], "text_config": {"num_hidden_layers": 2},
        "attn_implementation": "eager", "torch_dtype": "float32", "auto_map": {"a": "b"},
    }  # fmt: skip
    path = tmp_path / "config.json"

    def read(number: int) -> None:
        path.write_bytes(changed(json.dumps(values, indent=1), number).encode("utf-8", "replace"))
        huggingface.load(str(path), huggingface.ArchitectureOptions())

    hold(read, 3000)


WORDS = (
    "net.yaml plain residual nothing.yaml - . :: a:b net.py --format --seed --depth --width --deep "
    "--blocks --level --by --loss --dtype --data --theory --init --set --input --fail-on --color "
    "--exit-zero --select --ignore --exclude --seeds --output-format --jobs --no-cache --shard "
    "--baseline --rows --layers --over --help --version --isolated --config --quiet -v -x -- "
    "text json concise full 0 1 2 -1 3 1e3 x relu GP101 ALL float64 leaves position row depth=2,3 "
    "1/2 {} [] shape=4,8 cross_entropy 99999999999999999999 \x1b[31m \u202e \U0001f600 --seed=1=2"
).split(" ")


@pytest.mark.usefixtures("forked_workers")
def test_command_lines(run: Run, folder: Path) -> None:
    codes = set()
    for number in range(600):
        draw = random.Random(SEED + number)
        words = [draw.choice(WORDS) for _ in range(draw.randint(0, 4))]
        command = draw.choice([*COMMANDS, "nothing"])
        limits = LIMITS if command in ("check", "probe", "sweep") and draw.random() < 0.7 else ()
        target = draw.choice(["net.yaml", "plain", ""])
        line = [command, *([target] if target else []), *words, *limits]
        ended = run(*line)
        assert ended.code in (0, 1, 2, 3), line
        assert "internal error" not in ended.err, line
        assert "Traceback" not in ended.err, line
        assert "\x1b[31m" not in ended.out + ended.err, line
        codes.add(ended.code)
    assert {0, 2} <= codes
