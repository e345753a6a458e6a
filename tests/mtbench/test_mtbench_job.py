"""The mtbench job against the stand-in server: records, errors, limits, secrets, FastChat's files."""

import json
import re
from pathlib import Path

import pytest
from mtbench_runs import part_of, records_of, run
from mtbench_stand_in import repeated, stand_in

from llmjobs.calls.retry import RetryPolicy
from llmjobs.mtbench.fastchat import read_answers, read_judgments
from llmjobs.work.journal import read_records


def test_three_kinds_of_judging_side_by_side(study, tmp_path, capsys):
    with stand_in() as server:
        path = study(
            server.url,
            modes=["single", "pairwise"],
            history="both",
            judges=[{"endpoint": server.url, "model": name} for name in ("judge", "first", "mute", "shy")],
        )
        run(path, "--results", tmp_path / "r")
        before = len(server.requests)
        run(path, "--results", tmp_path / "r")
        assert len(server.requests) == before
    shown = capsys.readouterr().out
    part = part_of(tmp_path / "r")
    assert part["status"] == "complete"
    agents = {row["model"]: row for row in part["agents"]}
    assert [row["kind"] for row in agents.values()] == ["endpoint", "endpoint", "imported"]
    assert agents["theirs"]["errors"] == 1 and agents["theirs"]["answered"] == 7
    judges = {(row["judge"], row["mode"]): row for row in part["judges"]}
    assert judges["judge", "single"]["ok"] == 46 and judges["judge", "single"]["not_judged"] == 2
    assert judges["mute", "single"]["unread"] == 46 == judges["mute", "single"]["asked_again"]
    assert judges["shy", "single"]["ok"] == 46 == judges["shy", "single"]["asked_again"]
    scores = {(row["judge"], row["model"]): row for row in part["scores"]}
    assert scores["mute", "agent"]["score"] is None and scores["mute", "agent"]["unread"] == 16
    assert scores["shy", "agent"]["score"] == 6
    assert "46 unread" in shown
    positions = {row["judge"]: row["position"] for row in part["bias"]}
    assert positions["first"]["flipped"] == positions["first"]["n"] == positions["first"]["to_first_place"] > 0
    assert all(row["ties"] == row["n"] for p in part["pairwise"] if p["judge"] == "first" for row in p["win_rates"])
    assert {row["turn"] for row in part["history"]} == {1, 2}
    assert part["spending"]["calls"] == before


def test_what_was_asked(study, tmp_path):
    with stand_in() as server:
        run(study(server.url, history="both"), "--results", tmp_path / "r")
        bodies = [body for _, body in server.requests]
    asked = [body for body in bodies if body["model"] == "agent"]
    assert [len(body["messages"]) for body in asked[:16]] == [1, 3] * 8
    assert [len(body["messages"]) for body in asked[16:]] == [1] * 16
    temperatures = {round(body["temperature"], 3) for body in asked}
    assert temperatures == {0.0, 0.1, 0.7}
    judged = [body for body in bodies if body["model"] == "judge"]
    assert {body["temperature"] for body in judged} == {0.0}
    guided = [body for body in judged if "right" in body["messages"][1]["content"].split("rating")[0].lower()]
    assert len(guided) > 0


def test_troubles_that_pass_leave_no_trace_in_the_records(study, tmp_path):
    troubles = {0: "429", 2: "500", 4: "late", 6: "cut", 8: "empty", 9: "malformed", 40: "cut", 41: "empty", 45: "429"}
    path = "r/study/mtbench/judgments/judge/single/agent/calls.jsonl"
    with stand_in(troubles=troubles) as server:
        run(study(server.url, answers=[], timeout_s=1), "--results", tmp_path / "r")
        run(study(server.url, answers=[]), "--results", tmp_path / "good")
    assert records_of(tmp_path / "r") == records_of(tmp_path / "good")
    calls = read_records(tmp_path / path.replace("judgments/judge/single", "answers"))
    reasons = [call["failed"] for call in calls if "failed" in call]
    assert len(reasons) == 6 and "the server answered 500 (not now)" in reasons[1]


