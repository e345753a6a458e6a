"""The report on a study that stopped when it was decided."""

import json
from pathlib import Path

import pytest
import yaml

from llmjobs.cli import main
from llmjobs.make_report import make_report


@pytest.fixture(scope="module")
def race(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("race")
    models = [{"id": f"llmjobs/demo-{name}", "name": name, "dtype": "float32"} for name in ("tiny", "narrow", "base")]
    section = {"benchmarks": ["demo"], "batch_tokens": 1024, "threads": 1, "stop": {"best": 95}}
    path = folder / "race.yaml"
    path.write_text(yaml.safe_dump({"models": models, "eval": section}))
    with pytest.raises(SystemExit) as ended:
        main(["eval", str(path), "--results", str(folder)])
    assert ended.value.code == 0
    return folder / "race"


def test_what_the_rule_found_comes_first_and_nothing_is_missing(race, tmp_path):
    result = make_report([race], tmp_path / "report.pdf")
    (found,) = json.loads((race / "summary.json").read_text())["eval"]["stop"]["races"]
    assert not result.partial
    assert result.findings[0].sentence == found["sentence"]
    asked = {one["model"]: one["asked"] for one in found["models"]}
    assert asked["tiny"] < asked["base"] == found["asked"] < 1000, "a model that is out is not asked any further"
    notes = (tmp_path / "notes.md").read_text()
    assert found["sentence"] in notes
    (notice,) = [str(one) for one in result.notices if "a rule ended" in str(one)]
    assert "as if their number had been fixed beforehand" in notice


def test_beside_a_complete_run_the_common_questions_are_compared(race, tmp_path):
    manifest = yaml.safe_load((race / "manifest.yaml").read_text())
    manifest["eval"]["stop"] = None
    manifest["models"] = [one for one in manifest["models"] if one["name"] == "tiny"]
    manifest["models"][0]["quantization"] = "8bit"
    (tmp_path / "whole.yaml").write_text(yaml.safe_dump(manifest | {"name": "whole"}, sort_keys=False))
    with pytest.raises(SystemExit) as ended:
        main(["eval", str(tmp_path / "whole.yaml"), "--results", str(tmp_path)])
    assert ended.value.code == 0
    result = make_report([race, tmp_path / "whole"], tmp_path / "report.pdf")
    assert not result.partial
    assert any("every model answered 64 of 1,000 questions" in str(one) for one in result.notices)
