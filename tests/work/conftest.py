"""Fixtures of the runner's tests."""

import pytest
from toy import EVERY_STEP

from llmjobs.work import saving


@pytest.fixture(scope="module")
def every_step_is_saved():
    """No step waits to be saved together with others."""
    share, saving.SHARE_OF_TIME = saving.SHARE_OF_TIME, EVERY_STEP
    yield
    saving.SHARE_OF_TIME = share
