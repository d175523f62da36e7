"""Single mutants of the package, drawn from a seed, and the share that the fast suite kills.

    python benchmarks/mutants.py --record              # once: which test reaches which function
    python benchmarks/mutants.py --count 100 --seed 1

A mutant is the package with one comparison, arithmetic operator, number, boolean operator or
``not`` changed, or with one call, raise or assignment to an attribute dropped. Each is written into
a copy of the working tree, and tests run against it until one fails. They run in three stages:
files that import the mutated module, then the folder of tests that mirrors its own, then the rest.
A test that fails on the package as it is, when the record is made, kills no mutant.
Where there is a record, only tests that reach the mutated function run (for a mutant outside of
functions: those that reach its file), and a test that takes ten times as long as it did fails.

Torch is imported once; each mutant is a fork, and as many run at once as ``--jobs`` says. On a busy
machine a mutant killed in the first stage took 13 to 50 seconds. One that survives costs all tests
that reach it, at most the suite: six minutes of one core. By that a hundred are an hour or two on
two cores; nobody has waited for it yet. ``--slice 20:40`` takes a part of the same draw, and
``--stages 1`` leaves the later stages out, to look at what survives by hand.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import faulthandler
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "gradprobe"
RECORD = ROOT / ".pytest_cache" / "mutants.json"
PRELOADED = ("torch", "numpy", "scipy.integrate", "jsonschema", "rich", "typer")

COMPARISONS: dict[type, tuple[type, ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
ARITHMETIC: dict[type, tuple[type, ...]] = {
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Div,),
    ast.Div: (ast.Mult,),
    ast.FloorDiv: (ast.Div,),
    ast.Mod: (ast.Mult,),
    ast.Pow: (ast.Mult,),
}
# Calls of these are replaced by their first argument.
TRANSPARENT = frozenset("abs sorted reversed min max sqrt square log exp sum".split())


@dataclass(frozen=True)
class Mutant:
    """One change: the ``number``-th mutable node of a file, and which of its alternatives."""

    file: str
    number: int
    choice: int
    line: int
    function: str  # the outermost one, by its qualified name
    what: str


# ---- the mutants


def alternatives(node: ast.AST) -> list[ast.AST]:
    """What may stand in the place of ``node``."""
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        others = COMPARISONS[type(node.ops[0])]
        return [ast.Compare(node.left, [other()], node.comparators) for other in others]
    if isinstance(node, ast.BinOp):
        return [ast.BinOp(node.left, op(), node.right) for op in ARITHMETIC.get(type(node.op), ())]
    if isinstance(node, ast.AugAssign):
        others = ARITHMETIC.get(type(node.op), ())
        return [ast.Pass(), *(ast.AugAssign(node.target, op(), node.value) for op in others)]
    if isinstance(node, ast.BoolOp):
        other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        return [ast.BoolOp(other, node.values)]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        return [node.operand]
    if isinstance(node, ast.Constant):
        return [ast.Constant(value) for value in _numbers(node.value)]
    if isinstance(node, ast.Call) and node.args and _name(node.func) in TRANSPARENT:
        return [] if isinstance(node.args[0], ast.Starred) else [node.args[0]]
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        return [ast.Pass()]
    if isinstance(node, ast.Assign) and not isinstance(node.targets[0], ast.Name | ast.Tuple):
        return [ast.Pass()]
    return [ast.Pass()] if isinstance(node, ast.Raise | ast.Continue | ast.Break) else []


def _numbers(value: object) -> list[object]:
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1]
    return [2 * value if value else 1.0] if isinstance(value, float) else []


def _name(function: ast.expr) -> str:
    return getattr(function, "id", getattr(function, "attr", ""))


class _Sites(ast.NodeTransformer):
    """Walks what runs: neither annotations nor decorators. Replaces one node, if it is asked to."""

    def __init__(self, number: int = -1, choice: int = 0) -> None:
        self.wanted = (number, choice)
        self.sites: list[tuple[ast.AST, str, list[ast.AST]]] = []
        self.scopes: list[str] = []
        self.inside = False  # a function

    def visit(self, node: ast.AST) -> ast.AST:
        others = alternatives(node)
        if others:
            self.sites.append((node, ".".join(self.scopes), others))
        wanted, choice = self.wanted
        if others and len(self.sites) - 1 == wanted:
            return ast.copy_location(others[choice], node)
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not self.inside:
            self.scopes.append(node.name)
            self.inside = isinstance(node, ast.FunctionDef)
            self.children(node)
            self.inside = False
            self.scopes.pop()
            return node
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            return self.children(node)
        if isinstance(node, ast.AnnAssign):
            if node.value is not None:
                node.value = self.visit(node.value)  # type: ignore[assignment]
            return node
        return self.generic_visit(node)

    def children(self, node: ast.FunctionDef | ast.ClassDef) -> ast.AST:
        node.body = [self.visit(statement) for statement in node.body]  # type: ignore[misc]
        if isinstance(node, ast.FunctionDef):
            node.args = self.visit(node.args)  # type: ignore[assignment]
        return node

    def visit_arg(self, node: ast.arg) -> ast.AST:
        return node


def mutants(root: Path) -> list[Mutant]:
    """Every mutant of the package, in the order of its files and lines."""
    drawn = []
    for path in sorted((root / PACKAGE).rglob("*.py")):
        walk = _Sites()
        walk.visit(ast.parse(path.read_bytes()))
        name = path.relative_to(root).as_posix()
        for number, (node, function, others) in enumerate(walk.sites):
            for choice, other in enumerate(others):
                what = f"{ast.unparse(node)}  →  {ast.unparse(other)}"
                drawn.append(Mutant(name, number, choice, node.lineno, function, what))  # type: ignore[attr-defined]
    return drawn


def draw(root: Path, count: int, seed: int) -> list[Mutant]:
    """``count`` mutants: places first, all alike, then one of each place's alternatives."""
    places: dict[tuple[str, int], list[Mutant]] = defaultdict(list)
    for mutant in mutants(root):
        places[mutant.file, mutant.number].append(mutant)
    rng = random.Random(seed)
    return [rng.choice(places[place]) for place in rng.sample(sorted(places), count)]


