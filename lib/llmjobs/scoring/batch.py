"""One batch: whole docs as a forest of token segments, and where each option's score is read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llmjobs.scoring.requests import ModelInput
from llmjobs.scoring.tree import Forest, Segment, Shared, grow_forest

Option = tuple[int, int]
"""A doc's index in its unit, an option's index in its doc."""

MIN_SAVED_TOKENS = 8
MIN_SAVED_SHARE = 0.02


@dataclass(frozen=True, slots=True)
class Reading:
    """Where an option is scored: rows of the packed batch whose logits predict ``targets``, one each."""

    rows: tuple[int, ...]
    targets: tuple[int, ...]


@dataclass(frozen=True)
class Batch:
    """Options of whole docs that run in one forward, packed one segment after the other, depth first."""

    options: tuple[Option, ...]
    segments: tuple[Segment, ...]
    readings: tuple[Reading, ...]

    @property
    def docs(self) -> tuple[int, ...]:
        """The docs in the order of the results."""
        return tuple(dict.fromkeys(doc for doc, _ in self.options))

    @property
    def tokens(self) -> int:
        """How many tokens the forward computes (kept prefixes not counted)."""
        return sum(len(segment.tokens) for segment in self.segments)

    @property
    def prefixes(self) -> tuple[int, ...]:
        """The kept prefixes that its segments hang on."""
        return tuple(sorted({segment.prefix for segment in self.segments} - {-1}))


@dataclass(frozen=True)
class Placed:
    """A request's input and the kept prefix that it starts with (-1: none) of ``kept_tokens`` tokens."""

    input: ModelInput
    prefix: int = -1
    kept_tokens: int = 0


def pays_in_batch(shared: Shared) -> bool:
    """Whether one copy inside a batch saves more than its extra attention call costs."""
    return shared.saved_tokens >= max(MIN_SAVED_TOKENS, MIN_SAVED_SHARE * shared.tokens_below)


def never_pays(_: Shared) -> bool:
    """Share nothing but equal inputs."""
    return False


def build_batch(options: Sequence[Option], placed: Mapping[Option, Placed], sharing: bool) -> Batch:
    """Pack ``options`` into one forest; a tree for each kept prefix, in order of first use."""
    groups: dict[int, list[Placed]] = {}
    for option in options:
        groups.setdefault(placed[option].prefix, []).append(placed[option])
    segments: list[Segment] = []
    paths: dict[tuple[int, ...], tuple[int, ...]] = {}
    for prefix, members in groups.items():
        forest = grow_forest(
            [member.input.tokens for member in members],
            pays_in_batch if sharing else never_pays,
            start=members[0].kept_tokens,
            prefix=prefix,
        )
        paths |= {tokens: tuple(at + len(segments) for at in path) for tokens, path in forest.paths.items()}
        segments += _moved(forest, by=len(segments))
    offsets = _offsets(segments)
    readings = [_reading(placed[option].input, paths, segments, offsets) for option in options]
    return Batch(tuple(options), tuple(segments), tuple(readings))


def _moved(forest: Forest, by: int) -> list[Segment]:
    return [
        Segment(one.tokens, one.start, one.parent + by if one.parent >= 0 else -1, one.prefix)
        for one in forest.segments
    ]


def _offsets(segments: Sequence[Segment]) -> list[int]:
    """Return each segment's first row in the packed batch."""
    offsets, at = [], 0
    for segment in segments:
        offsets.append(at)
        at += len(segment.tokens)
    return offsets


def _reading(
    read: ModelInput,
    paths: Mapping[tuple[int, ...], tuple[int, ...]],
    segments: Sequence[Segment],
    offsets: Sequence[int],
) -> Reading:
    rows: list[int] = []
    for at in paths[read.tokens]:
        segment = segments[at]
        first = max(segment.start, read.first_scored)
        rows += (offsets[at] + position - segment.start for position in range(first, segment.end))
    return Reading(tuple(rows), read.targets)
