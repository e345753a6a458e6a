"""Judges' replies and foreign files are read, or counted as unreadable, or give one line, without delay."""

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmjobs.errors import LlmjobsError
from llmjobs.mtbench.fastchat import combine, read_answers, read_judgments
from llmjobs.mtbench.judging import HIGHEST, LOWEST, read_rating, read_verdict

PIECES = st.sampled_from(
    ["[[", "]]", "[", "]", "10", "1", "0", ".", "5.5", "A", "B", "C", "[[A]]", "[[7]]", "²", "٣", "e9", "\n", "x"]
)


@settings(max_examples=300)
@given(st.lists(PIECES, max_size=30).map("".join) | st.text(max_size=80))
def test_any_judgment(text: str) -> None:
    rating, verdict = read_rating(text), read_verdict(text)
    assert rating is None or LOWEST <= rating <= HIGHEST
    assert verdict in ("A", "B", "tie", None)


@pytest.mark.parametrize(
    "text", ["[[" * 500_000, "[[1" * 300_000, "[[" + "9" * 1_000_000, "[" + "1." * 500_000, "[[A" * 300_000]
)
def test_a_long_judgment_is_read_in_no_time(text: str) -> None:
    began = time.process_time()
    assert read_rating(text) is read_verdict(text) is None
    assert time.process_time() - began < 5


JUNK = st.sampled_from([
    None, True, -1, 1, 2, 0.5, 10**400, float("nan"), "", "tie", "model_1", "$ERROR$", "\ud800", "x" * 300, "a\0b", [],
    {}, ["a"], [["a"]], [{"turns": ["a", None]}], [{"turns": 3}], ["gpt-4", "single-v1"],
])  # fmt: skip
KEYS = st.sampled_from([
    "question_id", "model_id", "choices", "model", "judge", "judgment", "score", "turn", "model_1", "model_2",
    "g1_winner", "g2_winner",
])  # fmt: skip


@settings(max_examples=200)
@given(st.lists(st.dictionaries(KEYS, JUNK, max_size=10), max_size=3))
def test_files_in_fastchats_form(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]) -> None:
    path = tmp_path_factory.mktemp("fastchat") / "x.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for read in (read_answers, read_judgments):
        try:
            read(path)
        except LlmjobsError as error:
            assert str(error).isprintable()


@given(st.lists(st.sampled_from(["first", "second", "tie", None]), min_size=2, max_size=2))
def test_two_orders_never_give_another_winner(winners: list[str | None]) -> None:
    assert combine(winners)["winner"] in ("first", "second", "tie", None)
