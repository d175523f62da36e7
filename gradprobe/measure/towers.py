"""The towers of a network: encoder and decoder, actor and critic, each with a reach of its own."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gradprobe.measure.profile import RowProfile

_LEAST = 3  # rows that hold weights, of which one part that feeds another is a tower of its own


def towers(rows: Sequence[RowProfile]) -> list[tuple[RowProfile, ...]]:
    """The rows by tower, the one with the most rows that hold weights first.

    A row belongs to the tower of the row that it follows from: of several that it reads the one
    that the fewest others read, so that a decoder's layers follow each other and not the encoder,
    which each of them reads. Where the graph is cut a row follows the one before it. What feeds a
    tower and is no tower itself belongs to it. All are one where it is not known what one of them
    reads.
    """
    if any(row.feeders is None for row in rows):
        return [tuple(rows)]
    index = {row.name: i for i, row in enumerate(rows)}
    readers = Counter(name for row in rows for name in row.feeders or ())
    home: dict[str, str] = {}  # of each row, by name: the first row of its tower
    members: dict[str, list[str]] = defaultdict(list)

    def move(old: str, new: str) -> None:
        for name in members.pop(old, []):
            home[name] = new
            members[new].append(name)

    weighty = {row.name for row in rows if row.parameters}
    for row in rows:
        feeders = [
            name for name in row.feeders or () if index.get(name, len(rows)) < index[row.name]
        ]
        nearest = sorted(feeders, key=lambda name: (readers[name], -index[name]))
        cut = rows[index[row.name] - 1].name if row.feeders == () and index[row.name] else row.name
        tower = home[nearest[0]] if nearest else home.get(cut, row.name)
        home[row.name] = tower
        members[tower].append(row.name)
        for other in {home[name] for name in feeders} - {tower}:
            if len(weighty.intersection(members[other])) < _LEAST:
                move(other, tower)
    groups = [tuple(row for row in rows if home[row.name] == first) for first in members]
    return sorted(groups, key=lambda group: -sum(bool(row.parameters) for row in group))


def trunk_of(rows: Sequence[RowProfile]) -> tuple[RowProfile, ...]:
    """From the first row that holds weights to the one that feeds the last that holds weights.

    With fewer than three rows that hold weights: all, up to the last whose output the loss follows
    from, and not its derivative alone. Where it is not known what feeds the last one, the row
    before it does; where that has a gradient of its weights alone, as inside a reversible layer's
    backward pass, such rows are left out.
    """
    weighty = [index for index, row in enumerate(rows) if row.parameters]
    if len(weighty) < 3:
        while len(rows) > 1 and _by_derivative(rows[-1]):
            rows = rows[:-1]
        return tuple(rows)
    feeders = rows[weighty[-1]].feeders or ()
    known = [i for i in range(weighty[0] + 1, weighty[-1]) if rows[i].name in feeders]
    trunk = tuple(rows[weighty[0] : max(known, default=weighty[-1] - 1) + 1])
    if rows[weighty[-1]].gradient_norm is None or not _by_derivative(trunk[-1]):
        return trunk
    return trunk_of([row for row in rows if not _by_derivative(row)])


def _by_derivative(row: RowProfile) -> bool:
    """Whether the loss follows from its weights, and not from what it puts out."""
    trained = any(p.gradient_norm is not None for p in row.parameters)
    return row.gradient_norm is None and trained
