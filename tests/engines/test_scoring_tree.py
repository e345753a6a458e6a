from hypothesis import given
from hypothesis import strategies as st

from llmjobs.engines.batches import Forest, Shared, grow_forest, never_pays, pays_in_batch

sequences = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=9).map(tuple), min_size=1, max_size=12)


def written_out(forest: Forest, path: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(token for at in path for token in forest.segments[at].tokens)


@given(sequences)
def test_every_path_spells_its_sequence(rows: list[tuple[int, ...]]) -> None:
    forest = grow_forest(rows, lambda shared: True)
    assert {row: written_out(forest, forest.paths[row]) for row in rows} == {row: row for row in rows}


@given(sequences)
def test_sharing_everything_computes_each_distinct_beginning_once(rows: list[tuple[int, ...]]) -> None:
    forest = grow_forest(rows, lambda shared: True)
    beginnings = {row[:length] for row in rows for length in range(1, len(row) + 1)}
    assert sum(len(segment.tokens) for segment in forest.segments) == len(beginnings)


@given(sequences)
def test_segments_are_depth_first_and_start_where_their_parent_ends(rows: list[tuple[int, ...]]) -> None:
    for worth in (pays_in_batch, lambda shared: True):
        segments = grow_forest(rows, worth).segments
        for at, segment in enumerate(segments):
            assert segment.tokens
            assert segment.parent < at
            assert segment.start == (segments[segment.parent].end if segment.parent >= 0 else 0)
            between = segments[segment.parent + 1 : at] if segment.parent >= 0 else ()
            assert all(one.parent >= segment.parent for one in between)


@given(sequences)
def test_without_sharing_each_distinct_sequence_is_one_segment(rows: list[tuple[int, ...]]) -> None:
    forest = grow_forest(rows, never_pays)
    assert sorted(segment.tokens for segment in forest.segments) == sorted(set(rows))


def test_worth_is_asked_with_what_it_saves() -> None:
    asked: list[Shared] = []
    grow_forest([(1, 2, 3), (1, 2, 4, 5), (1, 2, 4, 6)], lambda shared: asked.append(shared) or True)
    assert asked == [Shared(2, 2, 4), Shared(1, 2, 2)]
    assert asked[0].saved_tokens == 2