def write(mutant: Mutant | None, path: Path, source: bytes) -> None:
    """The file with this change. ``None``: written by the same means, with no change."""
    tree = ast.parse(source)
    if mutant is not None:
        tree = _Sites(mutant.number, mutant.choice).visit(tree)
    text = ast.unparse(ast.fix_missing_locations(tree))
    path.write_text(text + "\n")
    for stale in (path.parent / "__pycache__").glob(f"{path.stem}.*"):
        stale.unlink()  # of the same second and size, it would be taken for this


# ---- which test reaches which function

TRACER = """
import os, sys, threading
_log = os.open(os.environ["MUTANTS_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
_seen = set()
def tracer(frame, event, argument):
    code = frame.f_code
    if "/gradprobe/" in code.co_filename:
        test = os.environ.get("PYTEST_CURRENT_TEST", "")
        if (test, code) not in _seen:
            _seen.add((test, code))
            try:
                os.write(_log, f"{test}\\t{code.co_qualname}\\n".encode())
            except OSError:
                pass  # the test is about a full disk
sys.settrace(tracer)
threading.settrace(tracer)
"""


@dataclass
class Record:
    """The tests by their names without folders, which may move: seconds, and what they reach."""

    seconds: dict[str, float] = field(default_factory=dict)
    reached: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    failed: set[str] = field(default_factory=set)  # on the package as it is: they kill no mutant

    @classmethod
    def load(cls) -> Record:
        if not RECORD.exists():
            return cls()
        body = json.loads(RECORD.read_text())
        reached = {function: set(tests) for function, tests in body["reached"].items()}
        return cls(body["seconds"], defaultdict(set, reached), set(body["failed"]))

    def save(self) -> None:
        reached = {function: sorted(tests) for function, tests in sorted(self.reached.items())}
        RECORD.parent.mkdir(exist_ok=True)
        body = {"seconds": self.seconds, "reached": reached, "failed": sorted(self.failed)}
        RECORD.write_text(json.dumps(body))

    def add(self, log: Path, seconds: dict[str, float], failed: list[str]) -> None:
        """Take in a log of the tracer's. What a test's setup reaches counts for its whole file."""
        self.failed = (self.failed - seconds.keys()) | set(failed)
        self.seconds |= seconds
        for line in set(log.read_text().splitlines()):
            place, _, function = line.partition("\t")
            test, _, phase = place.rpartition(" ")
            if test:
                name = key(test).partition("::")[0] if phase == "(setup)" else key(test)
                self.reached[_outermost(function)].add(name)

    def reaching(self, mutant: Mutant, root: Path) -> set[str] | None:
        """The tests, or files of them, that reach a mutant; ``None`` where nothing is known."""
        functions = {mutant.function}
        if mutant.function not in self.reached:
            walk = ast.walk(ast.parse((root / mutant.file).read_bytes()))
            inside = {node.name for node in walk if isinstance(node, ast.FunctionDef)}
            functions = {f for f in self.reached if f.rpartition(".")[2] in inside}
        tests = set().union(*(self.reached[function] for function in functions))
        return tests or None


