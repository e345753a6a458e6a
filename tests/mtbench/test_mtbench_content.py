"""Questions, prompts, ratings, the journal of calls, limits."""

import json
import threading
from collections import Counter

import pytest

from llmjobs.calls.spending import MinuteLimit, Rate, Spending, SpendingLimitError
from llmjobs.errors import DataError
from llmjobs.mtbench.agreement import read_votes
from llmjobs.mtbench.fastchat import combine, read_answers, read_judgments
from llmjobs.mtbench.judging import is_weakly_rated, read_prompts, read_rating, read_verdict
from llmjobs.mtbench.questions import CATEGORIES, data_hash, read_questions, select, temperature_of
from llmjobs.work.call_journal import CallJournal, call_key, spent_calls


def test_the_own_bench():
    questions = read_questions("own")
    assert len(questions) >= 40 and {len(q.turns) for q in questions} == {2}
    assert Counter(q.category for q in questions) == dict.fromkeys(CATEGORIES, 5)
    guided = {q.category for q in questions if q.reference}
    assert guided == {"reasoning", "math", "coding", "extraction"}
    assert all(len(q.reference) == 2 for q in questions if q.category in guided)
    assert data_hash(questions) != data_hash(questions[1:])
    assert len(select(questions, ["math", "stem"], 2)) == 4
    assert [temperature_of(c, {"math": 0.5}) for c in ("writing", "stem", "math", "coding")] == [0.7, 0.1, 0.5, 0.0]


def test_the_own_words_are_not_the_published_ones(shared_data):
    folder = shared_data / "mt_bench/fastchat"
    theirs = {turn for q in read_questions(str(folder / "question.jsonl")) for turn in q.turns}
    assert not theirs & {turn for q in read_questions("own") for turn in q.turns}
    known = read_prompts(str(folder / "judge_prompts.jsonl")).prompts
    own = read_prompts("own").prompts
    assert own.keys() == known.keys()
    assert not {p.template for p in known.values()} & {p.template for p in own.values()}


