"""Terminal, summary and report count answers and judgments whose thinking was cut off, in converse and MT-Bench."""

import json
from pathlib import Path

import pytest
import yaml

from llmjobs.cli import main
from llmjobs.converse import chapter as converse
from llmjobs.mtbench import chapter as mtbench
from llmjobs.report.assemble import assemble
from llmjobs.report.blocks import Section, Table
from llmjobs.report.measure import Measures
from llmjobs.report.read.run_folder import read_run_folder

TEMPLATE = (
    "{% for m in messages %}{{ m.content.split('</think>')[-1] }}\n{% endfor %}"
    "{% if add_generation_prompt %}Model: <think>\n{% endif %}"
)


@pytest.fixture
def thinker(llama: Path, tmp_path: Path) -> dict[str, object]:
    """A model with random weights, which never closes its thinking."""
    folder = tmp_path / "thinker"
    folder.mkdir()
    for file in llama.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return {"id": str(folder), "name": "thinker", "dtype": "float32"}


def run(tmp_path: Path, job: str, **study: object) -> dict[str, object]:
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(study))
    with pytest.raises(SystemExit):  # a judge with random weights gives no rating
        main([job, str(path), "--results", str(tmp_path / "r")])
    return dict(json.loads((tmp_path / "r/study/summary.json").read_text())[job])


def notes(tmp_path: Path, section: Section) -> str:
    content = section.build(Measures(assemble([read_run_folder(tmp_path / "r/study")])))
    return " ".join(block.note for block in content.blocks if isinstance(block, Table))


@pytest.mark.parametrize(("thinking", "is_cut"), [(20, True), ("off", False)])
def test_converse(tmp_path, thinker, capsys, thinking, is_cut):
    section = {"conversations": 1, "distances": [1], "strategies": ["full"], "contexts": [600]}
    section |= {"max_new_tokens": 4, "threads": 1}
    part = run(tmp_path, "converse", models=[thinker | {"thinking": thinking}], converse=section)
    memory = part["models"][0]["memories"][0]  # type: ignore[index]
    turns = memory["turns"] - memory["errors"]
    assert turns > 1 and memory.get("thinking_cut") == (turns if is_cut else None)
    said = f"the thinking reached its limit and was cut off on {turns} answers"
    assert (f"thinker, full: {said}" in capsys.readouterr().out) is is_cut
    assert (f"full: {said}." in notes(tmp_path, converse.SECTION)) is is_cut


def test_mtbench(tmp_path, thinker, capsys):
    judge = {**thinker, "name": "judge", "thinking": 20, "max_new_tokens": 8}
    section = {"questions": "demo", "categories": ["my dog"], "limit": 1}
    section |= {"max_new_tokens": 4, "judges": [judge], "threads": 1}
    part = run(tmp_path, "mtbench", models=[thinker | {"thinking": 20}], mtbench=section)
    agent, judged = part["agents"][0], part["judges"][0]  # type: ignore[index]
    assert agent["thinking_cut"] == agent["turns"] > 1
    assert judged["thinking_cut"] == judged["n"] > 1
    shown, written = capsys.readouterr().out, notes(tmp_path, mtbench.SECTION)
    for text in (
        f"thinker: the thinking reached its limit and was cut off on {agent['turns']} answers",
        f"the thinking reached its limit and was cut off on {judged['n']} judgments",
    ):
        assert text in shown and text in written
