"""Prefixes of a unit that are computed once, alone, and kept for several batches."""

from collections.abc import Sequence

from llmjobs.scoring.batch import Batch, Option, Placed
from llmjobs.scoring.requests import ModelInput
from llmjobs.scoring.tree import Forest, Segment, Shared, Tokens, grow_forest

MIN_KEPT_TOKENS = 32
MAJOR_TOKENS = 128
MAJOR_SHARE = 0.25
MIN_GAIN_SHARE = 0.02
MIN_GAIN_TOKENS = 64


def choose_prefixes(
    inputs: dict[int, list[ModelInput]], batch_tokens: int
) -> tuple[tuple[Segment, ...], dict[Option, Placed]]:
    """Choose the prefixes worth a forward of their own and say which one each request starts with.

    Inside a batch everything is shared anyway: a kept prefix gains its length for each further batch that it
    serves. A prefix longer than ``batch_tokens`` becomes a chain of pieces.
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
    """Set a doc's own mark before the first scored position: nothing after it can be shared between docs."""
    return (*one.tokens[: one.first_scored], -1 - doc, *one.tokens[one.first_scored :])


def _between_docs(forest: Forest, path: Tokens) -> Tokens:
    """Return the path's segments before the one that carries the doc's mark."""
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
