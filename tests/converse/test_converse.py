"""The converse job: what is recorded, restart at any moment, errors that are no answers, the figures."""

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from llmjobs.chat.backend import Ending
from llmjobs.cli import main
from llmjobs.converse.conversations import make_scripts
from llmjobs.errors import AnswerError, CallError, UnavailableError
from llmjobs.work.journal import read_records

KEYS = "model conversation turn kind distance strategy history context question answer expected correct status"
ROOT = Path(__file__).parents[2]


class Reader:
    """Answers from the messages that it gets: the last value stated for the question, otherwise "nothing"."""

    limit = 4000
    name = "reader"
    effective = {"reader": True}

    def __init__(self, fails=lambda text: None):
        self.fails = fails
        self.says = lambda text: None

    def clock(self):
        return None

    def count(self, messages):
        return sum(4 + len(message.content.split()) for message in messages)

    def answer(self, messages, sampling):
        question = messages[-1].content
        if error := self.fails(question):
            raise error
        topic = max(question.rstrip("?").split(), key=len)
        told = [m.content for m in messages[:-1] if m.role == "user" and topic in m.content and "?" not in m.content]
        said = self.says(question)
        yield said if said is not None else told[-1] if told else "nothing"
        return Ending("stop", self.count(messages), 5)

    def start(self, seed):
        self.seed = seed

    reseed = start

    def state(self):
        return {}

    def restore(self, state):
        pass

    def close(self):
        pass


@pytest.fixture
def study(tmp_path, llama):
    def write(**changes) -> Path:
        converse = {"conversations": 6, "distances": [1, 4], "contexts": [80], "max_new_tokens": 8, "threads": 1}
        content = {
            "models": changes.pop("models", [{"id": str(llama), "name": "tiny", "dtype": "float32"}]),
            "converse": converse | changes,
        }
        path = tmp_path / "study.yaml"
        path.write_text(yaml.safe_dump(content))
        return path

    return write


@pytest.fixture
def reader(monkeypatch):
    backend = Reader()
    monkeypatch.setattr("llmjobs.chat.open_backend.open_backend", lambda spec, **_: backend)
    return backend


def run(*arguments, expect=0) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["converse", *map(str, arguments)])
    assert ended.value.code == expect


def records_of(results: Path) -> dict[str, bytes]:
    return {str(p.relative_to(results)): p.read_bytes() for p in sorted(results.rglob("records.jsonl"))}


def part_of(results: Path) -> dict:
    return json.loads((results / "study/summary.json").read_text())["converse"]


def test_records_and_figures(study, tmp_path, reader, capsys):
    run(study(), "--results", tmp_path / "r", "--show")
    shown = capsys.readouterr().out
    folder = tmp_path / "r/study/converse/tiny"
    assert sorted(p.name for p in folder.iterdir()) == [
        "recall.full", "recall.hybrid.80", "recall.none", "recall.retrieve.80", "recall.summary.80", "recall.window.80",
    ]  # fmt: skip
    scripts = make_scripts("recall", 6, 0, [1, 4])
    for unit in folder.iterdir():
        records = read_records(unit / "records.jsonl")
        assert [r["question"] for r in records] == [turn.text for s in scripts for turn in s.turns]
        for record in records:
            assert list(record)[: len(KEYS.split()) + 1] == ["model", "set", *KEYS.split()[1:]]
            assert record["status"] == "ok"
            assert (record["correct"] is None) == (record["expected"] is None)
            assert record["tokens_sent"] > 0 <= record["tokens_dropped"]
        times = [turn for line in read_records(unit / "timings.jsonl") for turn in line.get("turns", [])]
        assert len(times) == len(records)
        assert all(0 <= turn["ttft_s"] <= turn["real_s"] for turn in times)
    group = part_of(tmp_path / "r")["models"][0]
    by_name = {(m["strategy"], m["context"]): m for m in group["memories"]}
    assert by_name["full", None]["acc"] > by_name["none", None]["acc"]
    pair = group["history"]
    right = {
        name: {
            (r["conversation"], r["turn"]): r["correct"] for r in read_records(folder / f"recall.{name}/records.jsonl")
        }
        for name in ("full", "none")
    }
    sums = [
        sum(
            right["full"][key] - right["none"][key]
            for key in right["full"]
            if key[0] == s and right["full"][key] is not None
        )
        for s in dict.fromkeys(conversation for conversation, _ in right["full"])
    ]
    flipped = [
        abs(sum(x * y for x, y in zip(sums, signs, strict=True)))
        for signs in itertools.product((1, -1), repeat=len(sums))
    ]
    assert pair["conversations"] == len(sums) == 6
    assert pair["p"] == pytest.approx(sum(x >= abs(sum(sums)) for x in flipped) / len(flipped))
    assert pair["n"] == sum(turn.expected is not None for s in scripts for turn in s.turns)
    distances = by_name["full", None]["by_distance"]
    assert sum(row["n"] for row in distances) == pair["n"]
    growth = by_name["full", None]["by_turn"]
    assert growth[-1]["tokens_sent"] > growth[0]["tokens_sent"]
    assert "conversations" in shown and "[right]" in shown and "[wrong; expected: " in shown


