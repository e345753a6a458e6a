"""How the tokens of one packed forward attend: every segment to itself, and to those that it follows."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby

from llmjobs.engines.plan import Batch, Segment, Tokens, UnitPlan


@dataclass(frozen=True, slots=True)
class Causal:
    """``count`` neighbouring segments of ``length`` rows from row ``first``: causal attention inside each."""

    first: int
    length: int
    count: int


@dataclass(frozen=True, slots=True)
class Cross:
    """Rows ``first`` … ``last`` - 1 attend to every key of an earlier segment or of a kept prefix.

    Keys: rows ``key_first`` … ``key_last`` - 1 of this forward, or the whole of kept prefix ``prefix`` (>=
    0). ``key_start`` is the position of the first key.
    """

    first: int
    last: int
    key_first: int
    key_last: int
    key_start: int
    prefix: int = -1


@dataclass(frozen=True)
class Layout:
    """One packed forward: tokens and positions of its rows, and its attention."""

    tokens: tuple[int, ...]
    positions: tuple[int, ...]
    causal: tuple[Causal, ...]
    cross: tuple[Cross, ...] = field(default=())


def layout_batch(plan: UnitPlan, batch: Batch) -> Layout:
    """Lay out a batch depth first, so that all descendants of a segment are one range of rows after it."""
    segments = batch.segments
    offsets = _offsets(segments)
    cross = [*_prefix_cross(plan, segments, offsets), *_inner_cross(segments, offsets)]
    return Layout(
        tuple(token for segment in segments for token in segment.tokens),
        tuple(position for segment in segments for position in range(segment.start, segment.end)),
        _causal(segments, offsets),
        tuple(cross),
    )


def layout_prefix(plan: UnitPlan, prefix: int) -> Layout:
    """Lay out a kept prefix, which attends to the prefixes that it follows."""
    segment = plan.prefixes[prefix]
    size = len(segment.tokens)
    chain = plan.prefix_chain(prefix)[:-1]
    return Layout(
        segment.tokens,
        tuple(range(segment.start, segment.end)),
        (Causal(0, size, 1),),
        tuple(_whole_prefix(plan, above, 0, size) for above in chain),
    )


@dataclass(frozen=True)
class Leaves:
    """A batch's trees written out: whole inputs, each one's kept prefix, and where each packed row is."""

    inputs: list[Tokens]
    prefixes: list[int]
    cells: dict[int, tuple[int, int]]


def find_leaves(plan: UnitPlan, batch: Batch) -> Leaves:
    """Write out every leaf; ``cells`` gives, for each packed row, the first input that contains it and its position."""
    segments, offsets = batch.segments, _offsets(batch.segments)
    parents = {segment.parent for segment in segments}
    found = Leaves([], [], {})
    for leaf in range(len(segments)):
        if leaf in parents:
            continue
        path = _path(segments, leaf)
        prefix = segments[path[0]].prefix
        pieces = [*(plan.prefixes[at] for at in plan.prefix_chain(prefix)), *(segments[at] for at in path)]
        for at in path:
            positions = range(segments[at].start, segments[at].end)
            for row, position in zip(range(offsets[at], offsets[at + 1]), positions, strict=True):
                found.cells.setdefault(row, (len(found.inputs), position))
        found.inputs.append(tuple(token for piece in pieces for token in piece.tokens))
        found.prefixes.append(prefix)
    return found


def _path(segments: Sequence[Segment], leaf: int) -> list[int]:
    path = [leaf]
    while segments[path[-1]].parent >= 0:
        path.append(segments[path[-1]].parent)
    return path[::-1]


def _whole_prefix(plan: UnitPlan, prefix: int, first: int, last: int) -> Cross:
    kept = plan.prefixes[prefix]
    return Cross(first, last, 0, len(kept.tokens), kept.start, prefix)


def _offsets(segments: Sequence[Segment]) -> list[int]:
    offsets = [0]
    for segment in segments:
        offsets.append(offsets[-1] + len(segment.tokens))
    return offsets


def _tree_end(segments: Sequence[Segment], top: int) -> int:
    """Return the index after the last segment below ``top``."""
    at = top + 1
    while at < len(segments) and segments[at].parent >= top:
        at += 1
    return at


def _prefix_cross(plan: UnitPlan, segments: Sequence[Segment], offsets: Sequence[int]) -> list[Cross]:
    """Rows that start with the same kept prefix, which are neighbours, attend to each of its pieces."""
    tops = [at for at, segment in enumerate(segments) if segment.parent < 0]
    found = []
    for prefix, group in groupby(tops, key=lambda at: segments[at].prefix):
        members = list(group)
        first, last = offsets[members[0]], offsets[_tree_end(segments, members[-1])]
        found += [_whole_prefix(plan, piece, first, last) for piece in plan.prefix_chain(prefix)]
    return found


def _inner_cross(segments: Sequence[Segment], offsets: Sequence[int]) -> list[Cross]:
    """All descendants of a segment attend to it."""
    found = []
    for at, segment in enumerate(segments):
        end = _tree_end(segments, at)
        if end > at + 1:
            found.append(Cross(offsets[at + 1], offsets[end], offsets[at], offsets[at + 1], segment.start))
    return found


def _causal(segments: Sequence[Segment], offsets: Sequence[int]) -> tuple[Causal, ...]:
    """Neighbouring segments of one length run as one call."""
    found = []
    at = 0
    for length, group in groupby(segments, key=lambda segment: len(segment.tokens)):
        count = len(list(group))
        found.append(Causal(offsets[at], length, count))
        at += count
    return tuple(found)
