"""A model that cannot fit is refused from its config: before hours of download."""

import pytest
from hub_world import MODEL, World

from llmjobs.engines.transformers import fits_in_memory, model_files
from llmjobs.engines.transformers.load import load_model
from llmjobs.errors import ModelError
from llmjobs.manifest import ModelSpec


@pytest.mark.parametrize(("quantization", "says"), [("none", "quantization: 8bit takes"), ("4bit", "use a smaller")])
def test_a_model_that_cannot_fit_is_not_fetched(world: World, quantization: str, says: str) -> None:
    room = {"none": 2_000_000, "4bit": 100_000}[quantization]
    world.patch.setattr(fits_in_memory, "memory_bytes", lambda: room)
    spec = ModelSpec.model_validate({"id": MODEL, "device": "cpu", "dtype": "float32", "quantization": quantization})
    with pytest.raises(ModelError, match="does not fit: its weights take") as caught:
        load_model(spec)
    assert says in str(caught.value) and "nothing was loaded" in str(caught.value)
    assert any(path.endswith("config.json") for path in world.paths())
    assert not [path for path in world.paths() if path.endswith((".safetensors", ".bin"))]


def test_a_config_that_no_model_has_is_refused_before_it_is_built_or_fetched(world: World) -> None:
    world.patch.setattr(fits_in_memory, "on_meta", lambda *_: pytest.fail("built from a config that was not looked at"))
    world.patch.setattr(model_files, "MAX_SIZE", 1)
    with pytest.raises(ModelError, match="which no model has"):
        load_model(ModelSpec.model_validate({"id": MODEL, "device": "cpu", "dtype": "float32"}))
    assert not [path for path in world.paths() if path.endswith((".safetensors", ".bin"))]
