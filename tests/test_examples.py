"""Every block of the pages is run: console blocks by ``test_docs.py``, all others here.

A page's blocks are run one after the other in one folder: a block with ``title=FILE`` is that file,
Python is executed, a spec is probed, a configuration is read by ``check``, and what a job or a hook
calls of gradprobe is called. A block of no known kind fails with its page and line.
"""

from __future__ import annotations

import itertools
import re
import runpy
import shlex
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import yaml
from helpers.commands import Run
from helpers.places import MODEL_SPECS, ROOT, TESTS
from safetensors.torch import save_file
from torch import Tensor, nn

import gradprobe
from gradprobe.cli.app import app_for

PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
FENCED = re.compile(r"^ *```(\S*) ?(.*)\n((?:.*\n)*?) *```$", re.MULTILINE)
# What is not run, and why.
NOT_RUN = {"pip install gradprobe": "the index has no release; .ci/run installs the package"}

# What a page takes for granted: files of its reader's project, by their names.
NETWORK = """\
from torch import nn


class {name}(nn.Sequential):
    def __init__(self, layers):
        blocks = [nn.Sequential(nn.Linear(16, 16), nn.LayerNorm(16)) for _ in range(layers)]
        super().__init__(nn.Embedding({tokens}, 16), *blocks, nn.Linear(16, 4))
"""
SOURCE = """\
from gradprobe.spec.network import InputSpec, LayerSpec, NetworkSpec


def load(target, options):
    layers = (LayerSpec("Linear", {"out_features": 4}),) * int(target.partition(":")[2])
    return NetworkSpec(InputSpec((4,)), layers, source=target)
"""
PROJECTS = {
    "docs/ci.md": {"src/mymodel.py": NETWORK.format(name="TextModel", tokens=8000)},
    "docs/targets.md": {
        "src/net.py": NETWORK.format(name="GPT", tokens=50257),
        "acme/acme/probing.py": SOURCE,
    },
}
STACK = """\
input: {{shape: [64]}}
layers: [repeat: {{times: {depth}, layers: [Linear: {{out_features: 64}}]}}]
"""
DEPTHS = {"GP101": 30, "GP103": 12}  # of a stack in which this is found


class Example(NamedTuple):
    """A fenced block, and where it stands."""

    page: str
    line: int
    language: str
    about: str  # what follows the language
    body: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def title(self) -> str:
        return self.about.partition("title=")[2]

    @property
    def data(self) -> Any:
        """What a block of YAML or TOML holds."""
        return yaml.safe_load(self.body) if self.language == "yaml" else tomllib.loads(self.body)


def examples_in(page: str, text: str) -> list[Example]:
    examples = [
        Example(page, text.count("\n", 0, match.start()) + 1, match[1], match[2], match[3])
        for match in FENCED.finditer(text)
    ]
    assert len(re.findall("^ *```", text, re.MULTILINE)) == 2 * len(examples), page
    return examples


EXAMPLES = [
    example
    for page in PAGES
    for example in examples_in(page.relative_to(ROOT).as_posix(), page.read_text(encoding="utf-8"))
]
# Console blocks are test_docs.py's; what stands on two pages is run for the first of them.
HERE = [
    example
    for number, example in enumerate(EXAMPLES)
    if example.language != "console"
    and example.body not in [earlier.body for earlier in EXAMPLES[:number]]
]


def kind_of(example: Example) -> str | None:
    """How a block is run: a key of ``KINDS``."""
    if example.language == "python":
        return "python file" if example.title else "recipe" if example.about else "python"
    if example.language not in ("yaml", "toml"):
        return None
    if isinstance(example.data, list):
        return "steps"
    marks = {"layers": "spec", "model": "code spec", "check": "part of a spec", "repos": "hooks"}
    marks |= {"jobs": "workflow", "tool": "configuration", "project": "entry point"}
    kinds = [kind for key, kind in marks.items() if key in example.data]
    if not kinds and all("script" in job for job in example.data.values()):
        return "pipeline"
    return kinds[0] if len(kinds) == 1 else None


@pytest.mark.parametrize("page", sorted({example.page for example in EXAMPLES}))
def test_every_block_is_of_a_kind_that_is_run(page: str) -> None:
    strange = [str(e) for e in HERE if e.page == page and kind_of(e) not in KINDS]
    assert strange == []


