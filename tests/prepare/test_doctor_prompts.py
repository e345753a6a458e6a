"""Doctor, plan, eval and chat agree on what ``thinking`` does with a model's chat template."""

import json
from pathlib import Path

import pytest
import yaml
from random_llama import make_llama

from llmjobs.cli import main
from llmjobs.engines.machine_probe import Machine
from llmjobs.manifest import load_manifest
from llmjobs.prepare import doctor_machine
from llmjobs.prepare.doctor_prompts import check_prompts
from llmjobs.prepare.doctor_result import Checkup, run_check

TURNS = "{% for m in messages %}{{ m.role }}: {{ m.content.split('</think>')[-1] }}\n{% endfor %}"
PLAIN = TURNS.replace(".split('</think>')[-1]", "") + "{% if add_generation_prompt %}assistant:{% endif %}"
OPENS = TURNS + "{% if add_generation_prompt %}assistant: <think>\n{% endif %}"
CLOSES = TURNS + "{% if add_generation_prompt %}assistant: <think>\n\n</think>\n\n{% endif %}"
NO_BLOCK = "llmjobs finds no thinking block in its chat template, so thinking: on has no effect; remove it"
NO_TEMPLATE = "thinking: on has no effect without a chat template; add chat_template: true to the model"


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return make_llama(tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture
def study(tmp_path, model):
    def write(template: str | None, *, choices: bool = False, talks: bool = False, **settings: object) -> Path:
        folder = tmp_path / "model"
        folder.mkdir()
        for file in model.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        if template:
            (folder / "chat_template.jinja").write_text(template)
        (tmp_path / "q.jsonl").write_text(json.dumps({"question": "Which?", "answer": "A", "a": "one", "b": "two"}))
        own = {"file": "q.jsonl", "name": "own", "question": "question", "answer": "answer"}
        own |= {"choices": ["a", "b"]} if choices else {}
        models = [{"id": str(folder), "name": "m", "dtype": "float32", **settings}]
        content = {"models": models, "converse": {}} if talks else {"models": models, "eval": {"benchmarks": [own]}}
        path = tmp_path / "m.yaml"
        path.write_text(yaml.safe_dump(content))
        return path

    return write


def checked(path: Path, tmp_path: Path) -> list[tuple[str, str, str]]:
    found = run_check(check_prompts, Checkup(load_manifest(path), tmp_path))
    return [(check.name, check.status, f"{check.line}; {check.remedy}") for check in found]


@pytest.mark.parametrize(
    ("template", "settings", "status", "said"),
    [
        (PLAIN, {"thinking": "on", "chat_template": True}, "failed", NO_BLOCK),
        (PLAIN, {"thinking": "on", "talks": True}, "failed", NO_BLOCK),
        (PLAIN, {"chat_template": True}, "ok", "the chat template has no thinking"),
        (CLOSES, {"thinking": "on", "chat_template": True}, "failed", "closes the thinking in every prompt"),
        (None, {"thinking": "on", "talks": True}, "failed", "thinking: on needs a chat template, and there is none"),
        (None, {"chat_template": True}, "failed", "its tokenizer has no chat template"),
        (OPENS, {"thinking": 64, "chat_template": True}, "ok", "thinking is on (the template's own), with at most 64"),
        (OPENS, {"thinking": 64, "chat_template": True, "choices": True}, "failed", "would still be thinking"),
        (OPENS, {"chat_template": True, "choices": True}, "ok", "thinking is off (closed block)"),
        (OPENS, {"thinking": "on"}, "warning", NO_TEMPLATE),
    ],
)
def test_doctor_says_what_thinking_will_do(study, tmp_path, template, settings, status, said):
    name, *found = checked(study(template, **settings), tmp_path)[0]
    assert name == "prompts of m"
    assert found[0] == status and said in found[1]


@pytest.mark.parametrize("template", [None, PLAIN, OPENS])
def test_an_eval_without_a_template_is_warned_and_not_refused(study, tmp_path, template):
    (found,) = checked(study(template, thinking="on"), tmp_path)
    assert found[1] == "warning"


def test_nothing_is_said_where_no_job_uses_the_template(study, tmp_path):
    assert checked(study(OPENS), tmp_path) == []


def test_doctor_fails_where_eval_will(study, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(doctor_machine, "probe_machine", lambda *_: Machine())
    path = study(PLAIN, thinking="on", chat_template=True)
    for command in (["doctor", path], ["eval", path, "--results", tmp_path / "r"]):
        with pytest.raises(SystemExit) as ended:
            main([str(one) for one in command])
        assert ended.value.code
        assert NO_BLOCK in "".join(capsys.readouterr())


def test_eval_says_that_thinking_is_not_used_without_a_template(study, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["eval", str(study(OPENS, thinking="on")), "--results", str(tmp_path / "r")])
    assert ended.value.code == 0
    assert f"m: {NO_TEMPLATE}" in capsys.readouterr().err


def test_plan_counts_the_tokens_of_thinking(study, tmp_path, monkeypatch):
    """What was counted without thinking is not taken from the cache for the same model with it."""
    from llmjobs.engines.registry import locate
    from llmjobs.eval.tasks import make_tasks
    from llmjobs.prepare.plan_tokens import TokenCounter
    from llmjobs.work.folder import Revisions, RunFolder

    revisions = Revisions.of(RunFolder(tmp_path / "no run"), writes=False)
    monkeypatch.setenv("LLMJOBS_CACHE", str(tmp_path / "cache"))
    path = study(OPENS, chat_template=True)
    counts = []
    for thinking in ("off", 64):
        found = load_manifest(path, [f"models[0].thinking={thinking}"])
        spec = found.models[0]
        counter = TokenCounter(spec, locate(spec), 512)
        counts.append(counter.count(make_tasks(found, revisions)[0]).new_tokens)
    assert counts[1] == counts[0] + 64
