"""A report on real runs lists prompts that differ from the manifest, and distinguishes runs with other dates."""

import csv
import json

import pytest
import yaml
from random_llama import make_llama

from llmjobs.changed_prompts import ChangedPrompts, count_changed
from llmjobs.cli import main

DATED = (
    "{{ bos_token }}{% for m in messages %}<{{ m['role'] }}>\n{{ strftime_now('%d %b %Y') }}\n{{ m['content'] }}\n"
    "{% endfor %}{% if add_generation_prompt %}<assistant>\n{% endif %}"
)


def run(*arguments) -> None:
    with pytest.raises(SystemExit) as ended:
        main([str(a) for a in arguments])
    assert ended.value.code == 0


def write_study(path, models, **changes):
    rows = path.parent / "own.csv"
    with rows.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["q", "a", "b", "right"])
        writer.writerows([f"which of the two is number {n}?", "one", "two", "AB"[n % 2]] for n in range(20))
    benchmark = {"name": "own", "file": str(rows), "question": "q", "choices": ["a", "b"], "answer": "right"}
    section = {"benchmarks": [benchmark | {"num_fewshot": 2}], "batch_tokens": 512, "threads": 1}
    path.write_text(yaml.safe_dump({"models": models, "eval": section, **changes}))
    return path


def test_models_that_were_not_asked_the_same_are_named_on_the_first_page(tmp_path):
    models = [
        {"id": str(make_llama(tmp_path / name, length=length)), "name": name, "dtype": "float32"}
        for name, length in (("long", 1024), ("short", 150))
    ]
    run("eval", write_study(tmp_path / "study.yaml", models), "--results", tmp_path / "r")
    run("report", tmp_path / "r/study")
    told = json.loads((tmp_path / "r/study/summary.json").read_text())["eval"]["models"][1]["benchmarks"][0]
    fewer = told["changed_prompts"]["fewer_shots"]
    notes = (tmp_path / "r/study/notes.md").read_text()
    assert f"the models did not get the same prompts (short: 2 shots, only 1 fitted on {fewer} questions)" in notes


def test_runs_with_other_dates_are_told_apart(tmp_path):
    model = make_llama(tmp_path / "model")
    (model / "chat_template.jinja").write_text(DATED)
    entry = {"id": str(model), "name": "tiny", "dtype": "float32", "chat_template": True}
    for name, date in (("one", "2026-11-27"), ("two", "2026-11-28")):
        run("eval", write_study(tmp_path / f"{name}.yaml", [entry], date=date), "--results", tmp_path / "r")
    run("report", tmp_path / "r/one", tmp_path / "r/two", "--output", tmp_path / "both.pdf")
    notes = (tmp_path / "notes.md").read_text()
    assert "tiny (2026-11-27)" in notes and "tiny (2026-11-28)" in notes


def test_counts_add_up():
    first = count_changed([{"num_fewshot": 5}, {"num_fewshot": 3}, {"num_fewshot": 0, "truncated": True}], 5)
    second = count_changed([{"num_fewshot": 4, "joined": True}], 5)
    assert str(first + second) == (
        "5 shots, only 0 to 4 fitted on 3 questions; the beginning of the prompt was cut off on 1 question; the"
        " tokenizer joins prompt and answer on 1 question, scored from the last common token"
    )
    assert ChangedPrompts.from_record((first + second).to_record()) == first + second
    assert not str(count_changed([{"num_fewshot": 5}], 5))
    assert count_changed([{"num_fewshot": 5}], 5).to_record() == {}