def test_a_block_that_nothing_runs_is_named() -> None:
    text = "# A\n\n```json\n{}\n```\n\n- b\n\n  ```yaml\n  a: {b: 1}\n  ```\n"
    examples = examples_in("docs/a.md", text)
    assert [str(example) for example in examples] == ["docs/a.md:3", "docs/a.md:9"]
    assert [kind_of(example) for example in examples] == [None, None]


def test_a_command_within_a_sentence_has_the_options_that_it_is_shown_with() -> None:
    commands = app_for(None).commands
    options = {
        name: {
            word
            for parameter in command.params
            for word in (*parameter.opts, *parameter.secondary_opts)
        }
        for name, command in commands.items()
    }
    unknown = []
    for page in PAGES:
        for span in re.findall(
            r"`gradprobe ([a-z]+ [^`]*)`", FENCED.sub("", page.read_text("utf-8"))
        ):
            name, *words = span.split()
            shown = {word.partition("=")[0] for word in words if word.startswith("--")}
            if name not in ("help", "run"):  # what follows a script is the script's own
                unknown += [(page.name, span, word) for word in shown - options[name] - {"--help"}]
    assert unknown == []


class Reader:
    """Somebody who does what a page says, in the current folder."""

    def __init__(self, page: str, run: Run) -> None:
        self.page, self.run = page, run
        self.names: dict[str, Any] = {"__name__": "example", "model": residual()}
        self.names["inputs"] = torch.randn(16, 8)
        Path("model_specs").symlink_to(MODEL_SPECS)
        for name, body in PROJECTS.get(page, {}).items():
            write(name, body)

    def call(self, *words: str) -> str:
        """What gradprobe prints: whether it finds something or not, it knows every word."""
        done = self.run(*words)
        assert done.code in (0, 1), (words, done.err)
        return done.out

    def script(self, lines: str) -> list[str]:
        """Call what a script calls of gradprobe; the files that it leaves."""
        left = []
        for line in filter(None, map(str.strip, lines.splitlines())):
            words = shlex.split(line)
            if line in NOT_RUN:
                continue
            assert words[0] == "gradprobe", line
            self.call(*itertools.chain.from_iterable(globbed(word) for word in words[1:]))
            left += [path for word in words if (path := word.partition("=")[2])]
        assert [path for path in left if not Path(path).stat().st_size] == []
        return left


def write(name: str, body: str) -> str:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(body, encoding="utf-8")
    return name


def globbed(word: str) -> list[str]:
    return sorted(map(str, Path().glob(word))) if "*" in word else [word]


