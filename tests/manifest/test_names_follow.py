"""An override that changes a model's derived name changes it where sections name the model."""

from pathlib import Path

import pytest

from llmjobs.errors import ManifestError
from llmjobs.manifest import load_manifest

TEXT = "models: [llmjobs/demo-base, llmjobs/demo-tiny]\nconverse: {models: [demo-base]}\n"


def test_names_follow_an_override(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(TEXT)
    study = load_manifest(path, ["models[0].quantization=4bit"])
    assert study.converse is not None
    assert study.converse.models == ["demo-base-4bit"]
    assert load_manifest(path, ["models[0].id=llmjobs/demo-narrow"]).converse.models == ["demo-narrow"]


def test_the_demo_takes_the_readmes_own_override() -> None:
    assert load_manifest("demo", ["models[0].quantization=4bit"]).models[0].quantization == "4bit"


def test_a_name_that_was_given_stays(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text("models: [{id: llmjobs/demo-base, name: mine}]\nconverse: {models: [mine]}\n")
    assert load_manifest(path, ["models[0].quantization=4bit"]).converse.models == ["mine"]


def test_an_unknown_section_is_named(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(TEXT)
    with pytest.raises(ManifestError, match="did you mean 'models'"):
        load_manifest(path, ["model[0]=x"])
