"""The mtbench job against the stand-in server: records, troubles, limits, secrets, FastChat's files."""

import json
import re
from pathlib import Path

import pytest
from mtbench_runs import part_of, records_of, run
from mtbench_stand_in import repeated, stand_in

from llmjobs.mtbench.fastchat import read_answers, read_judgments
from llmjobs.runfolder.journal import read_records


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


def test_troubles_are_handled_and_nothing_that_is_no_answer_is_one(study, tmp_path):
    troubles = {0: "429", 2: "500", 4: "late", 6: "cut", 8: "empty", 9: "malformed", 40: "cut", 41: "empty", 45: "429"}
    with stand_in(troubles=troubles) as server:
        run(study(server.url, answers=[], timeout_s=1), "--results", tmp_path / "r")
    part = part_of(tmp_path / "r")
    agent = part["agents"][0]
    assert agent["errors"] == 3
    answers = read_records(tmp_path / "r/study/mtbench/answers/agent/records.jsonl")
    for record in answers:
        assert (record["status"] == "error") == (len(record["turns"]) < 2)
        assert all(text.startswith("An answer of the stand-in") for text in record["turns"])
    judged = read_records(tmp_path / "r/study/mtbench/judgments/judge/single/agent/records.jsonl")
    assert len(judged) == 16
    missing = {(r["question_id"], turn) for r in answers for turn in (1, 2) if len(r["turns"]) < turn}
    assert {(r["question_id"], r["turn"]) for r in judged if r["status"] == "not_judged"} == missing
    assert all((r["rating"] is None) == (r["status"] != "ok") for r in judged)


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
        assert re.search(r"at most: 48 calls, [\d,]+ tokens, [\d.]+ EUR", capsys.readouterr().out)
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
        ("mtbench.questions=nowhere.jsonl", "no such file of questions"),
        ("mtbench.prompts=nowhere.jsonl", "no such file of judge prompts"),
        ("mtbench.categories=[poetry]", "'poetry' is not one of writing"),
        ("mtbench.baseline=nobody", "'nobody' is not one of agent, theirs"),
        ("mtbench.endpoints={x: {concurrency: 2}}", "'x' is no model with an endpoint"),
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
