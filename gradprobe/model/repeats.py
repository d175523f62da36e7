"""Which modules are the blocks that a model is made of: what its lists hold, what it repeats."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from itertools import pairwise

from torch import nn

from gradprobe.model.sharded import class_of

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
_UNCALLED = (nn.ParameterList, nn.ParameterDict)
_PASSING = (nn.Identity, nn.modules.dropout._DropoutNd)
_SERIES = 4  # blocks in one nn.Sequential that are a stage, however like the next one


def repeated(model: nn.Module) -> set[nn.Module]:
    """The blocks of every list that stands in no block itself; stages are opened.

    A block holds two matrices or more. A class of which one is a block has blocks alone, so that a
    list of one is no other than its neighbours. What lists repeat beside, a convolution with its
    norm, is a block where no row stands around it.
    """
    kinds = {class_of(block) for block in _outermost(model, _run)}.difference(CONTAINERS)

    def known(module: nn.Module) -> list[nn.Module]:
        run = _run(module)
        others = (c for c in children_of(module).values() if c not in run)
        return run + [child for child in others if class_of(child) in kinds]

    blocks = _outermost(model, known, kinds=kinds)

    def small(module: nn.Module) -> list[nn.Module]:
        return [child for child in _alike(module) if blocks.isdisjoint(child.modules())]

    return blocks | _outermost(model, small, into=CONTAINERS if blocks else (nn.Module,))


def children_of(module: nn.Module) -> dict[str, nn.Module]:
    """The modules that a module calls; an attention computes with its projection's weight and
    calls none, and nobody calls a list of parameters."""
    if isinstance(module, nn.MultiheadAttention):
        return {}
    children = module._modules.items()
    return {name: c for name, c in children if c is not None and not isinstance(c, _UNCALLED)}


def holds_weights(module: nn.Module) -> bool:
    """Whether the module, or one inside it, has parameters."""
    return any(True for _ in module.parameters())


def _outermost(
    model: nn.Module,
    run_of: Callable[[nn.Module], list[nn.Module]],
    into: tuple[type[nn.Module], ...] = (nn.Module,),
    kinds: Collection[type[nn.Module]] = (),
) -> set[nn.Module]:
    """The blocks of every run that stands in no other; those of ``kinds`` are no stages."""
    blocks: set[nn.Module] = set()
    stack = [model]
    while stack:
        module = stack.pop()
        run = run_of(module)
        blocks.update(_stages(run, kinds))
        rest = [child for child in children_of(module).values() if child not in run]
        stack += [child for child in rest if into == (nn.Module,) or class_of(child) in into]
    return blocks


def _run(module: nn.Module, least: int = 2) -> list[nn.Module]:
    """The blocks in a list, of whatever classes; at least ``least``.

    One is enough in a ``ModuleList``, which is there for nothing else. Three attributes of one
    class are a list as well.
    """
    if isinstance(module, CONTAINERS):
        elements = _elements(module)
        run = [element for element in elements if _is_block(element)]
        alone = isinstance(module, nn.ModuleList) and len(elements) == 1
        return run if len(run) >= least or (run and alone) else _in_lists(module)
    run = _attributes(module)
    for kind, times in Counter(map(class_of, run)).most_common(1):
        return [child for child in run if class_of(child) is kind] if times > 2 else []
    return []


def _is_block(module: nn.Module) -> bool:
    """Whether it is made of modules, and holds two matrices."""
    return bool(children_of(module)) and sum(p.dim() > 1 for p in module.parameters()) > 1


def _attributes(module: nn.Module) -> list[nn.Module]:
    """The blocks that are attributes, in no list."""
    children = children_of(module).values()
    return [child for child in children if class_of(child) not in CONTAINERS and _is_block(child)]


def _elements(module: nn.Module) -> list[nn.Module]:
    """What stands in a list and in the bare lists inside it, but for those that are blocks.

    Those are alike, and in each a skip or the like stands, once.
    """
    children = list(children_of(module).values())
    lists = [child for child in children if class_of(child) in CONTAINERS]
    shapes = {child: tuple(p.shape for p in child.parameters()) for child in lists}
    times = Counter(shapes.values())

    def opened(child: nn.Module) -> list[nn.Module]:
        if child not in shapes:
            return [child]
        inside = _elements(child)
        by_hand = class_of(child) is nn.Sequential and any(map(children_of, inside))
        by_hand = by_hand and times[shapes[child]] > 1 and sum(map(_is_block, inside)) < 2
        return [child] if by_hand else inside

    return [element for child in children for element in opened(child)]


def _in_lists(module: nn.Module) -> list[nn.Module]:
    """The modules in the lists of a list, as in ``[[attention, feed-forward], …]``.

    A ``ModuleList`` cannot be called, so what stands in it is called by itself.
    """
    if not isinstance(module, nn.ModuleList) or len(module) < 2:
        return []
    lists = list(children_of(module).values())
    if not all(class_of(inner) in (nn.ModuleList, nn.ModuleDict) for inner in lists):
        return []
    inside = [child for inner in lists for child in children_of(inner).values()]
    return [child for child in inside if children_of(child) and class_of(child) not in CONTAINERS]


def _alike(module: nn.Module) -> list[nn.Module]:
    """Of a list's elements those of one class, the commonest, that are made of modules."""
    if not isinstance(module, CONTAINERS):
        return []
    by_kind: dict[object, list[nn.Module]] = {}
    for child in children_of(module).values():
        inside = children_of(child).values()
        if inside and class_of(child) not in CONTAINERS:
            by_kind.setdefault(class_of(child), []).append(child)
        elif (
            class_of(child) is nn.Sequential and any(map(children_of, inside)) and not _alike(child)
        ):
            by_kind.setdefault(tuple(p.shape for p in child.parameters()), []).append(child)
    run = max(by_kind.values(), key=len, default=[])
    alone = isinstance(module, nn.ModuleList) and len(module) == 1
    return run if len(run) > 1 or alone else []