def residual() -> nn.Module:
    """A model whose gradient gets through, in blocks with a skip."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = x + 0.1 * self.inner(x).tanh()
            return y

    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 8), *(Block() for _ in range(4)), nn.Linear(8, 4))


# ---- each kind of block


def run_python(reader: Reader, example: Example) -> None:
    """At module level, and then the tests that the block defines."""
    before = set(reader.names)
    code = compile("\n" * example.line + example.body, example.page, "exec")
    exec(code, reader.names)
    fixtures = {"gradient_report": gradprobe.probe}
    for name in set(reader.names) - before:
        if name.startswith("test_"):
            test = reader.names[name]
            test(
                *(fixtures[word] for word in test.__code__.co_varnames[: test.__code__.co_argcount])
            )


def run_python_file(reader: Reader, example: Example) -> None:
    """A console block of the page, which test_docs.py runs, names the file."""
    stem = re.escape(example.title.removesuffix(".py"))
    commands = [e.body for e in EXAMPLES if e.page == example.page and e.language == "console"]
    assert re.search(rf"^[$>] .*\b{stem}\b", "\n".join(commands), re.MULTILINE), example


def run_recipe(reader: Reader, example: Example) -> None:
    tests = (TESTS / "test_assertions.py").read_text(encoding="utf-8")
    assert f'recipe("{example.about}")' in tests, example


def run_spec(reader: Reader, example: Example) -> None:
    reader.call("probe", write(example.title or "net.yaml", example.body))


def run_code_spec(reader: Reader, example: Example) -> None:
    reader.call("probe", write("code.yaml", example.body), "--allow-code", "--trusted-in-process")


def run_part_of_a_spec(reader: Reader, example: Example) -> None:
    """Its ignores are of use in a network that has the fault."""
    for ignore in example.data["check"]["ignore"]:
        spec = STACK.format(depth=DEPTHS[ignore["rule"]]) + example.body
        assert "1 ignored" in reader.call(
            "check", "--isolated", "--no-overfit", write("part.yaml", spec)
        )


def run_configuration(reader: Reader, example: Example) -> None:
    """A table with targets counts for this once, since each job would have to allow code."""
    before = Path("pyproject.toml").read_text() if Path("pyproject.toml").is_file() else ""
    write("pyproject.toml", example.body)
    targets = example.data["tool"]["gradprobe"].get("targets", [])
    for weights in (target["weights"] for target in targets if "weights" in target):
        Path(weights).parent.mkdir(parents=True)
        names = runpy.run_path("src/mymodel.py")
        save_file(names["TextModel"](24).state_dict(), weights)
    words = ("--allow-code", "--no-deep", "--no-overfit") if targets else ()
    printed = reader.call("check", *words, "--output-format", "json")
    for target in targets:
        assert f'"target": "{target["target"]}(' in printed
    if targets:
        write("pyproject.toml", before)


def run_entry_point(reader: Reader, example: Example) -> None:
    """The package is there as pip installs it."""
    [(group, entries)] = example.data["project"]["entry-points"].items()
    folder = Path(example.title).parent
    lines = "".join(f"{name} = {value}\n" for name, value in entries.items())
    write(f"{folder}/x-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: x\nVersion: 1\n")
    write(f"{folder}/x-1.dist-info/entry_points.txt", f"[{group}]\n{lines}")
    sys.path.insert(0, str(folder.resolve()))
    for name in entries:
        assert "4 rows" in reader.call("probe", f"{name}:4")


def run_workflow(reader: Reader, example: Example) -> None:
    """The commands of each job, for each cell of its matrix; a later step takes what they leave."""
    write(example.title, example.body)
    for job in example.data["jobs"].values():
        runs = [step["run"] for step in job["steps"] if "run" in step]
        matrix = job.get("strategy", {}).get("matrix", {})
        for cell in itertools.product(*matrix.values()):
            values = dict(zip(matrix, map(str, cell), strict=True))
            for line in runs:
                for name, value in values.items():
                    line = line.replace(f"${{{{ matrix.{name} }}}}", value)
                reader.script(line)
        for output in re.findall(r"-o \w+=(.+)", "\n".join(runs)):
            assert example.body.count(output) > 1, output


def run_pipeline(reader: Reader, example: Example) -> None:
    write(example.title, example.body)
    for job in example.data.values():
        left = reader.script("\n".join(job["script"]))
        assert left == list(job["artifacts"]["reports"].values())
        assert [path for path in job["cache"]["paths"] if not Path(path).is_dir()] == []


def run_steps(reader: Reader, example: Example) -> None:
    """What this repository's action does with the inputs that it has."""
    inputs = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))["inputs"]
    for step in example.data:
        assert step["uses"] == "OWNER/gradprobe@REF"
        assert set(step["with"]) <= set(inputs)
        values = {name: about["default"] for name, about in inputs.items()} | step["with"]
        reader.call("check", *shlex.split(values["args"]), "--", *shlex.split(values["paths"]))


def run_hooks(reader: Reader, example: Example) -> None:
    """The hooks' entries, also of the one that stands in a comment."""
    hooks = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    entries = {hook["id"]: hook["entry"] for hook in hooks}
    for name in re.findall(r"- id: ([\w-]+)", example.body):
        reader.script(entries[name])


KINDS: dict[str, Callable[[Reader, Example], None]] = {
    "python": run_python,
    "python file": run_python_file,
    "recipe": run_recipe,
    "spec": run_spec,
    "code spec": run_code_spec,
    "part of a spec": run_part_of_a_spec,
    "configuration": run_configuration,
    "entry point": run_entry_point,
    "workflow": run_workflow,
    "pipeline": run_pipeline,
    "steps": run_steps,
    "hooks": run_hooks,
}


@pytest.fixture
def modules_of_this_test() -> Iterator[None]:
    """What an example has imported is not there for the next test."""
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in ("acme", "mymodel", "net"):
            del sys.modules[name]


@pytest.mark.slow
@pytest.mark.usefixtures("forked_workers", "modules_of_this_test")
@pytest.mark.parametrize("page", sorted({example.page for example in HERE}))
def test_a_page_s_blocks_run_as_they_stand(
    page: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    reader = Reader(page, run)
    examples = [example for example in HERE if example.page == page]
    for example in examples:
        if example.language == "python" and example.title:
            write(example.title, example.body)
    for example in examples:
        try:
            KINDS[kind_of(example) or ""](reader, example)
        except Exception as error:
            error.add_note(f"in the block at {example}")
            raise
