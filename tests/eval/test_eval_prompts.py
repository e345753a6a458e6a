"""What a run asks: one date, thinking, shots that fit, joined tokens; compared on resume, counted in the summary."""

import csv
import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from random_llama import make_llama

from llmjobs.cli import main
from llmjobs.eval import job as eval_job
from llmjobs.work.journal import read_records

SHARED = Path(os.environ.get("LLMJOBS_SHARED", Path(__file__).parents[3] / "shared"))
DATED = (
    "{% set d = strftime_now('%d %b %Y') %}{{ bos_token }}{% for m in messages %}<{{ m['role'] }}>\n"
    "Today Date: {{ d }}\n{{ m['content'] }}\n{% endfor %}{% if add_generation_prompt %}<assistant>\n{% endif %}"
)
THINKING = (
    "{{ bos_token }}{% for m in messages %}<{{ m['role'] }}>\n{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>\n{% if enable_thinking is defined and not enable_thinking %}"
    "<think>\n\n</think>\n\n{% else %}<think>\n{% endif %}{% endif %}"
)


def run(*arguments, expect=0) -> None:
    with pytest.raises(SystemExit) as ended:
        main([str(a) for a in arguments])
    assert ended.value.code == expect


@pytest.fixture
def folder(tmp_path, llama) -> Path:
    """A copy of the tiny model that a test may give another chat template."""
    return make_llama(tmp_path / "model")


def own_rows(path: Path, count: int = 20, words: int = 3, *, options: bool = True) -> Path:
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["q", "a", "b", "right"])
        for n in range(count):
            writer.writerow(
                [" ".join(f"word{n}" for _ in range(words)), "one", "two", "AB"[n % 2] if options else "one"]
            )
    return path


def write_study(path: Path, where: Path, rows: Path, *, options: bool = True, **changes) -> Path:
    entry = {"id": str(where), "name": "tiny", "dtype": "float32", "chat_template": True} | changes.pop("model", {})
    benchmark = {"name": "own", "file": str(rows), "question": "q", "answer": "right", "num_fewshot": 2}
    benchmark |= {"choices": ["a", "b"]} if options else {}
    content = {"models": [entry], "eval": {"benchmarks": [benchmark | changes.pop("benchmark", {})]}}
    content["eval"] |= {"batch_tokens": 512, "threads": 1}
    path.write_text(yaml.safe_dump(content | changes))
    return path


def unit_of(results: Path) -> dict:
    return json.loads((results / "study/eval/tiny/own.all/unit.json").read_text())["fingerprint"]


def summary_of(results: Path) -> dict:
    return json.loads((results / "study/summary.json").read_text())["eval"]["models"][0]


def test_one_date_for_a_whole_run(folder, tmp_path, monkeypatch, capsys):
    (folder / "chat_template.jinja").write_text(DATED)
    rows, results = own_rows(tmp_path / "own.csv", 40), tmp_path / "r"
    study = write_study(tmp_path / "study.yaml", folder, rows, options=False, date="2026-11-27")
    monkeypatch.setattr(eval_job.GenerationWork, "step", stop_after(eval_job.GenerationWork.step, 1))
    run("eval", study, "--results", results, expect=3)
    assert unit_of(results)["prompt_date"] == "2026-11-27"
    assert json.loads((results / "study/date.json").read_text()) == {"date": "2026-11-27"}
    capsys.readouterr()
    write_study(study, folder, rows, options=False, date="2026-11-28")
    run("eval", study, "--results", results, expect=1)
    assert "study: date was 2026-11-27 and is now 2026-11-28" in capsys.readouterr().err
    (results / "study/date.json").write_text('{"date": "2026-11-29"}')  # as if the clock had been asked again
    write_study(study, folder, rows, options=False)
    run("eval", study, "--results", results, expect=1)
    told = capsys.readouterr().err
    assert "the chat template prints the date" in told and "2026-11-27" in told and "--fresh" in told
    (results / "study/date.json").write_text('{"date": "2026-11-27"}')
    monkeypatch.undo()
    run("eval", study, "--results", results)
    other = write_study(tmp_path / "other.yaml", folder, rows, options=False, date="2026-11-28")
    run("eval", other, "--results", results)
    prompts = json.loads((results / "other/eval/tiny/own.all/unit.json").read_text())["fingerprint"]["prompts"]
    assert prompts != unit_of(results)["prompts"]


def stop_after(step, count):
    """A work's step that fails from step ``count`` on."""

    def stops(self, index):
        if index >= count:
            raise RuntimeError("stopped here")
        return step(self, index)

    return stops


def test_a_changed_template_is_named_on_resume(folder, tmp_path, monkeypatch, capsys):
    (folder / "chat_template.jinja").write_text(DATED.replace("strftime_now('%d %b %Y')", "'today'"))
    rows, results = own_rows(tmp_path / "own.csv", 40), tmp_path / "r"
    study = write_study(tmp_path / "study.yaml", folder, rows, options=False)
    monkeypatch.setattr(eval_job.GenerationWork, "step", stop_after(eval_job.GenerationWork.step, 1))
    run("eval", study, "--results", results, expect=3)
    (folder / "chat_template.jinja").write_text(DATED.replace("strftime_now('%d %b %Y')", "'now'"))
    monkeypatch.undo()
    capsys.readouterr()
    run("eval", study, "--results", results, expect=1)
    assert "the model's chat template has changed" in capsys.readouterr().err