def _stages(run: list[nn.Module], kinds: Collection[type[nn.Module]] = ()) -> list[nn.Module]:
    """``run``, with the blocks inside of its elements in place of those that are stages.

    Layers with a list of experts look like stages, but they are all alike, and stages are not,
    unless many blocks are called one after the other.
    """
    alone = len(run) == 1
    inside = {m: [] if class_of(m) in kinds else _blocks_of(m, alone) for m in run}
    stages = [module for module, blocks in inside.items() if blocks]
    lists = all(isinstance(m, CONTAINERS) or not _attributes(m) for m in stages)
    several = lists or max(map(len, inside.values())) > 1
    many = len({class_of(b) for b in inside[run[0]]}) == 1 if alone else len(stages) > 1 and several
    if not stages or not many or not (all(map(_in_series, stages)) or _unlike(stages)):
        return run
    return [block for module in run for block in (_stages(inside[module], kinds) or [module])]


def _in_series(stage: nn.Module) -> bool:
    lists = [stage, *children_of(stage).values()]
    return any(isinstance(m, nn.Sequential) and len(_run(m, 1)) >= _SERIES for m in lists)


def _unlike(stages: list[nn.Module]) -> bool:
    """Whether each differs from the next in more than one matrix."""
    shapes = [Counter(p.shape for p in stage.parameters() if p.dim() > 1) for stage in stages]
    return all(((a - b) + (b - a)).total() > 1 for a, b in pairwise(shapes))


def _blocks_of(stage: nn.Module, alone: bool) -> list[nn.Module]:
    """The blocks in the lists of what may be a stage; none if it computes with more than those."""
    if isinstance(stage, CONTAINERS):  # a class of its own that is nothing but a list
        return _nothing_but_blocks(stage)
    children = list(children_of(stage).values())
    if len({class_of(child) for child in children}) == 1 and len(_attributes(stage)) == len(
        children
    ):
        return children
    blocks: list[nn.Module] = []
    for child in children:
        run = _nothing_but_blocks(child) if isinstance(child, CONTAINERS) else []
        pools = class_of(child).__module__ == "torch.nn.modules.pooling"
        if not (run or alone or pools or holds_weights(child) or isinstance(child, _PASSING)):
            return []  # an activation behind the list: a block of its own
        blocks += run
    return blocks


def _nothing_but_blocks(module: nn.Module) -> list[nn.Module]:
    """The blocks in a list that holds no other weights but in front of them."""
    run, elements = _run(module, least=1), _elements(module)
    behind = elements[elements.index(run[0]) :] if run and run[0] in elements else elements
    return [] if any(holds_weights(element) for element in behind if element not in run) else run
