"""If a setting of a run has changed, each job refuses to resume and names it; after undoing the change, it resumes."""

import shutil
from pathlib import Path

import pytest
import yaml
from crash_jobs import MODEL, SECTIONS, SmallJob, demo_model, differences, state_of
from faults import Fault

from llmjobs.demo import DEMO_MODELS

MINE = {"question": "q", "choices": ["a", "b"], "answer": "right", "name": "mine"}


def csv(path: Path, answer: str = "A") -> None:
    path.write_text("q,a,b,right\n" + "".join(f"Which is {n}?,{n},{n + 1},{answer}\n" for n in range(6)))


def change_section(name: str, value):
    def change(content: dict, section: str, folder: Path) -> None:
        content[section][name] = value

    return change


def change_data(content: dict, section: str, folder: Path) -> None:
    csv(folder / "mine.csv", "B")


def change_model_file(content: dict, section: str, folder: Path) -> None:
    path = folder / "model" / "tokenizer_config.json"
    path.write_text(path.read_text() + "\n")


def change_answers(content: dict, section: str, folder: Path) -> None:
    path = folder / "questions.jsonl"
    path.write_text(path.read_text().replace("Turn one", "Turn 1"))


CASES = {
    "eval, model file": ("eval", change_model_file, "revision was 'sha256:"),
    "eval, data": ("eval", change_data, "data_hash was "),
    "eval, manifest": ("eval", change_section("batch_tokens", 31), "batch_tokens has changed"),
    "converse, model file": ("converse", change_model_file, "revision was 'sha256:"),
    "converse, manifest": ("converse", change_section("max_new_tokens", 5), "max_new_tokens was 4 and is now 5"),
    "mtbench, model file": ("mtbench", change_model_file, "revision was 'sha256:"),
    "mtbench, data": ("mtbench", change_answers, "was "),
    "mtbench, manifest": ("mtbench", change_section("seed", 3), "seed was 0 and is now 3"),
    "matrix, model file": ("matrix", change_model_file, "revision was 'sha256:"),
    "matrix, data": ("matrix", change_data, "questions.mine.all.data_hash was "),
    "matrix, manifest": ("matrix", change_section("new_tokens", 3), "new_tokens was 32 and is now 3"),
}


def section_of(name: str, folder: Path) -> dict:
    """The small section, on data that can be changed."""
    section = dict(SECTIONS[name])
    if name in ("eval", "matrix"):
        csv(folder / "mine.csv")
        section["benchmarks"] = [{"file": str(folder / "mine.csv"), **MINE}]
    if name == "eval":
        section["batch_tokens"] = 48
    if name == "mtbench":
        question = '{"question_id": %d, "category": "math", "turns": ["Turn one of %d.", "Turn two."]}\n'
        (folder / "questions.jsonl").write_text("".join(question % (n, n) for n in (1, 2)))
        section |= {"questions": str(folder / "questions.jsonl"), "categories": None, "limit": None}
    return section


def write(path: Path, content: dict) -> None:
    path.write_text(yaml.safe_dump(content))


@pytest.mark.parametrize("case", CASES)
def test_what_differs_is_named(case, folder):
    name, change, says = CASES[case]
    demo_model()
    shutil.copytree(DEMO_MODELS["demo-tiny"], folder / "model")
    content = {"models": [MODEL | {"id": str(folder / "model")}], name: section_of(name, folder)}
    manifest, told = folder / f"{name}.yaml", folder / "told"
    write(manifest, content)
    job = SmallJob(name, manifest)
    expected, operations = job.unbroken(folder)
    backup = folder / "before"
    shutil.copytree(folder / "model", backup / "model")
    kept = {path: path.read_bytes() for path in folder.glob("*.*") if path.is_file()}
    assert job.run(folder / "r", Fault(2 * operations // 3)) < 0
    changed = yaml.safe_load(yaml.safe_dump(content))
    change(changed, name, folder)
    write(manifest, changed)
    assert job.run(folder / "r", told=told) == 1, told.read_text()
    line = told.read_text().strip().splitlines()[-1]
    assert says in line and "give the run another name (--set name=…), or start over with --fresh" in line
    for path, data in kept.items():
        path.write_bytes(data)
    shutil.rmtree(folder / "model")
    shutil.copytree(backup / "model", folder / "model")
    assert job.run(folder / "r", told=told) == 0, told.read_text()
    assert differences(state_of(folder / "r"), expected) == []