def test_an_answer_without_text_is_an_answer_marked_and_paid_once(study, tmp_path, capsys):
    """Of the agent it is judged, of the judge it is a reply that cannot be read; neither is asked again."""
    with stand_in(troubles={0: "mute"}) as server:
        path = study(server.url, answers=[], categories=["math"])
        run(path, "--results", tmp_path / "r")
        out, sent = capsys.readouterr().out, len(server.requests)
        server.troubles = dict.fromkeys(range(sent), "mute")
        run(path, "--results", tmp_path / "r")
        assert len(server.requests) == sent
    answers, judgments = (read_records(p) for p in sorted((tmp_path / "r").rglob("records.jsonl")))
    assert answers[0]["turns"][0] == "" and answers[0]["turns"][1] and answers[0]["status"] == "ok"
    assert judgments[0]["status"] != "not_judged"
    assert part_of(tmp_path / "r")["agents"][0]["empty"] == 1
    assert "agent: 1 answer without any text, judged as answers" in out
    capsys.readouterr()
    with stand_in(troubles={2: "mute", 3: "mute"}) as server:
        run(study(server.url, answers=[], categories=["math"]), "--results", tmp_path / "j")
    judgment = read_records(next((tmp_path / "j").rglob("judgments/**/records.jsonl")))[0]
    assert (judgment["status"], judgment["judgment"], judgment["asked"]) == ("unread", "", 2)
    assert "1 unread, 1 asked again, 1 reply without any text" in capsys.readouterr().out


def test_an_answer_without_text_that_nobody_counted_is_booked_at_its_most(study, tmp_path):
    """The server may charge for thinking that it does not send."""
    with stand_in(troubles={0: "mute"}) as server:
        server.counts = None
        run(study(server.url, answers=[], categories=["math"], max_new_tokens=77), "--results", tmp_path / "r")
    calls = [c for c in read_records(next((tmp_path / "r").rglob("answers/agent/calls.jsonl"))) if "booked" in c]
    assert [c["booked"][1] for c in calls if not c["text"]] == [77]
    assert all(c["booked"][1] == len(c["text"].encode()) for c in calls if c["text"])


