"""The demo study and its ladder, really run, and the answer that a statistician gives from their tables by hand."""

import json
from pathlib import Path

import pytest

from llmjobs.cli import main

pytestmark = pytest.mark.slow


def run(*arguments: object, code: int = 0) -> None:
    with pytest.raises(SystemExit) as ended:
        main([str(one) for one in arguments])
    assert ended.value.code == code


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("results")
    run("eval", "demo", "--results", place)
    return place


def test_the_demo_study(results, capsys):
    # 1,000 questions: demo-base 782 right, demo-narrow 646, demo-tiny 395. Base and narrow: b = 178, c = 42, so 13.6
    # points, error sqrt((220/1000 - 0.0185) / 1000) = 1.42; three candidates, quantile of 0.975: 2.241 · 1.42 = 3.18,
    # so 10.4 to 16.8. Base and tiny: b = 447, c = 60: 38.7. The best is decided, whatever memory costs.
    run("choose", results / "demo", "--json")
    found = json.loads(capsys.readouterr().out)
    assert (found["verdict"], found["chosen"], found["questions"]) == ("best", "demo-base fp32", 1000)
    assert found["answer"].startswith("Run demo-base as fp32 with transformers: 78.2% on demo (75.5 to 80.6), ")
    narrow = next(one for one in found["candidates"] if one["candidate"] == "demo-narrow fp32")
    assert narrow["outcome"] == "worse" and narrow["less_the_chosen_one"]["value"] == -0.136
    ends = narrow["less_the_chosen_one"]["low"], narrow["less_the_chosen_one"]["high"]
    assert ends == pytest.approx((-0.168, -0.104), abs=0.001)
    # No speed was timed, so nothing is known to meet a limit on it; and nothing fits into 1 MiB.
    run("choose", results / "demo", "--decode", "1", code=4)
    assert "is known to meet the constraints" in capsys.readouterr().out
    run("choose", results / "demo", "--memory", "1MiB", code=4)
    assert capsys.readouterr().out.startswith("No candidate meets the constraints")