@pytest.mark.parametrize("number", range(3))
def test_a_published_prompt_is_filled_as_fastchat_fills_it(shared_data, number):
    """The judged file contains the prompts that FastChat sent."""
    folder = shared_data / "mt_bench"
    lines = (folder / "selfeval/model_judgment/gpt-4_single.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    row = [r for r in rows if r["judge"][1] == "single-v1"][number]
    prompt = read_prompts(str(folder / "fastchat/judge_prompts.jsonl")).prompts["single-v1"]
    question = next(
        q for q in read_questions(str(folder / "fastchat/question.jsonl")) if q.id == str(row["question_id"])
    )
    before, _, rest = row["user_prompt"].partition("[The Start of Assistant's Answer]\n")
    answer = rest.removesuffix("\n[The End of Assistant's Answer]")
    assert prompt.fill({"question": question.turns[0], "answer": answer}) == row["user_prompt"]
    assert before


def test_braces_of_an_answer_stay():
    prompt = read_prompts("own").prompts["single-v1"]
    assert "{answer} {{x}} {0}" in prompt.fill({"question": "q", "answer": "{answer} {{x}} {0}"})


@pytest.mark.parametrize(
    ("text", "rating"),
    [
        ("Rating: [[5]]", 5),
        ("[[7.5]] and [[2]]", 7.5),
        ("[1] says [[8]]", 8),
        ("Rating: [6]", 6),
        ("[[11]]", None),
        ("[[0]]", None),
        ("Rating: 5", None),
        ("[[rating]]", None),
        ("", None),
    ],
)
def test_ratings(text, rating):
    assert read_rating(text) == rating


@pytest.mark.parametrize(
    ("text", "verdict"), [("so [[A]]", "A"), ("[[B]]", "B"), ("[[C]]", "tie"), ("[[A]] or [[B]]", None), ("A", None)]
)
def test_verdicts(text, verdict):
    assert read_verdict(text) == verdict


@pytest.mark.parametrize(
    ("orders", "winner", "flipped"),
    [
        (("first", "first"), "first", False),
        (("first", "second"), "tie", True),
        (("tie", "first"), "tie", True),
        (("tie", "tie"), "tie", False),
        (("first", None), None, None),
    ],
)
def test_a_verdict_that_turns_with_the_order_is_a_tie(orders, winner, flipped):
    assert combine(orders) == {"winner": winner, "flipped": flipped}


def test_imported_pairs_are_read_as_what_they_are(tmp_path):
    path = tmp_path / "pairs.jsonl"
    head = {"question_id": 81, "model_1": "a", "model_2": "b", "judge": ["gpt-4", "pair-v2"], "turn": 1}
    winners = [("model_1", "model_1"), ("model_1", "model_2"), ("tie", "tie"), ("error", "model_1")]
    path.write_text("\n".join(json.dumps(head | {"g1_winner": x, "g2_winner": y}) for x, y in winners))
    file = read_judgments(path)
    assert [one.winner for one in file.pairs] == ["first", "tie", "tie", None]
    assert (file.counts()["flips"], file.counts()["pairs_unread"]) == (1, 1)


@pytest.mark.parametrize(
    ("line", "read", "says"),
    [
        ('{"question_id": 1}', read_questions, "turns: must be a list"),
        ('{"question_id": 1, "turns": ["a", "b", "c"]}', read_questions, "3 turns"),
        ('{"name": "x", "type": "single"}', read_prompts, "system_prompt: must be text"),
        (
            '{"name": "x", "type": "single", "system_prompt": "", "prompt_template": "{answer.__class__} {oops}"}',
            read_prompts,
            "{oops} is not one of",
        ),
        ('{"question_id": 1}', read_answers, "not an answer"),
        ('{"question_id": 1, "turn": 1, "model": "m", "score": "x"}', read_judgments, "score: must be a number"),
        ('{"question_id": 1, "turn": 1, "model": "m", "score": 1e400}', read_judgments, "score: must be a number"),
        (
            f'{{"question_id": 1, "turn": 1, "model": "m", "score": 1{"0" * 400}}}',
            read_judgments,
            "score: must be a nu",
        ),
        ('{"question_id": 1, "turn": Infinity, "model": "m", "score": 1}', read_judgments, "turn: must be 1 or 2"),
        ('{"question_id": 1, "turn": "=1+1", "model": "m", "score": 1}', read_judgments, "turn: must be 1 or 2"),
        ('{"question_id": 1, "turn": NaN, "model": "m", "score": 1}', read_judgments, "turn: must be 1 or 2"),
        (
            '{"question_id": 1, "model_a": "a", "model_b": "b", "winner": "tie", "turn": "=1+1"}',
            read_votes,
            "turn: must",
        ),
        (
            '{"question_id": 1, "model_a": "a", "model_b": "b", "winner": "tie", "turn": 1e400}',
            read_votes,
            "turn: must",
        ),
        ("{nonsense", read_judgments, "is not JSON"),
    ],
)
def test_files_that_are_not_what_they_should_be(tmp_path, line, read, says):
    path = tmp_path / "file.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(DataError, match=says) as caught:
        read(path if read in (read_answers, read_judgments, read_votes) else str(path))
    assert str(path) in str(caught.value)


def test_the_journal_keeps_what_is_finished_and_drops_a_torn_line(tmp_path):
    journal = CallJournal(tmp_path)
    keys = [call_key({"n": n}) for n in range(40)]
    threads = [
        threading.Thread(target=journal.add, args=(key, {"name": "e", "prompt_tokens": 2, "new_tokens": 1}))
        for key in keys
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    journal.close()
    with (tmp_path / "calls.jsonl").open("ab") as stream:
        stream.write(b'{"key": "torn", "te')
    again = CallJournal(tmp_path)
    assert set(again.known) == set(keys) and again.find("torn") is None
    again.add("next", {"name": "e", "prompt_tokens": 1, "new_tokens": 1})
    again.close()
    assert len(spent_calls(tmp_path)) == 41


def test_a_failed_call_is_booked_and_asked_again(tmp_path):
    journal = CallJournal(tmp_path)
    journal.add("old", {"name": "e", "text": "", "error": "e: the stream ended", "prompt_tokens": 7, "new_tokens": 0})
    journal.add("cut", {"name": "e", "failed": "e: the stream ended", "booked": [50, 20]})
    journal.add("500", {"name": "e", "failed": "e: the server answered 500"})
    journal.add("good", {"name": "e", "text": "Yes.", "prompt_tokens": 3, "new_tokens": 1})
    journal.close()
    again = CallJournal(tmp_path)
    again.close()
    assert [again.find(key) is not None for key in ("old", "cut", "500", "good")] == [False, False, False, True]
    spending = Spending({})
    spending.book_past(spent_calls(tmp_path))
    assert (spending.calls, spending.failed, spending.tokens) == (4, 3, 7 + 70 + 4)


def test_spending_holds_the_most_that_calls_in_flight_can_take():
    spending = Spending({"e": Rate(10, 100)}, tokens=1000, cost=0.02)
    first = spending.hold("e", 100, 100)
    with pytest.raises(SpendingLimitError, match=r"limit of 0\.02 USD"):
        spending.hold("e", 100, 100)
    spending.book_call(first, {"name": "e", "prompt_tokens": 100, "new_tokens": 1})
    assert (spending.tokens, spending.calls) == (101, 1) and spending.cost == pytest.approx(0.0011)
    spending.book_call(spending.hold("e", 100, 100), None)
    assert spending.calls == 1
    with pytest.raises(SpendingLimitError, match="1,000 tokens"):
        spending.hold("free", 900, 0)


def test_requests_wait_for_their_minute():
    now, slept = [0.0], []

    def sleep(seconds):
        slept.append(seconds)
        now[0] += seconds

    limit = MinuteLimit(2, 100, clock=lambda: now[0], sleep=sleep)
    limit.wait(10)
    now[0] = 5
    limit.wait(20)
    limit.wait(30)
    assert sum(slept) == pytest.approx(55) and now[0] == pytest.approx(60)
    limit.wait(90)
    assert now[0] == pytest.approx(120)
    limit.wait(500)
    assert now[0] == pytest.approx(180)


@pytest.mark.parametrize(
    ("text", "weak"),
    [
        ("Rating: [[8]]", False),
        ("The list a[1] is wrong. Rating: 8", True),
        ("[8]", True),
        ("a[99]", False),
        ("8", False),
    ],
)
def test_ratings_in_single_brackets_are_told_apart(text, weak):
    assert is_weakly_rated(text) == weak
