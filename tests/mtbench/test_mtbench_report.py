"""The report's section: agents side by side, what was read from files, alarms; and published judgments end to end."""

import json

import yaml
from mtbench_runs import part_of, run
from mtbench_stand_in import stand_in

from llmjobs.make_report import make_report
from llmjobs.mtbench.chapter import SECTION, _against_others, _findings
from llmjobs.report.assemble import assemble
from llmjobs.report.blocks import Figure, Prose, Table
from llmjobs.report.measure import Measures
from llmjobs.report.read.run_folder import read_run_folder


def section_of(folder):
    measures = Measures(assemble([read_run_folder(folder)]))
    assert SECTION.wanted(measures)
    return SECTION.build(measures)


def table(content, caption) -> Table:
    return next(b for b in content.blocks if isinstance(b, Table) and b.caption == caption)


def test_three_agents_side_by_side(study, tmp_path):
    with stand_in() as server:
        judges = [{"endpoint": server.url, "model": name} for name in ("judge", "mute")]
        models = ["llmjobs/demo-narrow", {"id": "agent", "endpoint": server.url}]
        options = {"models": models, "modes": ["single", "pairwise"], "max_new_tokens": 4}
        run(study(server.url, judges=judges, **options), "--results", tmp_path / "r")
    content = section_of(tmp_path / "r/study")
    agents = {row[0]: row[1] for row in table(content, "Agents").rows}
    assert agents == {"demo-narrow": "local", "agent": "endpoint", "theirs": "imported"}
    assert {row[0] for row in table(content, "Mean rating over all turns").rows} == set(agents)
    assert {row[0] for row in table(content, "Each against the others").rows} == set(agents)
    alarms = [b.text for b in content.blocks if isinstance(b, Prose) and b.kind == "alarm"]
    assert len(alarms) == 2 and all("mute" in text for text in alarms)
    figures = [b.name for b in content.blocks if isinstance(b, Figure)]
    assert figures == ["mtbench-radar-1-1", "mtbench-tokens-1-1"]
    assert len(table(content, "Best and worst by judge").rows) == 6
    assert any("does not work as a judge" in finding.sentence for finding in content.findings)
    made = make_report([tmp_path / "r/study"], tmp_path / "report.pdf")
    assert made.pdf.stat().st_size > 20_000


def test_published_judgments_and_answers_end_to_end(tmp_path, shared_data):
    folder = shared_data / "mt_bench"
    section = {
        "questions": str(folder / "fastchat/question.jsonl"),
        "agents": "none",
        "judgments": [
            str(folder / "dreaming-panda/model_judgment/gpt-4_single-origin.jsonl"),
            str(folder / "dreaming-panda/model_judgment/gpt-4_single.jsonl"),
            str(folder / "instructlab/model_judgment/gpt-4_single.jsonl"),
        ],
        "answers": [str(folder / "dreaming-panda/model_answer/Meta-Llama-3-8B-Instruct-Normal.jsonl")],
    }
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump({"models": ["llmjobs/demo-narrow"], "mtbench": section}))
    run(path, "--results", tmp_path / "r")
    part = part_of(tmp_path / "r")
    scores = {row["model"]: row for row in part["scores"]}
    assert round(scores["Meta-Llama-3-8B-Instruct-Normal"]["score"], 2) == 7.77
    as_fastchat = {row["model"]: row["score"] for file in part["files"] for row in file["fastchat_scores"]}
    assert round(as_fastchat["Meta-Llama-3-8B-Instruct-Normal"], 2) == 7.84
    assert (scores["granite-7b-lab"]["n"], scores["granite-7b-lab"]["unread"]) == (40, 120)
    content = section_of(tmp_path / "r/study")
    rows = table(content, "Judgments read from files").rows
    assert [row[1:4] for row in rows] == [["330", "4", "10"], ["160", "0", "0"], ["160", "120", "0"]]
    assert (part["between_files"], scores["Meta-Llama-3-8B-Instruct-Griffin"]["n"]) == (160, 160)


def test_agents_that_are_level_are_not_ranked(tmp_path, capsys):
    """With one question and equal answers, nobody is the highest, nobody wins, and there is no interval."""
    question = {"question_id": 1, "category": "math", "turns": ["1+1?", "2+2?"], "reference": ["2", "4"]}
    (tmp_path / "q.jsonl").write_text(json.dumps(question))
    for name in "ab":
        answer = {"question_id": 1, "model_id": name, "choices": [{"index": 0, "turns": ["2", "4"]}]}
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(answer))
    section = {"questions": "q.jsonl", "agents": "none", "answers": ["a.jsonl", "b.jsonl"]}
    section |= {"modes": ["single", "pairwise"], "judges": ["llmjobs/rule-judge"]}
    manifest = {"models": ["llmjobs/demo-tiny"], "mtbench": section}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(manifest))
    run(tmp_path / "study.yaml", "--results", tmp_path / "r")
    assert "–––" not in capsys.readouterr().out
    measures = Measures(assemble([read_run_folder(tmp_path / "r" / "study")]))
    told = " ".join(finding.sentence for finding in SECTION.build(measures).findings)
    assert "a is rated 10.00 of 10 on average by rule-judge (no interval from one question), and so is b." in told
    assert "no agent wins more comparisons by rule-judge than another: 50.0% each" in told
    assert "highest" not in told


def test_where_test_and_interval_disagree_both_are_given():
    """Six questions that all point one way: the interval leaves zero out, the corrected test cannot be sure."""
    row = {"first": "a", "second": "b", "difference": 8.5, "low": 6.8, "high": 9.0, "p_holm": 0.19}
    assert "b (8.50; 95%: 6.80 to 9.00, but p = 0.19 after correction)" in _against_others("a", [row])
    assert "but" not in _against_others("a", [row | {"low": -0.6}])
    assert "ahead of b (8.50; 95%: 6.80 to 9.00)" in _against_others("a", [row | {"p_holm": 0.01}])


def test_a_judge_whose_calls_all_failed_is_not_said_to_be_unreadable():
    score = {"judge": "gone", "model": "a", "score": None, "unread": 2, "n": 0}
    counts = {"judge": "gone", "mode": "single", "n": 2, "ok": 0, "not_judged": 0}
    part = {"scores": [score], "pairwise": [], "bias": []}
    (failed,) = _findings({**part, "judges": [{**counts, "error": 2, "unread": 0}]})
    assert failed.sentence.endswith("gone gave no rating: every call to it failed. Run the job again to repeat them.")
    (unread,) = _findings({**part, "judges": [{**counts, "error": 0, "unread": 2}]})
    assert unread.sentence.endswith("no rating by gone could be parsed: it does not work as a judge.")
