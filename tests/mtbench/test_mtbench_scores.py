"""Aggregates against FastChat's own way of counting, and against figures worked out by hand."""

import itertools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from llmjobs.mtbench import agreement, scores
from llmjobs.mtbench.fastchat import Compared, Judged, read_answers, read_judgments, with_references
from llmjobs.mtbench.questions import read_questions

FILES = [
    ("selfeval/model_judgment/gpt-4_single.jsonl", 320, 2, 0),
    ("dreaming-panda/model_judgment/gpt-4_single.jsonl", 160, 0, 0),
    ("dreaming-panda/model_judgment/gpt-4_single-origin.jsonl", 330, 4, 10),
    ("instructlab/model_judgment/gpt-4_single.jsonl", 160, 120, 0),
]


@pytest.fixture(scope="session")
def published(shared_data) -> Path:
    return shared_data / "mt_bench"


@pytest.mark.parametrize(("name", "lines", "unread", "duplicates"), FILES)
def test_the_published_judgments_give_fastchats_means(published, name, lines, unread, duplicates):
    """As show_result.py counts: every line with a score other than -1, duplicates too."""
    questions = published / "fastchat/question.jsonl"
    categories = {q.id: q.category for q in read_questions(str(questions))}
    file = read_judgments(published / name)
    counts = file.counts()
    assert (counts["lines"], counts["unread_lines"], counts["duplicates"]) == (lines, unread, duplicates)
    frame = pd.read_json(published / name, lines=True).merge(pd.read_json(questions, lines=True), on="question_id")
    frame = frame[frame["score"] != -1]
    ours = {row["model"]: row for row in scores.score_all(file.single, categories)}
    assert set(ours) == set(frame["model"])
    for model, part in frame.groupby("model"):
        assert ours[model]["score"] == pytest.approx(part["score"].mean(), abs=0.005)
        for key in ("turn", "category"):
            found = {row[key]: row["score"] for row in ours[model][f"by_{key}"] if row["score"] is not None}
            expected = part.groupby(key)["score"].mean().to_dict()
            assert found == pytest.approx(expected, abs=0.005)
        assert ours[model]["low"] <= ours[model]["score"] <= ours[model]["high"]


def test_of_a_duplicate_the_last_one_that_was_read_stands(published):
    file = read_judgments(published / FILES[2][0])
    distinct = file.distinct()
    assert len(distinct) == 320 and file.counts()["unread"] == 0
    rows = [json.loads(line) for line in (published / FILES[2][0]).read_text().splitlines()]
    last = {(r["model"], str(r["question_id"]), r["turn"]): r["score"] for r in rows if r["score"] != -1}
    assert {(o.model, o.question_id, o.turn): o.rating for o in distinct} == last


def test_published_answers_and_references(published):
    assert read_answers(published / "selfeval/model_answer/llama2-7b-chat-logprobs-variance.jsonl").duplicates == 70
    questions = read_questions(str(published / "fastchat/question.jsonl"))
    guided = with_references(questions, published / "fastchat/reference_answer/gpt-4.jsonl")
    assert [q.id for q in guided if q.reference] == [str(i) for i in range(101, 131)]


def judged(model, ratings, judge="j", turn=1):
    return [Judged(judge, "p", model, str(i), turn, rating) for i, rating in enumerate(ratings)]


def compared(first, second, winner, question="1", orders=None):
    flipped = None if winner is None else bool(orders and orders[0] != orders[1])
    return Compared("j", "p", first, second, question, 1, winner, flipped, orders or (winner, winner))


def test_an_unread_rating_is_counted_and_in_no_mean():
    found = scores.score_model(judged("a", [2, None, 4]), {"0": "math", "1": "math", "2": "stem"})
    assert (found["score"], found["n"], found["unread"]) == (3, 2, 1)
    assert {row["category"]: (row["score"], row["unread"]) for row in found["by_category"]} == {
        "math": (2, 1),
        "stem": (4, 0),
    }
    assert scores.mean_of(judged("a", [None]))["score"] is None