def test_empty_turns_of_a_file_are_answers_and_missing_ones_errors(tmp_path):
    rows = [["", "b"], [None, "b"], ["$ERROR$", "b"], ["a", "b"]]
    lines = [{"question_id": i, "choices": [{"turns": turns}]} for i, turns in enumerate(rows)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert [one.error is None for one in read_answers(tmp_path / "a.jsonl").answers] == [True, False, False, True]


def failing_at(monkeypatch, attempts: int) -> None:
    """Every endpoint is tried so often, no more."""
    monkeypatch.setattr(RetryPolicy, "tries_again", lambda _, attempt, __: attempt + 1 < attempts)


def test_a_failed_judgment_is_no_result(study, tmp_path, capsys, monkeypatch):
    failing_at(monkeypatch, 1)
    with stand_in() as server:
        run(study(server.url), "--results", tmp_path / "good")
    with stand_in(troubles={20: "400", 23: "page", 30: "cut"}) as server:
        path = study(server.url)
        run(path, "--results", tmp_path / "r", expect=3)
        out = capsys.readouterr().out
        unit = "mtbench/judgments/judge/single/agent"
        assert f"failed: {unit}: 3 of 16 judgments failed, first question" in out
        assert "the server answered 400 (not now)" in out and "run the same command to ask for them again" in out
        error = json.loads((tmp_path / "r/study" / unit / "error.json").read_text())
        assert "3 of 16 judgments failed" in error["error"]
        part = part_of(tmp_path / "r")
        assert part["status"] == "partial" and part["judges"][0]["error"] == 3 and part["judges"][0]["n"] == 32
        before = len(server.requests)
        run(path, "--dry-run", "--results", tmp_path / "r")
        assert f"{unit}  16 calls" in (out := capsys.readouterr().out) and "3 failed, to be sent again" in out
        run(path, "--results", tmp_path / "r")
        assert len(server.requests) == before + 3
        assert not (tmp_path / "r/study" / unit / "error.json").exists()
    assert part_of(tmp_path / "r")["status"] == "complete"
    assert records_of(tmp_path / "r") == records_of(tmp_path / "good")


def test_a_failed_answer_is_no_result_and_its_judgment_waits(study, tmp_path, capsys, monkeypatch):
    failing_at(monkeypatch, 1)
    with stand_in() as server:
        run(study(server.url, modes=["single", "pairwise"]), "--results", tmp_path / "good")
    with stand_in(troubles={3: "cut"}) as server:
        path = study(server.url, modes=["single", "pairwise"])
        run(path, "--results", tmp_path / "r", expect=3)
        out = capsys.readouterr().out
        assert "1 of 8 answers failed, first question 1006: turn 2: agent at http://" in out
        assert "mtbench/judgments/judge/single/agent: 1 of 16 judgments are missing because an answer failed" in out
        before = len(server.requests)
        run(path, "--results", tmp_path / "r")
        assert len(server.requests) == before + 4
    assert records_of(tmp_path / "r") == records_of(tmp_path / "good")


def test_a_server_that_gives_no_answers_is_not_asked_for_all_of_them(study, tmp_path, capsys, monkeypatch):
    failing_at(monkeypatch, 1)
    with stand_in(troubles=dict.fromkeys(range(16, 1000), "page")) as server:
        run(study(server.url, answers=[]), "--results", tmp_path / "r", expect=3)
        assert len(server.requests) == 16 + 3
    out = capsys.readouterr().out
    assert "3 questions in a row had no answer; the last error: judge at http://" in out
    assert "the server sent a web page" in out


def test_an_answer_that_is_only_thinking_is_an_error_and_not_asked_for_again(study, tmp_path, capsys):
    with stand_in() as server:
        path = study(server.url, answers=[], judges=[{"endpoint": server.url, "model": "thinker"}], limit=1)
        run("--set", "mtbench.categories=[math]", path, "--results", tmp_path / "r", expect=3)
        before = len(server.requests)
        run("--set", "mtbench.categories=[math]", path, "--results", tmp_path / "r", expect=3)
        assert len(server.requests) == before
    assert "2 failed, 2 asked again; first error: thinker: the model ended its turn while" in capsys.readouterr().out
    records = read_records(tmp_path / "r/study/mtbench/judgments/thinker/single/agent/records.jsonl")
    assert {(record["status"], record.get("final"), record["asked"]) for record in records} == {("error", True, 2)}


def test_what_a_server_refuses_is_in_the_summary(study, tmp_path, capsys):
    with stand_in() as server:
        server.refuses = "temperature"
        run(study(server.url, answers=[]), "--results", tmp_path / "r")
        assert "temperature" not in server.requests[-1][1] and len(server.requests) == 2 + 32
    assert part_of(tmp_path / "r")["parameters"] == {
        name: {"temperature": "left out"} for name in ("agent", "judge judge")
    }
    out, err = capsys.readouterr()
    assert "judge judge: the server does not accept every parameter: temperature left out" in out
    assert "the server does not accept 'temperature'" in err


def test_a_cut_answer_is_booked(study, tmp_path, monkeypatch):
    price = {"prompt": 0, "completion": 1_000_000}
    judge = {"model": "judge", "price": price, "max_new_tokens": 20}
    with stand_in(troubles={16: "cut", 18: "500"}) as server:
        judge |= {"endpoint": server.url}
        path = study(
            server.url, answers=[], judges=[judge], spending={"cost": 10_000}, endpoints={"agent": {"price": price}}
        )
        run(path, "--results", tmp_path / "r")
    spending = part_of(tmp_path / "r")["spending"]
    assert (spending["calls"], spending["failed"]) == (34, 2)
    assert spending["cost"] == 32 * 10 + 20


@pytest.mark.parametrize("is_counted", [True, False])
def test_no_tokenizer_passes_the_limit(study, tmp_path, monkeypatch, is_counted):
    """The limit holds whether a server counts one token per byte or nothing."""
    with stand_in() as server:
        server.counts = "bytes" if is_counted else None
        path = study(server.url, answers=[], max_new_tokens=20, spending={"tokens": 9000})
        run("--set", "mtbench.judges[0].max_new_tokens=20", path, "--results", tmp_path / "r", expect=3)
        tokens = sum(
            sum(len(m["content"].encode()) for m in body["messages"]) + server.said_bytes[place]
            for place, (_, body) in enumerate(server.requests)
        )
    assert 5000 < tokens <= 9000
    assert "limit of 9,000 tokens" in part_of(tmp_path / "r")["units_failed"][0]["error"]


def test_a_server_that_is_gone_fails_the_unit_and_another_time_goes_on(study, tmp_path):
    with stand_in(troubles={20: "401"}) as server:
        path = study(server.url)
        run(path, "--results", tmp_path / "r", expect=3)
        assert part_of(tmp_path / "r")["status"] == "partial"
        run(path, "--results", tmp_path / "r")
        assert repeated(server.requests) == 1
    assert part_of(tmp_path / "r")["status"] == "complete"


def test_the_spending_limit_is_checked_before_each_call(study, tmp_path, capsys):
    price = {"prompt": 1000, "completion": 10_000}
    with stand_in() as server:
        judge = {"endpoint": server.url, "model": "judge", "price": price, "max_new_tokens": 20}
        changes = {"judges": [judge], "endpoints": {"agent": {"price": price}}, "max_new_tokens": 20, "currency": "EUR"}
        path = study(server.url, **changes, spending={"cost": 3})
        run(path, "--dry-run", "--results", tmp_path / "r")
        assert re.search(r"together: 48 calls, about [\d,]+ tokens, [\d.]+ EUR", capsys.readouterr().out)
        assert not server.requests
        run(path, "--results", tmp_path / "r", expect=3)
        part = part_of(tmp_path / "r")
        assert part["spending"]["cost"] <= 3 and part["spending"]["calls"] == len(server.requests) < 48
        assert "limit of 3 EUR" in part["units_failed"][0]["error"]
        run(study(server.url, **changes, spending={"cost": 100}), "--results", tmp_path / "r")
        part = part_of(tmp_path / "r")
        assert part["status"] == "complete" and repeated(server.requests) == 0
        assert part["spending"]["cost"] == pytest.approx(len(server.requests) * 0.15)


def test_concurrency_gives_the_same_records_and_stays_within_its_number(study, tmp_path):
    with stand_in(delay_s=0.01) as server:
        run(study(server.url), "--results", tmp_path / "one")
        judge = {"endpoint": server.url, "model": "judge", "concurrency": 5}
        path = study(server.url, judges=[judge], endpoints={"agent": {"concurrency": 3}})
        server.most_open = 0
        run(path, "--results", tmp_path / "many")
        assert 1 < server.most_open <= 5
    assert records_of(tmp_path / "one") == records_of(tmp_path / "many")


def test_no_key_is_written_or_said(study, tmp_path, monkeypatch, capfd):
    key = "planted-key-0f91c7"
    monkeypatch.setenv("JUDGE_KEY", key)
    with stand_in(troubles={20: "401", 22: "cut"}) as server:
        judge = {"endpoint": server.url, "model": "judge", "api_key_env": "JUDGE_KEY"}
        path = study(server.url, judges=[judge])
        run("--set", "mtbench.seed=1", path, "--results", tmp_path / "r", expect=3)
        run("--set", "mtbench.seed=1", path, "--results", tmp_path / "r")
        keys = {head["authorization"] for head, body in server.requests if body["model"] == "judge"}
        assert keys == {f"Bearer {key}"}
        others = {head["authorization"] for head, body in server.requests if body["model"] == "agent"}
        assert f"Bearer {key}" not in others
    out, err = capfd.readouterr()
    assert key not in out + err
    assert not [p for p in (tmp_path / "r").rglob("*") if p.is_file() and key.encode() in p.read_bytes()]
    arguments = Path("/proc/self/cmdline")
    assert not arguments.exists() or key.encode() not in arguments.read_bytes()
    monkeypatch.delenv("JUDGE_KEY")
    run("--set", "mtbench.agents=none", path, "--results", tmp_path / "s", expect=3)
    assert "JUDGE_KEY is not set" in part_of(tmp_path / "s")["units_failed"][-1]["error"]


def test_fastchat_files_travel_both_ways(study, tmp_path):
    with stand_in() as server:
        judges = [{"endpoint": server.url, "model": name} for name in ("judge", "mute")]
        run(study(server.url, modes=["single", "pairwise"], judges=judges), "--results", tmp_path / "r")
        folder = tmp_path / "r/study/mtbench/fastchat"
        ours = read_answers(folder / "model_answer/agent.jsonl")
        assert len(ours.answers) == 8 and not any(a.error for a in ours.answers)
        theirs = read_answers(folder / "model_answer/theirs.jsonl")
        assert sum(a.error is not None for a in theirs.answers) == 1
        assert read_judgments(folder / "model_judgment/mute_single.jsonl").counts()["unread"] == 30
        line = json.loads((folder / "model_judgment/judge_pair.jsonl").read_text().splitlines()[0])
        assert {"g1_winner", "g2_winner", "model_1", "model_2", "judge", "turn"} <= line.keys()
        files = [str(folder / f"model_judgment/judge_{kind}.jsonl") for kind in ("single", "pair")]
        names = [
            {"file": str(folder / "model_answer/agent.jsonl")},
            {"file": str(folder / "model_answer/theirs.jsonl")},
        ]
        path = study(server.url, agents="none", judges=[], judgments=files, answers=names)
        before = len(server.requests)
        run(path, "--results", tmp_path / "again")
        assert len(server.requests) == before
    first, second = part_of(tmp_path / "r"), part_of(tmp_path / "again")
    assert [s for s in first["scores"] if s["judge"] == "judge"] == second["scores"]
    pairwise = next(p for p in first["pairwise"] if p["judge"] == "judge")
    assert second["pairwise"] == [pairwise]


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("mtbench.questions=nowhere.jsonl", "nowhere.jsonl: file not found; name a file of questions"),
        ("mtbench.prompts=nowhere.jsonl", "nowhere.jsonl: file not found; name a file of judge prompts"),
        ("mtbench.categories=[poetry]", "'poetry' is not one of writing"),
        ("mtbench.baseline=nobody", "'nobody' is not one of agent, theirs"),
        ("mtbench.endpoints={x: {concurrency: 2}}", "'x' is not a model with an endpoint"),
        ("mtbench.judges[0].concurency=3", "did you mean 'concurrency'"),
        ("mtbench.spending={cost: 1}", "needs a price"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(study, tmp_path, capsys, setting, says):
    path = study("http://127.0.0.1:9/v1")
    with pytest.raises(SystemExit) as ended:
        from llmjobs.cli import main

        main(["mtbench", str(path), "--set", setting, "--results", str(tmp_path / "r")])
    assert ended.value.code in (1, 2)
    err = capsys.readouterr().err.strip()
    assert says in err and "Traceback" not in err


def test_changed_answers_are_refused(study, tmp_path, capsys):
    with stand_in() as server:
        path = study(server.url)
        run(path, "--results", tmp_path / "r")
        run("--set", "mtbench.max_new_tokens=7", path, "--results", tmp_path / "r", expect=1)
    assert "max_new_tokens was 1024 and is now 7" in capsys.readouterr().err


def test_a_demo_model_judges_badly_and_the_count_says_so(study, tmp_path, capsys):
    judges = [{"id": "llmjobs/demo-narrow", "max_new_tokens": 6}]
    path = study("", models=["llmjobs/demo-narrow"], judges=judges, categories=["math"], max_new_tokens=6, answers=[])
    run(path, "--results", tmp_path / "r")
    row = part_of(tmp_path / "r")["judges"][0]
    assert row["n"] == 2 and row["unread"] + row["error"] + row["ok"] == 2 and row["unread"] >= 1
    assert "unread" in capsys.readouterr().out
