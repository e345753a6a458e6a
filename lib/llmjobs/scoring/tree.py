"""Token sequences as a tree: what several of them begin with becomes a segment of its own."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llmjobs.scoring.requests import common_length

Tokens = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Segment:
    """Tokens at positions ``start`` … ``end`` - 1 that hang on another segment's end.

    ``parent`` is the index of an earlier segment of the same list, or -1 at the top; ``prefix`` names, at the
    top, the kept prefix of the unit that it hangs on (-1: none).
    """

    tokens: Tokens
    start: int
    parent: int = -1
    prefix: int = -1

    @property
    def end(self) -> int:
        """The position after the last token."""
        return self.start + len(self.tokens)


@dataclass(frozen=True, slots=True)
class Shared:
    """A beginning that could be a segment: its length, how many branches follow, distinct tokens below it."""

    length: int
    branches: int
    tokens_below: int

    @property
    def saved_tokens(self) -> int:
        """How many tokens are not computed again where every branch uses the one copy."""
        return self.length * (self.branches - 1)


Worth = Callable[[Shared], bool]


@dataclass(frozen=True)
class Forest:
    """Segments in depth-first order, and each sequence's path through them (indices, top first)."""

    segments: tuple[Segment, ...]
    paths: dict[Tokens, tuple[int, ...]]


def grow_forest(sequences: Sequence[Tokens], worth: Worth, start: int = 0, prefix: int = -1) -> Forest:
    """Merge equal beginnings from ``start`` on where ``worth`` says so; equal sequences always merge.

    The first ``start`` tokens must be the same in all. Branches keep the order of ``sequences``, so that
    everything below a segment follows it directly.
    """
    return _Grower(sequences, worth, start, prefix).grow()


class _Grower:
    """The sorted sequences with the length that each has in common with the one before it."""

    def __init__(self, sequences: Sequence[Tokens], worth: Worth, start: int, prefix: int) -> None:
        self.rank = {tokens: at for at, tokens in reversed(list(enumerate(sequences)))}
        self.rows = sorted(self.rank)
        pairs = zip(self.rows, self.rows[1:], strict=False)
        self.common = [start, *(common_length(left, right, start) for left, right in pairs)]
        self.worth, self.start, self.prefix = worth, start, prefix
        self.segments: list[Segment] = []
        self.paths: dict[Tokens, tuple[int, ...]] = {}

    def grow(self) -> Forest:
        """Split ranges of the sorted rows from the top; a stack keeps the depth-first order."""
        pending = [(0, len(self.rows), self.start, ())] if self.rows else []
        stack: list[tuple[int, int, int, tuple[int, ...]]] = list(pending)
        while stack:
            low, high, begin, path = stack.pop()
            if high - low == 1:
                self._add_leaf(self.rows[low], begin, path)
                continue
            end = min(self.common[low + 1 : high])
            ranges = self._branches(low, high, end)
            if end > begin and self.worth(self._describe(low, high, begin, end, len(ranges))):
                path, begin = self._add(self.rows[low][begin:end], begin, path), end
            ranges.sort(key=lambda span: min(map(self.rank.__getitem__, self.rows[slice(*span)])), reverse=True)
            stack.extend((first, last, begin, path) for first, last in ranges)
        return Forest(tuple(self.segments), self.paths)

    def _add(self, tokens: Tokens, begin: int, path: tuple[int, ...]) -> tuple[int, ...]:
        parent, prefix = (path[-1], -1) if path else (-1, self.prefix)
        self.segments.append(Segment(tokens, begin, parent, prefix))
        return (*path, len(self.segments) - 1)

    def _add_leaf(self, tokens: Tokens, begin: int, path: tuple[int, ...]) -> None:
        self.paths[tokens] = self._add(tokens[begin:], begin, path) if len(tokens) > begin else path

    def _branches(self, low: int, high: int, end: int) -> list[tuple[int, int]]:
        cuts = [low, *(at for at in range(low + 1, high) if self.common[at] == end), high]
        return list(zip(cuts, cuts[1:], strict=False))

    def _describe(self, low: int, high: int, begin: int, end: int, branches: int) -> Shared:
        below = sum(len(self.rows[at]) - self.common[at] for at in range(low + 1, high))
        return Shared(end - begin, branches, below + len(self.rows[low]) - end)