def key(node: str) -> str:
    return node.rpartition("::")[0].rpartition("/")[2] + "::" + node.rpartition("::")[2]


def _outermost(function: str) -> str:
    return function.partition(".<locals>")[0]


# ---- a run of pytest in a fork


class Chosen:
    """A plugin: takes these tests alone, quick ones first, and times them.

    With ``slack`` a test that takes so many times its recorded time ends the process.
    """

    def __init__(self, record: Record, names: set[str] | None, slack: float) -> None:
        self.record, self.names, self.slack = record, names, slack
        self.seconds: dict[str, float] = {}
        self.failed: list[str] = []

    def pytest_collection_modifyitems(self, items: list) -> None:  # type: ignore[type-arg]
        known, names = self.record.seconds, self.names
        if names is not None:
            new = {item for item in items if key(item.nodeid) not in known}
            items[:] = [
                item
                for item in items
                if item in new or names & {key(item.nodeid), key(item.nodeid).partition("::")[0]}
            ]
        if self.slack:
            items[:] = [item for item in items if key(item.nodeid) not in self.record.failed]
        items.sort(key=lambda item: known.get(key(item.nodeid), 0.1))

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        if self.slack:
            limit = 20 + self.slack * self.record.seconds.get(key(nodeid), 1.0)
            faulthandler.dump_traceback_later(limit, exit=True)

    def pytest_runtest_logreport(self, report) -> None:  # type: ignore[no-untyped-def]
        name = key(report.nodeid)
        self.seconds[name] = self.seconds.get(name, 0.0) + report.duration
        self.failed += [name] * report.failed


def forked(
    tree: Path, files: Sequence[str], plugin: Chosen, output: Path, log: Path | None = None
) -> int:
    """Start pytest on ``files`` in ``tree``; returns the process's number."""
    child = os.fork()
    if child:
        return child
    try:
        os.setsid()
        os.chdir(tree)
        with output.open("wb") as stream:
            os.dup2(stream.fileno(), 1)
            os.dup2(stream.fileno(), 2)
        paths = [str(tree)]
        stop = ["-x"]
        if log is not None:
            os.environ["MUTANTS_LOG"], stop = str(log), []
            paths.append(str(log.parent))
            exec(TRACER, {})
        sys.path[:1] = paths
        os.environ["PYTHONPATH"] = os.pathsep.join(paths)
        import pytest

        words = ["-n", "0", "-q", "-p", "no:cacheprovider", *stop, *files]
        code = int(pytest.main(words, plugins=[plugin]))
        if log is not None:
            log.with_suffix(".json").write_text(json.dumps([plugin.seconds, plugin.failed]))
        sys.stdout.flush()
        os._exit(0 if code == 5 else code)  # 5: none of the tests was chosen
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    os._exit(99)


def copied(folder: Path) -> Path:
    """A copy of the working tree: what git tracks, and new files that it does not ignore."""
    words = ["git", "ls-files", "-co", "--exclude-standard"]
    names = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in names.splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


def test_files(tree: Path) -> list[str]:
    return sorted(path.relative_to(tree).as_posix() for path in (tree / "tests").rglob("test_*.py"))


def record(words: Sequence[str]) -> None:
    """Run the tests once, on the package as ``ast.unparse`` writes it, and note what they reach."""
    known = Record.load()
    with tempfile.TemporaryDirectory(prefix="mutants") as folder:
        tree = copied(Path(folder) / "tree")
        for path in (tree / PACKAGE).rglob("*.py"):
            write(None, path, path.read_bytes())
        log = Path(folder) / "log" / "calls"
        log.parent.mkdir()
        (log.parent / "sitecustomize.py").write_text(TRACER)
        output = Path(folder) / "output"
        files = [name for name in test_files(tree) if not words or any(w in name for w in words)]
        child = forked(tree, files, Chosen(known, None, 0), output, log)
        os.waitpid(child, 0)
        print(output.read_text()[-2000:])
        known.add(log, *json.loads(log.with_suffix(".json").read_text()))
        known.save()


# ---- the run