def test_the_difference_is_of_the_same_questions():
    gap = scores.difference(judged("a", [5, 7, None, 9]), judged("b", [4, 5, 6]), 1)
    assert (gap["n"], gap["difference"]) == (2, 1.5)


def test_win_rates_and_bradley_terry():
    games = [compared("a", "b", "first", str(i)) for i in range(6)]
    games += [compared("a", "b", "second", "7"), compared("a", "b", "second", "8"), compared("a", "b", None, "9")]
    rates = {row["model"]: row for row in scores.win_rates(games)}
    assert rates["a"]["win_rate"] == 0.75 and rates["b"]["unread"] == 1
    ratings = {row["model"]: row for row in scores.bradley_terry(games)}
    odds = (6 + scores.PRIOR) / (2 + scores.PRIOR)
    assert ratings["a"]["rating"] - ratings["b"]["rating"] == pytest.approx(400 * np.log10(odds), abs=0.2)
    assert ratings["a"]["low"] <= ratings["a"]["rating"] <= ratings["a"]["high"]
    assert np.isfinite([r["rating"] for r in scores.bradley_terry([compared("a", "b", "first")])]).all()
    assert scores.bradley_terry([compared("a", "b", None)]) == []


def test_ratings_of_three_equal_a_general_fit():
    from scipy.optimize import minimize

    rng = np.random.default_rng(3)
    games = []
    for question in range(60):
        for first, second in (("a", "b"), ("a", "c"), ("b", "c")):
            games.append(compared(first, second, str(rng.choice(["first", "second", "tie"])), str(question)))
    wins = np.zeros((3, 3))
    for one in games:
        i, j = "abc".index(one.first), "abc".index(one.second)
        wins[i, j] += {"first": 1, "tie": 0.5, "second": 0}[one.winner]
        wins[j, i] += {"first": 0, "tie": 0.5, "second": 1}[one.winner]
    wins += scores.PRIOR * (1 - np.eye(3))

    def loss(x):
        return sum(wins[i, j] * np.log1p(np.exp(x[j] - x[i])) for i in range(3) for j in range(3) if i != j)

    best = minimize(loss, np.zeros(3)).x
    expected = 1000 + 400 / np.log(10) * (best - best.mean())
    found = {row["model"]: row["rating"] for row in scores.bradley_terry(games)}
    assert [found[name] for name in "abc"] == pytest.approx(list(expected), abs=0.2)


def test_agreement_of_judges_and_with_votes(tmp_path):
    both = judged("a", [1, 5, 9, 4], "x") + judged("a", [3, 5, 10, 4], "y")
    (row,) = agreement.rating_agreement(both)
    assert (row["n"], row["spearman"], row["mean_difference"], row["within_one"]) == (4, 1.0, -0.75, 0.75)
    x = agreement.preferences_of_ratings(judged("a", [1, 5, 7]) + judged("b", [2, 5, 3]))
    assert list(x.values()) == ["b", "tie", "a"]
    path = tmp_path / "votes.jsonl"
    votes = [("0", "model_b"), ("1", "model_a"), ("2", "model_a"), ("2", "model_b")]
    rows = [{"question_id": q, "model_a": "a", "model_b": "b", "winner": w, "turn": 1} for q, w in votes]
    path.write_text("\n".join(map(json.dumps, rows)))
    (found,) = agreement.votes_agreement({"x": x}, agreement.read_votes(path))
    assert (found["n"], found["all"], found["n_decided"], found["decided"]) == (4, 0.5, 3, pytest.approx(2 / 3))
    (same,) = agreement.preference_agreement({"x": x, "y": x})
    assert same["all"] == same["decided"] == 1


