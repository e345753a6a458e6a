"""The worked example of docs/adding-a-benchmark.md, taken from the page and run step by step."""

import ast
import importlib.util
import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from doc_commands import commands_of

from llmjobs.benchmarks import registry
from llmjobs.benchmarks.base import Benchmark, Options
from llmjobs.benchmarks.rows import load_rows
from llmjobs.cli import main
from llmjobs.errors import DataError

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "adding-a-benchmark.md"
EXAMPLES = dict(
    re.findall(r"<!-- example: (.+?) -->\n```\w+\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
)  # name → text
MODULE = "llmjobs.benchmarks.copa"


def entries(text: str) -> dict[str, str]:
    """The line that a step adds to a dictionary."""
    return dict(ast.literal_eval(f"{{{text.strip()}}}"))


@pytest.fixture
def copa(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> type[Benchmark]:
    """Steps 1 to 3 in an empty folder: the file, its line in the registry, the rows and the manifest."""
    monkeypatch.chdir(tmp_path)
    for name, text in EXAMPLES.items():
        if "." in name:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(text, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(MODULE, tmp_path / "copa.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, MODULE, module)
    spec.loader.exec_module(module)
    for name, place in entries(EXAMPLES["registry"]).items():
        monkeypatch.setitem(registry.MODULES, name, place)
    registry.benchmark_class.cache_clear()
    return registry.benchmark_class("copa")


def test_the_page_has_every_step() -> None:
    assert set(EXAMPLES) == {"copa.py", "registry", "copa/validation.jsonl", "copa.yaml", "samples", "lm-eval"}


def test_rows_and_prompts(copa: type[Benchmark]) -> None:
    rows = load_rows(copa, "all", "test", data="copa").rows
    docs = [copa(Options(0, "lm-eval", "loglikelihood")).doc(row, at, "all") for at, row in enumerate(rows)]
    assert docs[0].questions == ("The cup fell on the stones therefore",)
    assert docs[0].continuations == ("  it broke.", "  it sang.") and docs[0].gold == "A"
    assert docs[1].questions == ("The street was wet because",) and docs[1].gold == "B"


def test_a_row_of_another_form_is_refused_with_its_line(copa: type[Benchmark]) -> None:
    row = json.loads(EXAMPLES["copa/validation.jsonl"].splitlines()[0])
    text = "".join(json.dumps(one) + "\n" for one in (row, row | {"question": "why"}))
    Path("copa/validation.jsonl").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=r"validation.jsonl:2: not a row of copa \(question 'why' is neither"):
        load_rows(copa, "all", "test", data="copa")


def test_the_commands_of_the_page_run(copa: type[Benchmark], capsys: pytest.CaptureFixture[str]) -> None:
    said = {}
    for command in commands_of(PAGE):
        if command.words[0] == "llmjobs" and not command.inline:
            with pytest.raises(SystemExit) as ended:
                main(command.words[1:])
            assert ended.value.code == 0, shlex.join(command.words)
            said[command.words[1]] = capsys.readouterr().out
    assert "aps/super_glue, configuration copa; test = validation" in said["benchmarks"]
    assert "The street was wet because" in said["eval"]
    lines = Path("results/copa/eval/demo-base/copa.all/records.jsonl").read_text(encoding="utf-8").splitlines()
    assert {json.loads(line)["doc_id"]: json.loads(line)["gold"] for line in lines} == {0: "A", 1: "B"}


def test_lm_eval_asks_the_same(copa: type[Benchmark], monkeypatch: pytest.MonkeyPatch) -> None:
    lm_eval = pytest.importorskip("lm_eval", reason="lm-eval is not installed: parity with it is not checked")
    import datasets
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.tasks._yaml_loader import load_yaml

    scope: dict[str, Any] = {"Rows": list}
    exec(EXAMPLES["samples"], scope)  # noqa: S102 - the project's own page
    held = datasets.DatasetDict({name: datasets.Dataset.from_list(rows) for name, rows in scope["COPA"].items()})
    monkeypatch.setattr(datasets, "load_dataset", lambda *a, **k: held)
    tasks = Path(lm_eval.__file__).parent / "tasks"
    config = load_yaml(tasks / entries(EXAMPLES["lm-eval"])["copa"], resolve_func=True)
    config.pop("tag", None)
    config |= {"num_fewshot": 1, "fewshot_config": {"sampler": "first_n"}}
    task = ConfigurableTask(config=config)
    task.build_all_requests(rank=0, world_size=1)
    theirs = [instance.args for instance in task.instances]
    benchmark = copa(Options(1, "lm-eval", "loglikelihood"))
    shots = benchmark.shots([copa.canonical(row) for row in scope["COPA"]["train"]], "all").render(1)
    docs = [benchmark.doc(copa.canonical(row), at, "all") for at, row in enumerate(scope["COPA"]["validation"])]
    assert theirs == [(shots + doc.questions[0], end) for doc in docs for end in doc.continuations]
