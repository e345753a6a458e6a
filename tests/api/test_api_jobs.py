"""Every job of a run as tables: a study with all four sections."""

import pytest
import yaml

import llmjobs

pytestmark = pytest.mark.slow
STUDY = {
    "models": ["llmjobs/demo-tiny"],
    "eval": {"benchmarks": [{"name": "demo", "subjects": ["letters"], "limit": 5}], "batch_tokens": 512, "threads": 1},
    "matrix": {"devices": ["cpu"], "quantizations": ["none"], "repetitions": 1, "context_lengths": [32]},
    "converse": {"conversations": 2, "distances": [1], "strategies": ["none", "full"], "max_new_tokens": 4},
    "mtbench": {"limit": 1, "max_new_tokens": 4, "judges": [{"id": "llmjobs/demo-tiny", "max_new_tokens": 4}]},
}


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> llmjobs.Results:
    folder = tmp_path_factory.mktemp("all")
    (folder / "all.yaml").write_text(yaml.safe_dump(STUDY))
    return llmjobs.run(folder / "all.yaml", results=folder)


def test_every_job_has_records_and_a_table(found):
    assert found.jobs == ["eval", "matrix", "converse", "mtbench"] and not found.failed
    assert len(found.records("eval")) == 5 * 8  # of each subject
    assert set(found.records("matrix")["repetition"]) == {1}
    assert found.records("converse")["answer"].notna().any()
    answers, judgments = found.records("mtbench/answers"), found.records("mtbench/judgments")
    assert len(answers) and set(judgments["judge"]) == {"demo-tiny"}
    assert len(found.records("mtbench")) == len(answers) + len(judgments)


def test_tables_have_the_summary_s_figures(found):
    cell = found.table("matrix").iloc[0]
    assert (cell["model"], cell["status"]) == ("demo-tiny", "done")
    assert cell["real_s"] > 0 and cell["weight_bytes"] > 1000 and cell["n"] == 5 * 8
    memories = found.table("converse")
    assert list(memories["strategy"]) == ["none", "full"] and (memories["n"] > 0).all()
    scores = found.table("mtbench")
    assert list(scores["model"]) == ["demo-tiny"] and scores["n"][0] + scores["unread"][0] > 0


def test_a_notebook_shows_all_of_them(found):
    shown = found._repr_html_()
    assert [part.split("</h5>")[0] for part in shown.split("<h5>")[1:]] == found.jobs
    assert shown.count("<table") == 4 and "data:image/png;base64," in shown and "None" not in shown