def test_agents_are_compared_on_the_same_questions(published):
    """Published ratings of two agents: difference, interval and sign flips written out."""
    file = read_judgments(published / FILES[0][0])
    (row,) = scores.differences(file.distinct())
    table = pd.DataFrame([(o.model, o.question_id, o.turn, o.rating) for o in file.distinct()], columns=list("mqtr"))
    wide = table.pivot(index=["q", "t"], columns="m", values="r").dropna()
    gaps = wide[row["first"]] - wide[row["second"]]
    assert row["difference"] == pytest.approx(gaps.mean(), abs=1e-6) and row["difference"] > 0
    assert (row["n"], row["questions"]) == (len(gaps), gaps.groupby("q").ngroups)
    sums = gaps.groupby("q").sum().to_numpy()
    flipped = np.random.default_rng(0).choice([-1, 1], size=(20_000, len(sums))) @ sums
    assert row["p"] == pytest.approx(np.mean(np.abs(flipped) >= abs(sums.sum())), abs=0.01)
    centred = (gaps - gaps.mean()).groupby("q").sum()
    c = len(centred)
    half = stats.t.ppf(0.975, c - 1) * np.sqrt(c / (c - 1) * (centred**2).sum()) / len(gaps)
    assert (row["low"], row["high"]) == pytest.approx((gaps.mean() - half, gaps.mean() + half), abs=1e-6)


def test_length_is_tested_by_permuting_within_questions():
    """Two agents, six questions: the sign flips of all questions, enumerated."""
    rng = np.random.default_rng(4)
    ratings, characters = rng.integers(3, 10, (2, 6)), rng.integers(200, 2000, (2, 6))
    lengths = {(m, str(q), 1): int(characters[i, q]) for i, m in enumerate("ab") for q in range(6)}
    both = judged("a", ratings[0].tolist()) + judged("b", ratings[1].tolist())
    found = agreement.length_bias(both, [], lengths)
    logs = np.log(characters)
    x = stats.rankdata((ratings - ratings.mean(axis=0)).T.ravel()).reshape(6, 2)
    y = stats.rankdata((logs - logs.mean(axis=0)).T.ravel()).reshape(6, 2)
    x, y = x - x.mean(), y - y.mean()
    drawn = [
        abs(sum((x[q] * (y[q][::-1] if turned else y[q])).sum() for q, turned in enumerate(flips)))
        for flips in itertools.product((False, True), repeat=6)
    ]
    exact = np.mean(np.array(drawn) >= abs((x * y).sum()) - 1e-9)
    assert found["p"] == pytest.approx(exact, abs=0.02)
    assert found["p"] >= 2 / 2**6 - 0.005, "two agents on six questions cannot give less"


def test_position_length_and_self_preference():
    games = [compared("a", "b", "tie", str(i), ("first", "second")) for i in range(6)]
    games += [compared("a", "b", "first", "7")]
    found = agreement.position_bias(games)
    assert (found["n"], found["flipped"], found["to_first_place"], found["to_second_place"]) == (7, 6, 6, 0)
    assert found["p"] == pytest.approx(2 * 0.5**6, abs=1e-6)
    lengths = {(m, str(q), 1): n * (q + 1) for m, n in (("a", 10), ("b", 20), ("c", 40)) for q in range(5)}
    longer = judged("a", [3] * 5) + judged("b", [5] * 5) + judged("c", [7] * 5)
    assert agreement.length_bias(longer, games, lengths)["spearman"] > 0.9
    assert agreement.length_bias(longer, games, lengths)["longer_won"] == 0
    ratings = judged("own", [9, 9], "own") + judged("else", [5, 5], "own")
    assert agreement.self_preference("own", ["own"], ratings) == {
        "gap": 4,
        "preference": None,
        "reason": "no other judge rated the same agents",
    }
    ratings += judged("own", [6, 6], "z") + judged("else", [5, 5], "z")
    assert agreement.self_preference("own", ["own"], ratings)["preference"] == 3
    assert agreement.self_preference("z", [], ratings) is None
