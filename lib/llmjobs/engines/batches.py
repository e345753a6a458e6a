"""From a unit's docs to batches: a tree of token segments, kept prefixes, and where scores are read."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from llmjobs.benchmarks.scoring_requests import ModelInput, Request, common_length, model_input
from llmjobs.terminal_text import plural

# Token sequences as a tree: a beginning that several of them share becomes one segment.

Tokens = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Segment:
    """Tokens at positions ``start`` … ``end`` - 1 that follow the end of another segment.

    ``parent`` is the index of an earlier segment of the same list, or -1 at the top; ``prefix`` is the kept prefix of
    the unit that a top segment follows (-1: none).
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
    """A beginning that could become a segment: its length, how many branches follow, distinct tokens below it."""

    length: int
    branches: int
    tokens_below: int

    @property
    def saved_tokens(self) -> int:
        """How many tokens are saved if every branch uses one copy."""
        return self.length * (self.branches - 1)


Worth = Callable[[Shared], bool]


@dataclass(frozen=True)
class Forest:
    """Segments in depth-first order, and each sequence's path through them (indices, top first)."""

    segments: tuple[Segment, ...]
    paths: dict[Tokens, tuple[int, ...]]


def grow_forest(sequences: Sequence[Tokens], worth: Worth, start: int = 0, prefix: int = -1) -> Forest:
    """Merge equal beginnings from ``start`` on if ``worth`` says so; equal sequences always merge.

    The first ``start`` tokens must be the same in all. Branches keep the order of ``sequences``, so that everything
    below a segment follows it directly.
    """
    return _Grower(sequences, worth, start, prefix).grow()


class _Grower:
    """The sorted sequences, each with the length that it has in common with the previous one."""

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


# One batch: whole docs as a forest of token segments, and where each option's score is read.

Option = tuple[int, int]
"""A doc's index in its unit, an option's index in its doc."""

MIN_SAVED_TOKENS = 8
MIN_SAVED_SHARE = 0.02


@dataclass(frozen=True, slots=True)
class Reading:
    """Where an option is scored: rows of the packed batch whose logits predict ``targets``, one row each."""

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
        """The kept prefixes that its segments follow."""
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
    """Share only equal inputs."""
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


# Prefixes of a unit that are computed once, alone, and kept for several batches.

MIN_KEPT_TOKENS = 32
MAJOR_TOKENS = 128
MAJOR_SHARE = 0.25
MIN_GAIN_SHARE = 0.02
MIN_GAIN_TOKENS = 64


def choose_prefixes(
    inputs: dict[int, list[ModelInput]], batch_tokens: int
) -> tuple[tuple[Segment, ...], dict[Option, Placed]]:
    """Choose the prefixes that are worth a separate forward, and the one that each request starts with.

    Everything is shared inside a batch anyway, so a kept prefix saves its length for each further batch that uses it. A
    prefix longer than ``batch_tokens`` becomes a chain of pieces.
    """

    def pays(shared: Shared) -> bool:
        further_batches = shared.tokens_below / batch_tokens - 1
        gain = shared.length * further_batches
        major = shared.length >= MAJOR_TOKENS and shared.saved_tokens >= MAJOR_SHARE * shared.tokens_below
        enough = max(MIN_GAIN_TOKENS, MIN_GAIN_SHARE * shared.tokens_below)
        return shared.length >= MIN_KEPT_TOKENS and (major or gain >= enough)

    keys = {(doc, at): _marked(one, doc) for doc, options in inputs.items() for at, one in enumerate(options)}
    forest = grow_forest(list(keys.values()), pays)
    between_docs = {key: _between_docs(forest, path) for key, path in forest.paths.items()}
    prefixes, number = _pieces(forest, sorted({at for path in between_docs.values() for at in path}), batch_tokens)
    placed = {}
    for (doc, at), key in keys.items():
        path = between_docs[key]
        kept = number[path[-1]] if path else -1
        placed[doc, at] = Placed(inputs[doc][at], kept, prefixes[kept].end if kept >= 0 else 0)
    return prefixes, placed


def _marked(one: ModelInput, doc: int) -> Tokens:
    """Insert a mark of the doc before the first scored position, so that nothing after it is shared between docs."""
    return (*one.tokens[: one.first_scored], -1 - doc, *one.tokens[one.first_scored :])


def _between_docs(forest: Forest, path: Tokens) -> Tokens:
    """Return the path's segments before the one that contains the doc's mark."""
    marked = (at for at, segment in enumerate(path) if min(forest.segments[segment].tokens) < 0)
    return path[: next(marked)]


