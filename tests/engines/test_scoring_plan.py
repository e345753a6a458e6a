import json
import random
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmjobs.benchmarks.scoring_requests import Request
from llmjobs.engines.batches import UnitPlan, plan_unit

RNG = random.Random(7)
LETTERS = [(3,), (4,), (5,), (6,)]


def tokens(count: int) -> tuple[int, ...]:
    return tuple(RNG.randrange(1000) for _ in range(count))


def few_shot(questions: int, shots: int = 300) -> list[list[Request]]:
    """MMLU's shape: one long prefix, letters as options."""
    prefix = tokens(shots)
    contexts = [prefix + tokens(20 + at % 30) for at in range(questions)]
    return [[Request(context, letter) for letter in LETTERS] for context in contexts]


def endings(questions: int) -> list[list[Request]]:
    """HellaSwag's shape: one context, four endings."""
    contexts = [tokens(40) for _ in range(questions)]
    return [[Request(context, tokens(20)) for _ in range(4)] for context in contexts]


def plan(docs: list[list[Request]], **settings: object) -> UnitPlan:
    return plan_unit(docs, **{"max_length": 2048, "batch_tokens": 256, **settings})  # type: ignore[arg-type]


def test_a_few_shot_prefix_is_computed_once() -> None:
    found = plan(few_shot(40))
    distinct = sum(20 + at % 30 for at in range(40))
    assert found.kind == "shared"
    assert sum(len(prefix.tokens) for prefix in found.prefixes) == 300
    assert found.distinct_tokens == 300 + distinct
    assert found.total_tokens == 40 * 300 + distinct
    assert found.peak_cache_tokens == 300


def test_a_prefix_longer_than_a_batch_is_cut_into_pieces() -> None:
    found = plan(few_shot(40), batch_tokens=128)
    assert [len(prefix.tokens) for prefix in found.prefixes] == [128, 128, 44]
    assert [prefix.parent for prefix in found.prefixes] == [-1, 0, 1]
    assert found.prefix_chain(2) == (0, 1, 2)


def test_several_endings_share_their_context() -> None:
    found = plan(endings(10))
    assert not found.prefixes
    assert found.distinct_tokens == 10 * (40 + 4 * 19)
    assert "49%" in found.describe()


def test_different_contexts_with_one_suffix_share_what_stands_before_them() -> None:
    start, suffix = tokens(30), tokens(10)
    docs = [[Request(start + tokens(2), suffix), Request(start + tokens(3), suffix)]]
    assert plan(docs).distinct_tokens == 30 + (2 + 9) + (3 + 9)


def test_a_prompt_that_is_a_prefix_of_another_is_read_on_the_way() -> None:
    long = tokens(60)
    found = plan([[Request(long[:40], (1,))], [Request(long, (2,))]])
    assert found.distinct_tokens == 60
    assert sorted(reading.rows for reading in found.batches[0].readings) == [(39,), (59,)]


def test_nothing_to_share_is_a_plain_plan() -> None:
    found = plan([[Request(context, letter) for letter in LETTERS] for context in (tokens(30) for _ in range(9))])
    assert (found.kind, found.prefixes) == ("plain", ())
    assert found.distinct_tokens == found.total_tokens == 9 * 30
    assert found.describe().startswith("plain, sharing gains nothing: 2 batches")


def test_sharing_off_pads_in_the_count() -> None:
    found = plan(few_shot(4), sharing=False, batch_tokens=700)
    assert [len(batch.docs) for batch in found.batches] == [2, 2]
    assert found.describe().startswith("plain, sharing is off")


def test_two_prefixes_in_one_unit_are_kept_one_after_the_other() -> None:
    docs = [doc for pair in zip(few_shot(30), few_shot(30), strict=True) for doc in pair]
    found = plan(docs, batch_tokens=512)
    assert len(found.prefixes) == 2
    assert found.peak_cache_tokens <= 600
    homes = [found.placed[doc, 0].prefix for batch in found.batches for doc in batch.docs]
    assert homes == sorted(homes)


def test_docs_run_longest_first_and_stay_whole() -> None:
    docs = few_shot(30)
    found = plan(docs)
    order = [doc for batch in found.batches for doc in batch.docs]
    assert sorted(order) == list(range(30))
    lengths = [len(docs[doc][0].context) for doc in order]
    assert lengths == sorted(lengths, reverse=True)
    assert all(batch.tokens <= 256 for batch in found.batches)


def test_docs_that_cannot_be_scored_are_named_not_planned() -> None:
    found = plan([[Request(tokens(5), (1,))], [Request(tokens(5), (1,)), Request(tokens(5), ())], []])
    assert found.refused == {1: "the continuation is empty"}
    assert [batch.docs for batch in found.batches] == [(0,)]


def test_the_same_docs_and_settings_give_the_same_digest() -> None:
    docs = few_shot(12)
    assert plan(docs).to_builtin() == plan(docs).to_builtin()
    assert plan(docs).to_builtin()["digest"] != plan(docs, batch_tokens=300).to_builtin()["digest"]
    assert json.loads(json.dumps(plan(docs).to_builtin())) == plan(docs).to_builtin()


docs_of_small_tokens = st.lists(
    st.lists(
        st.builds(
            Request,
            st.lists(st.integers(0, 1), min_size=1, max_size=12).map(tuple),
            st.lists(st.integers(0, 1), min_size=1, max_size=4).map(tuple),
        ),
        min_size=1,
        max_size=4,
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=60, deadline=None)
@given(docs_of_small_tokens, st.integers(4, 40), st.booleans())
def test_every_scored_position_is_read_after_exactly_its_input(
    docs: list[list[Request]], batch_tokens: int, sharing: bool
) -> None:
    found = plan_unit(docs, max_length=10, batch_tokens=batch_tokens, sharing=sharing)
    seen = []
    for batch in found.batches:
        rows = [path for at in range(len(batch.segments)) for path in paths_to_rows(found, batch.segments, at)]
        for option, reading in zip(batch.options, batch.readings, strict=True):
            read = found.placed[option].input
            ends = range(read.first_scored + 1, len(read.tokens) + 1)
            assert [rows[row] for row in reading.rows] == [read.tokens[:end] for end in ends]
            seen.append(option)
    assert sorted(seen) == [(doc, at) for doc, options in enumerate(docs) for at in range(len(options))]


def paths_to_rows(found: UnitPlan, segments: tuple, at: int) -> list[tuple[int, ...]]:  # type: ignore[type-arg]
    """Spell every row of a segment: all tokens from the top to it."""
    segment, before = segments[at], ()
    top = segment
    while top.parent >= 0:
        top = segments[top.parent]
        before = top.tokens + before
    for piece in reversed(found.prefix_chain(top.prefix)):
        before = found.prefixes[piece].tokens + before
    return [before + segment.tokens[: end + 1] for end in range(len(segment.tokens))]


@pytest.mark.parametrize("module", ["benchmarks.scoring_requests", "engines.batches"])
def test_planning_imports_no_torch(module: str) -> None:
    code = f"import sys, llmjobs.{module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path)}).returncode == 0