def test_a_window_that_is_too_short_loses_just_what_fell_out(study, tmp_path, reader):
    run(study(conversations=12, distances=[1, 16], strategies=["full", "window"]), "--results", tmp_path / "r")
    group = part_of(tmp_path / "r")["models"][0]
    window = next(m for m in group["memories"] if m["strategy"] == "window")
    full = next(m for m in group["memories"] if m["strategy"] == "full")
    at = {m["strategy"]: {row["distance"]: row for row in m["by_distance"]} for m in (window, full)}
    assert at["window"][1]["acc"] == at["full"][1]["acc"] > 0
    assert at["window"][16]["acc"] < at["full"][16]["acc"]


@pytest.mark.slow
def test_the_same_bytes_after_kills(study, tmp_path):
    manifest = study(strategies=["full", "window", "summary"], conversations=4)
    run(manifest, "--results", tmp_path / "unbroken")
    rng = random.Random(4)
    command = [sys.executable, ROOT / "jobs/converse.py", manifest, "--results", tmp_path / "killed"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "lib")}
    seen = 0
    for _ in range(2):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=environment)
        more = rng.randint(1, 12)
        while process.poll() is None and lines(tmp_path / "killed") < seen + more:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        seen = lines(tmp_path / "killed")
    run(manifest, "--results", tmp_path / "killed")
    assert records_of(tmp_path / "killed") == records_of(tmp_path / "unbroken")


def lines(results: Path) -> int:
    return sum(p.read_bytes().count(b"\n") for p in results.rglob("records.jsonl"))


def test_an_answer_without_text_is_wrong_marked_and_not_the_end(study, tmp_path, reader, capsys):
    empty = make_scripts("recall", 6, 0, [1, 4])[2].turns
    asked = next(turn for turn in empty if turn.expected is not None)
    reader.says = lambda text: "" if text == asked.text else None
    run(study(strategies=["full"]), "--results", tmp_path / "r")
    records = read_records(tmp_path / "r/study/converse/tiny/recall.full/records.jsonl")
    (one,) = [r for r in records if r["answer"] == ""]
    assert (one["status"], one["correct"]) == ("ok", False)
    assert {r["status"] for r in records} == {"ok"}
    assert part_of(tmp_path / "r")["models"][0]["memories"][0]["empty"] == 1
    assert "1 answer without any text, counted as wrong" in capsys.readouterr().out


def test_a_turn_without_an_answer_is_an_error_and_ends_its_conversation(study, tmp_path, reader):
    scripts = make_scripts("recall", 6, 0, [1, 4])
    bad = scripts[2].turns[3].text
    reader.fails = lambda text: AnswerError("the answer is empty") if text == bad else None
    run(study(strategies=["full", "none"]), "--results", tmp_path / "r", expect=3)
    records = read_records(tmp_path / "r/study/converse/tiny/recall.full/records.jsonl")
    of_script = [r for r in records if r["conversation"] == scripts[2].id]
    first = next(i for i, r in enumerate(of_script) if r["status"] == "error")
    assert of_script[first]["error"] == "the answer is empty"
    for record in of_script[first + 1 :]:
        assert (record["status"], record["correct"], record["answer"]) == ("error", None, None)
        assert record["error"] == f"not asked: turn {first + 1} has no answer"
    memory = part_of(tmp_path / "r")["models"][0]["memories"][0]
    assert memory["errors"] == sum(r["status"] == "error" for r in records) > 0
    assert memory["n"] == sum(r["correct"] is not None for r in records)


@pytest.mark.parametrize("kind", [UnavailableError, CallError])
def test_a_failed_call_fails_its_unit_and_the_next_run_goes_on(study, tmp_path, reader, capsys, kind):
    asked = []

    def away(text):
        asked.append(text)
        return kind("reader: cannot be reached") if len(asked) > 20 else None

    reader.fails = away
    manifest = study(strategies=["full"])
    run(manifest, "--results", tmp_path / "r", expect=3)
    assert "cannot be reached" in capsys.readouterr().out
    records = tmp_path / "r/study/converse/tiny/recall.full/records.jsonl"
    before = records.read_bytes()
    assert b'"error"' not in before and before
    reader.fails = lambda text: None
    run(manifest, "--results", tmp_path / "r")
    run(manifest, "--results", tmp_path / "whole")
    assert records.read_bytes() == (tmp_path / "whole/study/converse/tiny/recall.full/records.jsonl").read_bytes()


