"""What a fuzzer changes in a text: words, numbers and signs of the spec language, and of YAML."""

from __future__ import annotations

import random
import re
from typing import NamedTuple

from gradprobe.spec.layers import LAYERS
from gradprobe.spec.vocabulary import COMBINATORS, INITS, LOSSES, THRESHOLDS, layer_arguments

WORDS = sorted(
    {
        *LAYERS,
        *COMBINATORS,
        *INITS,
        *LOSSES,
        *THRESHOLDS,
        *(argument for kind in (*LAYERS, *COMBINATORS) for argument in layer_arguments(kind)),
        *"name input shape tokens batch_size layers loss init check thresholds ignore".split(),
        *"rule reason branches shortcut weight bias forward training GP101 same reflect".split(),
        *"true false yes on null ~ true: []".split(),
    }
)
NUMBERS = [
    *"0 -1 1 2 3 5 7 64 1000 65536 100000 2147483647 2147483648 9223372036854775808".split(),
    *"1e30 1e-30 -1e30 1e-3 0.5 1.0 1.5 -0.0 .inf -.inf .nan 1.0e+400 017 08 0x10".split(),
    *"1_000 1:30 2024-13-45 +5 1e5".split(),
    "9" * 4301,
]
SYNTAX = [
    *"[ ] { } , : - ? & * ! | > % @ ` # ' \" --- ... &a *a !!bool << ~ é 日 😀".split(),
    *("\t", "\0", "\x1b", "\x85", "\u2028", "\ufeff", "\ud800", " ", "\n", "\n  ", "\n- "),
    *(": ", "- ", "&b [", "*b, ", '"\\e[31m"', '"\\uD800"', "!!python/name:os.system "),
]

ANY = SYNTAX + WORDS + NUMBERS
SMALL = "0 1 2 3 4 5 8 16 -1 0.5".split()
ITEM = re.compile(r"^  - .*\n(?:    .*\n)*", re.MULTILINE)  # of the outermost list
KINDS = "number word insert replace swap delete duplicate lines flip".split()

TOKEN = re.compile(r"[A-Za-z_]\w*|[-+]?[0-9.]+(?:e[-+]?[0-9]+)?|\s+|.", re.DOTALL)


class Change(NamedTuple):
    """One mutation; ``where`` and ``other`` are places in the text, from 0 to 1."""

    kind: str
    where: float
    other: float
    word: str


def number(text: str) -> bool:
    return text[:1].isdigit() or text[1:2].isdigit()


def mutate(text: str, change: Change) -> str:
    """``text`` with one change, made at the token that ``where`` points to."""
    tokens = TOKEN.findall(text)
    if change.kind == "number":
        places = [i for i, token in enumerate(tokens) if number(token)]
    elif change.kind == "word":
        places = [i for i, token in enumerate(tokens) if token[:1].isalpha()]
    else:
        places = list(range(len(tokens)))
    if not places:
        return text + change.word
    index = places[min(len(places) - 1, int(change.where * len(places)))]
    other = min(len(tokens) - 1, int(change.other * len(tokens)))
    if change.kind in ("number", "word", "replace"):
        tokens[index] = change.word
    elif change.kind == "insert":
        tokens.insert(index, change.word)
    elif change.kind == "swap":
        tokens[index], tokens[other] = tokens[other], tokens[index]
    elif change.kind == "delete":
        del tokens[index : index + 1 + int(change.other * 8)]
    elif change.kind == "duplicate":
        tokens[other:other] = tokens[index : index + 1 + int(change.other * 12)]
    elif change.kind == "lines":
        lines = text.splitlines(keepends=True)
        line = lines[int(change.where * (len(lines) - 1))]
        lines.insert(int(change.other * len(lines)), line)
        return "".join(lines)
    elif change.kind == "flip":
        position = min(len(text) - 1, int(change.where * len(text)))
        flipped = chr(ord(text[position]) ^ (1 << int(change.other * 7.99)))
        return text[:position] + flipped + text[position + 1 :]
    return "".join(tokens)


def random_change(draw: random.Random) -> Change:
    """One mutation; most leave it YAML, so that what is behind the reader has its share."""
    kind = draw.choice(KINDS) if draw.random() < 0.4 else draw.choice(("number", "word"))
    words = {"number": NUMBERS, "word": WORDS}.get(kind, ANY)
    if kind == "number" and draw.random() < 0.6:
        words = SMALL
    return Change(kind, draw.random(), draw.random(), draw.choice(words))


def mutated(text: str, seed: int) -> str:
    """A few layers of the spec ``text`` with one to three mutations; the same for the same seed."""
    draw = random.Random(seed)
    items = ITEM.findall(text)
    for item in draw.sample(items, max(0, len(items) - draw.randint(1, 3))):
        text = text.replace(item, "", 1)
    for _ in range(draw.choice((1, 1, 2, 3))):
        text = mutate(text, random_change(draw))
    return text