def stages(mutant: Mutant, tree: Path, known: Record) -> list[tuple[list[str], set[str] | None]]:
    """For each stage the files of tests, and the names of the tests to take from them."""
    names = known.reaching(mutant, tree)
    wanted = None if names is None else {name.partition("::")[0] for name in names}
    recorded = {name.partition("::")[0] for name in known.seconds}
    files = [
        name
        for name in test_files(tree)
        if wanted is None or Path(name).name in wanted or Path(name).name not in recorded
    ]
    module = mutant.file.removesuffix(".py").replace("/", ".")
    package, _, last = module.rpartition(".")
    imported = re.compile(rf"from {module} import|from {package} import .*\b{last}\b")
    room = "/".join(("tests", *Path(mutant.file).parent.parts[1:2], ""))
    parts: tuple[list[str], list[str], list[str]] = ([], [], [])
    for name in files:
        imports = imported.search((tree / name).read_text())
        parts[0 if imports else 1 if name.startswith(room) and room != "tests/" else 2].append(name)
    return [(part, names) for part in parts]


class Job:
    """One tree, in which one mutant after the other is tried."""

    def __init__(self, folder: Path, known: Record, last: int) -> None:
        self.tree, self.known, self.last = copied(folder / "tree"), known, last
        self.output = folder / "output"
        self.child = 0

    def start(self, mutant: Mutant) -> None:
        self.mutant, self.began = mutant, time.monotonic()
        self.path = self.tree / mutant.file
        self.source = self.path.read_bytes()
        self.stages = iter(stages(mutant, self.tree, self.known)[: self.last])
        write(mutant, self.path, self.source)
        self.next()

    def next(self) -> bool:
        """Start the next stage that has tests; whether there was one."""
        for files, names in self.stages:
            if files:
                plugin = Chosen(self.known, names, slack=10)
                self.child = forked(self.tree, files, plugin, self.output)
                return True
        self.child = 0
        return False

    def ended(self) -> bool | None:
        """Whether the mutant was killed; ``None`` while that is open."""
        if self.child:
            child, status = os.waitpid(self.child, os.WNOHANG)
            if not child:
                return None
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.child, signal.SIGKILL)
            if status == 0 and self.next():
                return None
        else:
            status = 0
        self.path.write_bytes(self.source)
        return status != 0

    def killer(self) -> str:
        lines = self.output.read_text(errors="replace").splitlines()
        short = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
        return (short or ["stopped"])[0].partition(" - ")[0]


def run(drawn: list[Mutant], jobs: int, last: int) -> list[Mutant]:
    """Try each, say how it ended, and return the survivors."""
    known, survivors, left = Record.load(), [], list(reversed(drawn))
    with tempfile.TemporaryDirectory(prefix="mutants") as folder:
        idle = [Job(Path(folder) / str(number), known, last) for number in range(jobs)]
        busy: list[Job] = []
        while left or busy:
            while left and idle:
                job = idle.pop()
                job.start(left.pop())
                busy.append(job)
            time.sleep(0.2)
            for job in list(busy):
                killed = job.ended()
                if killed is None:
                    continue
                mutant, seconds = job.mutant, time.monotonic() - job.began
                end = job.killer() if killed else "SURVIVED"
                print(f"{seconds:4.0f} s  {mutant.file}:{mutant.line}  {mutant.what}  {end}")
                sys.stdout.flush()
                survivors += [] if killed else [mutant]
                busy.remove(job)
                idle.append(job)
    return survivors


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=100, help="mutants to draw")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--slice", default=":", metavar="A:B", help="only these of the draw")
    parser.add_argument("--jobs", type=int, default=2, help="mutants at once")
    parser.add_argument("--stages", type=int, default=3, help="leave later ones out")
    parser.add_argument("--list", action="store_true", help="only print what was drawn")
    parser.add_argument(
        "--record", nargs="*", metavar="WORD", help="note what tests reach, of files named like it"
    )
    options = parser.parse_args()
    os.environ.update(OMP_NUM_THREADS="1")
    for name in () if options.list else PRELOADED:
        __import__(name)
    if options.record is not None:
        record(options.record)
        return
    first, last = (int(end) if end else None for end in options.slice.split(":"))
    drawn = draw(ROOT, options.count, options.seed)[first:last]
    if options.list:
        for mutant in drawn:
            print(f"{mutant.file}:{mutant.line}  {mutant.function}  {mutant.what}")
        return
    survivors = run(drawn, options.jobs, options.stages)
    killed = len(drawn) - len(survivors)
    print(f"\nkilled: {killed} of {len(drawn)} ({killed / len(drawn):.0%}); survivors:")
    for mutant in survivors:
        print(f"  {mutant.file}:{mutant.line}  {mutant.function}  {mutant.what}")


if __name__ == "__main__":
    main()
