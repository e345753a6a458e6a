from typing import Any

import pytest
from scoring_models import llama_config, random_model


@pytest.fixture(scope="session")
def llama() -> Any:
    """A Llama shape with grouped queries, fp32."""
    return random_model(llama_config())
