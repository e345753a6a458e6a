"""What is printed of the demo does not depend on the processor; the numbers: tests/docs/test_doc_commands_run.py."""

import pytest

from llmjobs.manifest import load_manifest


@pytest.mark.parametrize("name", ["demo", "smoke", "chat", "mtbench"])
def test_the_number_format_of_demo_models_does_not_depend_on_the_processor(name):
    assert {model.dtype for model in load_manifest(name).models} == {"float32"}
