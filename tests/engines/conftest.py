from collections.abc import Iterator
from typing import Any

import pytest
import torch
from scoring_models import llama_config, random_model


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """On tiny shapes a second thread costs more than it computes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def llama() -> Any:
    """A Llama shape with grouped queries, fp32."""
    return random_model(llama_config())