def _pieces(forest: Forest, inner: Sequence[int], batch_tokens: int) -> tuple[tuple[Segment, ...], dict[int, int]]:
    """Cut the chosen segments into pieces; map each one to its last piece."""
    pieces: list[Segment] = []
    number: dict[int, int] = {}
    for at in inner:
        segment = forest.segments[at]
        parent = number[segment.parent] if segment.parent >= 0 else -1
        for first in range(0, len(segment.tokens), batch_tokens):
            tokens = segment.tokens[first : first + batch_tokens]
            pieces.append(Segment(tokens, segment.start + first, parent))
            parent = len(pieces) - 1
        number[at] = parent
    return tuple(pieces), number


def last_uses(prefixes: Sequence[Segment], batches: Sequence[Batch]) -> tuple[int, ...]:
    """Return, for each kept prefix, the last batch that needs it."""
    last = [-1] * len(prefixes)
    for at, batch in enumerate(batches):
        for prefix in batch.prefixes:
            while prefix >= 0:
                last[prefix] = at
                prefix = prefixes[prefix].parent
    return tuple(last)


def live_tokens(prefixes: Sequence[Segment], batches: Sequence[Batch]) -> int:
    """Return the most prefix tokens that are kept at one time."""
    change = [0] * (len(batches) + 1)
    last = last_uses(prefixes, batches)
    seen: set[int] = set()
    for at, batch in enumerate(batches):
        for prefix in batch.prefixes:
            while prefix >= 0 and prefix not in seen:
                seen.add(prefix)
                change[at] += len(prefixes[prefix].tokens)
                change[last[prefix] + 1] -= len(prefixes[prefix].tokens)
                prefix = prefixes[prefix].parent
    peak = live = 0
    for delta in change:
        live += delta
        peak = max(peak, live)
    return peak


Doc = Sequence[Request]
SHARED_SHARE = 0.98
"""A plan is called shared if it computes less than this share of its plain tokens."""


@dataclass(frozen=True)
class UnitPlan:
    """What runs, in which order, and what it costs.

    ``total_tokens``: distinct inputs run one by one; ``distinct_tokens``: what this plan computes;
    ``peak_cache_tokens``: the maximum number of tokens whose keys and values are kept between batches; ``refused``:
    docs that cannot be scored, with the reason; they are in no batch.
    """

    kind: str
    batches: tuple[Batch, ...]
    prefixes: tuple[Segment, ...]
    total_tokens: int
    distinct_tokens: int
    peak_cache_tokens: int
    batch_tokens: int
    max_length: int
    sharing: bool
    in_batch: bool
    refused: dict[int, str] = field(default_factory=dict)
    placed: dict[Option, Placed] = field(default_factory=dict, repr=False)
    docs: Sequence[Sequence[Request]] = field(default=(), repr=False, compare=False)
    """What was planned, for an engine that sends whole questions."""

    def prefix_chain(self, prefix: int) -> tuple[int, ...]:
        """Return a kept prefix and all prefixes that it follows, top first."""
        chain: list[int] = []
        while prefix >= 0:
            chain.append(prefix)
            prefix = self.prefixes[prefix].parent
        return tuple(reversed(chain))

    @property
    def largest_pass(self) -> int:
        """Tokens of the largest pass: a batch, or a kept prefix."""
        return max([batch.tokens for batch in self.batches] + [len(one.tokens) for one in self.prefixes], default=0)

    @cached_property
    def last_uses(self) -> tuple[int, ...]:
        """Return, for each kept prefix, the last batch that needs it."""
        return last_uses(self.prefixes, self.batches)

    def describe(self) -> str:
        """Describe in one line the kind of plan and what it saves."""
        share = self.distinct_tokens / self.total_tokens if self.total_tokens else 1.0
        what = "shared prefixes" if self.kind == "shared" else "plain, sharing gains nothing"
        if self.kind == "plain" and not self.sharing:
            what = "plain, sharing is off"
        return (
            f"{what}: {plural(len(self.batches), 'batch', 'batches')} of up to {self.batch_tokens} tokens, "
            f"{self.distinct_tokens:,} of {self.total_tokens:,} tokens computed ({share:.0%}), "
            f"at most {self.peak_cache_tokens:,} tokens cached"
        )

    def to_builtin(self) -> dict[str, object]:
        """Return the settings and a digest of the batches, for a fingerprint or a checkpoint."""
        digest = hashlib.sha256()
        for batch in self.batches:
            digest.update(repr((batch.options, batch.segments, batch.readings)).encode())
        digest.update(repr(self.prefixes).encode())
        return {
            "kind": self.kind,
            "sharing": self.sharing,
            "in_batch": self.in_batch,
            "batch_tokens": self.batch_tokens,
            "max_length": self.max_length,
            "batches": len(self.batches),
            "total_tokens": self.total_tokens,
            "distinct_tokens": self.distinct_tokens,
            "peak_cache_tokens": self.peak_cache_tokens,
            "digest": digest.hexdigest(),
        }


