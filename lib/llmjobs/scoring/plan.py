"""From a unit's docs to its batches.

Pure, and the same for the same docs and settings, so that a resumed run computes what an unbroken one would.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from llmjobs.scoring.batch import Batch, Option, Placed, build_batch
from llmjobs.scoring.kept import choose_prefixes, last_uses, live_tokens
from llmjobs.scoring.requests import ModelInput, Request, model_input
from llmjobs.scoring.tree import Segment

Doc = Sequence[Request]
SHARED_SHARE = 0.98
"""A plan is called shared where it computes less than this share of its plain tokens."""


@dataclass(frozen=True)
class UnitPlan:
    """What runs, in which order, and what it costs.

    ``total_tokens``: distinct inputs run one by one; ``distinct_tokens``: what this plan computes;
    ``peak_cache_tokens``: the most tokens whose keys and values are kept between batches at one time;
    ``refused``: docs that cannot be scored, with the reason; they are in no batch.
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

    def prefix_chain(self, prefix: int) -> tuple[int, ...]:
        """Return a kept prefix and all that it hangs on, top first."""
        chain: list[int] = []
        while prefix >= 0:
            chain.append(prefix)
            prefix = self.prefixes[prefix].parent
        return tuple(reversed(chain))

    @cached_property
    def last_uses(self) -> tuple[int, ...]:
        """Return, for each kept prefix, the last batch that needs it."""
        return last_uses(self.prefixes, self.batches)

    def describe(self) -> str:
        """Say in one line which plan it is and what it saves."""
        share = self.distinct_tokens / self.total_tokens if self.total_tokens else 1.0
        what = "shared prefixes" if self.kind == "shared" else "plain, sharing gains nothing"
        if self.kind == "plain" and not self.sharing:
            what = "plain, sharing is off"
        return (
            f"{what}: {len(self.batches)} batches of up to {self.batch_tokens} tokens, "
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

    ``max_length``: the most tokens that the model reads. ``prefix_token_id`` stands in for an empty
    context. ``sharing`` off gives every distinct input a row of its own, for models that cannot share;
    ``in_batch`` off shares kept prefixes only (:meth:`Scorer.plan` sets both as a model needs
    them). A doc larger than the budget is a batch of its own.
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
    """Yield docs so that those on one kept prefix are together, longest first inside and between groups."""
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
    """Fill batches in order; without sharing a row costs as much as the batch's longest, its first."""
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