def test_a_unit_goes_on_with_its_own_steps(folder, tmp_path, monkeypatch):
    (folder / "chat_template.jinja").write_text(DATED.replace("strftime_now('%d %b %Y')", "'today'"))
    rows = own_rows(tmp_path / "own.csv", 40)
    study = write_study(tmp_path / "study.yaml", folder, rows, options=False)
    run("eval", study, "--results", tmp_path / "whole")
    monkeypatch.setattr(eval_job.GenerationWork, "step", stop_after(eval_job.GenerationWork.step, 1))
    run("eval", study, "--results", tmp_path / "r", expect=3)
    monkeypatch.undo()
    monkeypatch.setattr(eval_job, "DOCS_A_STEP", 7)
    run("eval", study, "--results", tmp_path / "r")
    file = "study/eval/tiny/own.all/records.jsonl"
    assert (tmp_path / "r" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


def test_thinking_off_is_scored_and_on_is_refused(folder, tmp_path, capsys):
    (folder / "chat_template.jinja").write_text(THINKING)
    study = write_study(tmp_path / "study.yaml", folder, own_rows(tmp_path / "own.csv"), model={"thinking": False})
    run("eval", study, "--results", tmp_path / "r")
    assert unit_of(tmp_path / "r")["thinking"] == "off (enable_thinking=false)"
    assert summary_of(tmp_path / "r")["thinking"] == "off (enable_thinking=false)"
    write_study(study, folder, tmp_path / "own.csv", model={"thinking": "on"})
    run("eval", study, "--results", tmp_path / "on", expect=3)
    assert "tiny: own scores the options right after the prompt" in capsys.readouterr().out


def test_generated_answers_are_read_behind_the_thinking(folder, tmp_path):
    (folder / "chat_template.jinja").write_text(THINKING)
    rows = own_rows(tmp_path / "own.csv", 4, options=False)
    study = write_study(tmp_path / "study.yaml", folder, rows, options=False, model={"thinking": 8})
    run("eval", study, "--results", tmp_path / "r")
    records = read_records(tmp_path / "r/study/eval/tiny/own.all/records.jsonl")
    assert records and all(record["thinking"] is not None for record in records)
    cut = [record for record in records if record.get("thinking_cut")]  # random weights never close it themselves
    assert cut and all(8 <= record["thinking_tokens"] < record["new_tokens"] for record in cut)
    assert all(record["text"] not in record["thinking"] or not record["text"] for record in records)


def test_shots_that_do_not_fit_and_cut_prompts_are_counted(tmp_path, capsys):
    model = make_llama(tmp_path / "short", length=160)
    rows = own_rows(tmp_path / "own.csv", 12, words=4)
    with rows.open("a") as stream:
        stream.write(" ".join(["long"] * 60) + ",one,two,A\n")
    study = write_study(tmp_path / "study.yaml", model, rows, model={"chat_template": False})
    run("eval", study, "--results", tmp_path / "r")
    changed = summary_of(tmp_path / "r")["benchmarks"][0]["changed_prompts"]
    records = read_records(tmp_path / "r/study/eval/tiny/own.all/records.jsonl")
    assert changed["fewer_shots"] == sum(record["num_fewshot"] < 2 for record in records) > 0
    assert changed["truncated"] == sum("truncated" in record for record in records) == 1
    shown = capsys.readouterr().out
    assert "tiny: own: 2 shots, " in shown and "the beginning of the prompt was cut off on 1 question" in shown


def test_a_tokenizer_that_joins_prompt_and_answer(tmp_path, capsys):
    model = SHARED / "cases/models/merged_answer"
    if not model.is_dir():
        pytest.skip(f"no case at {model}: set LLMJOBS_SHARED to the folder that holds cases/")
    rows = tmp_path / "mmlu"
    for split, count in (("dev", 5), ("test", 20)):
        (rows / split).mkdir(parents=True)
        lines = [f'"which {n}?",one {n},two,three,four,{"ABCD"[n % 4]}' for n in range(count)]
        (rows / split / f"astronomy_{split}.csv").write_text("\n".join(lines) + "\n")
    benchmark = {"name": "mmlu", "subjects": ["astronomy"], "num_fewshot": 1, "data": str(rows)}
    entry = {"id": str(model), "name": "tiny", "dtype": "float32"}
    study = tmp_path / "study.yaml"
    study.write_text(yaml.safe_dump({"models": [entry], "eval": {"benchmarks": [benchmark], "threads": 1}}))
    run("eval", study, "--results", tmp_path / "r")
    records = read_records(tmp_path / "r/study/eval/tiny/mmlu.astronomy/records.jsonl")
    assert len(records) == 20 and all(len(record["loglikelihoods"]) == 4 for record in records)
    assert all(len(set(record["loglikelihoods"])) == 4 for record in records)
    assert summary_of(tmp_path / "r")["benchmarks"][0]["changed_prompts"]["joined"] > 0
    assert "the tokenizer joins prompt and answer" in capsys.readouterr().out


def test_questions_in_error_are_no_success(tmp_path, llama, monkeypatch):
    monkeypatch.setattr(eval_job, "math", SimpleNamespace(isfinite=lambda value: False))
    study = write_study(tmp_path / "study.yaml", llama, own_rows(tmp_path / "own.csv"), model={"chat_template": False})
    run("eval", study, "--results", tmp_path / "r", expect=3)
    assert summary_of(tmp_path / "r")["errors"] == 18
