"""Fixtures of the runner's tests."""

import pytest
from toy import EVERY_STEP

from llmjobs.work import when_to_save


@pytest.fixture(scope="module")
def every_step_is_saved():
    """No step waits to be saved together with others."""
    share, when_to_save.SHARE_OF_TIME = when_to_save.SHARE_OF_TIME, EVERY_STEP
    yield
    when_to_save.SHARE_OF_TIME = share