def plan_unit(
    docs: Sequence[Doc],
    *,
    max_length: int,
    batch_tokens: int,
    prefix_token_id: int | None = None,
    sharing: bool = True,
    in_batch: bool = True,
) -> UnitPlan:
    """Plan whole docs into batches of about ``batch_tokens`` computed tokens, longest first.

    ``max_length``: longest input of the model in tokens. ``prefix_token_id`` replaces an empty context. Without
    ``sharing``, every distinct input has a separate row, for models that cannot share; without ``in_batch``, only kept
    prefixes are shared (:meth:`Scorer.plan` sets both as a model needs them). A doc larger than the budget becomes a
    separate batch.
    """
    inputs, refused = _read_docs(docs, max_length, prefix_token_id)
    prefixes, placed = choose_prefixes(inputs, batch_tokens) if sharing else ((), _unplaced(inputs))
    in_batch = in_batch and sharing
    groups = _pack(_ordered(inputs, placed, prefixes), placed, batch_tokens, in_batch)
    batches = tuple(build_batch(options, placed, in_batch) for options in groups)
    total = sum(len(tokens) for tokens in {one.input.tokens for one in placed.values()})
    distinct = sum(len(prefix.tokens) for prefix in prefixes) + sum(batch.tokens for batch in batches)
    return UnitPlan(
        kind="shared" if distinct < SHARED_SHARE * total else "plain",
        batches=batches,
        prefixes=prefixes,
        total_tokens=total,
        distinct_tokens=distinct,
        peak_cache_tokens=live_tokens(prefixes, batches),
        batch_tokens=batch_tokens,
        max_length=max_length,
        sharing=sharing,
        in_batch=in_batch,
        refused=refused,
        placed=placed,
    )


def _read_docs(
    docs: Sequence[Doc], max_length: int, prefix_token_id: int | None
) -> tuple[dict[int, list[ModelInput]], dict[int, str]]:
    inputs: dict[int, list[ModelInput]] = {}
    refused: dict[int, str] = {}
    for at, doc in enumerate(docs):
        try:
            inputs[at] = [model_input(request, max_length, prefix_token_id) for request in doc]
        except ValueError as error:
            refused[at] = str(error)
    return inputs, refused


def _unplaced(inputs: dict[int, list[ModelInput]]) -> dict[Option, Placed]:
    return {(doc, at): Placed(one) for doc, options in inputs.items() for at, one in enumerate(options)}


def _ordered(
    inputs: dict[int, list[ModelInput]], placed: dict[Option, Placed], prefixes: Sequence[Segment]
) -> Iterable[list[Option]]:
    """Yield docs such that those with the same kept prefix are together, longest first inside and between groups."""
    longest = {doc: max((len(one.tokens) for one in options), default=0) for doc, options in inputs.items()}
    homes = {doc: placed[doc, 0].prefix if options else -1 for doc, options in inputs.items()}
    reach = dict.fromkeys(range(-1, len(prefixes)), 0)
    for doc, home in homes.items():
        at = home
        while at >= 0:
            reach[at] = max(reach[at], longest[doc])
            at = prefixes[at].parent

    def key(doc: int) -> tuple[list[tuple[int, int]], int, int]:
        chain, at = [], homes[doc]
        while at >= 0:
            chain.append((-reach[at], at))
            at = prefixes[at].parent
        return chain[::-1], -longest[doc], doc

    for doc in sorted(inputs, key=key):
        yield [(doc, at) for at in range(len(inputs[doc]))]


def _pack(
    docs: Iterable[list[Option]], placed: dict[Option, Placed], batch_tokens: int, in_batch: bool
) -> list[list[Option]]:
    """Fill batches in order; without sharing, a row costs as much as the longest row of the batch, its first."""
    batches: list[list[Option]] = []
    used = width = rows = 0
    for options in docs:
        batch = build_batch(options, placed, in_batch)
        width = width or _widest(batch)
        rows += len(batch.segments)
        used += batch.tokens
        cost = used if in_batch else rows * width
        if not batches or (cost > batch_tokens and batches[-1]):
            batches.append([])
            used, rows = batch.tokens, len(batch.segments)
            width = _widest(batch)
        batches[-1] += options
    return [batch for batch in batches if batch]


def _widest(batch: Batch) -> int:
    return max((len(segment.tokens) for segment in batch.segments), default=0)