ENDPOINT = [{"id": "served", "name": "tiny", "endpoint": "http://localhost:1/v1"}]


def test_no_answer_of_an_endpoint_is_asked_for_twice(study, tmp_path, reader, capsys):
    """A conversation that broke off begins anew; what was answered before comes from the journal of calls."""
    asked, broken = [], []

    def away(text):
        asked.append(text)
        return UnavailableError("reader: cannot be reached") if broken and len(asked) == broken[0] else None

    reader.fails = away
    manifest = study(models=ENDPOINT, strategies=["full", "summary"])
    run(manifest, "--results", tmp_path / "whole")
    whole = asked.copy()
    for at in (2, len(whole) // 2 + 3):
        asked.clear()
        broken[:] = [at]
        results = tmp_path / f"r{at}"
        run(manifest, "--results", results, expect=3)
        broken.clear()
        run(manifest, "--results", results)
        assert sorted(asked) == sorted([*whole, asked[at - 1]]), "only the call that failed is made again"
        assert records_of(results) == records_of(tmp_path / "whole")
    assert part_of(tmp_path / "whole")["spending"]["calls"] == len(whole)
    capsys.readouterr()
    run(manifest, "--results", tmp_path / "whole")
    assert f"endpoints: {len(whole)} calls" in capsys.readouterr().out


def test_one_conversation_is_summarized(study, tmp_path, reader, capsys):
    """One conversation allows no statement beyond it: its standard error is null, which JSON can represent."""
    run(study(conversations=1), "--results", tmp_path / "r")
    pair = part_of(tmp_path / "r")["models"][0]["history"]
    assert (pair["conversations"], pair["stderr"], pair["low"], pair["high"]) == (1, None, -1, 1)
    assert "in 1 conversation:" in capsys.readouterr().out


def test_turns_in_error_are_named_and_end_with_3(study, tmp_path, reader, capsys):
    reader.fails = lambda text: AnswerError("reader: nothing to say") if text.endswith("?") else None
    manifest = study(strategies=["full", "window"])
    for _ in range(2):
        run(manifest, "--results", tmp_path / "r", expect=3)
        said = capsys.readouterr().out
        assert "tiny, full:" in said and "tiny, window 80:" in said
        assert "turns ended in an error: reader: nothing to say" in said


def test_dry_run_limit_and_changed_settings(study, tmp_path, reader, capsys):
    manifest = study()
    run(manifest, "--results", tmp_path / "r", "--dry-run")
    assert "tiny  recall  window.80" in capsys.readouterr().out
    assert not (tmp_path / "r").exists()
    run(manifest, "--results", tmp_path / "r", "--limit", 2)
    run(manifest, "--results", tmp_path / "r", expect=1)
    assert "conversations was 2 and is now 6" in capsys.readouterr().err


def test_a_manifest_without_the_section(tmp_path, llama, capsys):
    path = tmp_path / "none.yaml"
    path.write_text(f"models: ['{llama}']\n")
    run(path, expect=2)
    assert "no 'converse:' section" in capsys.readouterr().err
    path.write_text(f"models: ['{llama}']\nconverse: {{sets: [recal]}}\n")
    run(path, expect=2)
    assert "did you mean 'recall'?" in capsys.readouterr().err


def test_the_report_tells_it(study, tmp_path, reader):
    from llmjobs.make_report import make_report

    run(study(conversations=24, distances=[1, 4, 16]), "--results", tmp_path / "r")
    made = make_report([tmp_path / "r/study"], tmp_path / "out/report.pdf")
    told = " ".join(finding.sentence for finding in made.findings)
    assert "with the history and" in told and "sign-flip test over" in told
    assert "whole history" in told and "right at a distance of 1" in told
    notes = (tmp_path / "out/notes.md").read_text()
    assert "There are no conversations" not in notes
    assert {p.name for p in (tmp_path / "out/figures").glob("converse*.png")} == {
        "converse-distance-1.png",
        "converse-growth-1.png",
    }


def test_transcripts_stand_side_by_side(study, tmp_path, reader):
    from llmjobs.converse import chapter as converse_chapter
    from llmjobs.report.assemble import assemble
    from llmjobs.report.blocks import Table
    from llmjobs.report.measure import Measures
    from llmjobs.report.read.formats import read

    run(study(conversations=24, distances=[16]), "--results", tmp_path / "r")
    measures = Measures(assemble(list(read(tmp_path / "r/study", None))))
    tables = [block for block in converse_chapter.build(measures).blocks if isinstance(block, Table)]
    transcript = tables[-1]
    assert [column.title for column in transcript.columns][1:4] == ["User", "full", "history off"]
    last = transcript.rows[-1]
    assert last[2].endswith("✓") and last[3].endswith("✗")
