"""Fixtures of the runner's tests."""

import pytest
from toy import EVERY_STEP

from llmjobs.work import cursor


@pytest.fixture(scope="module")
def every_step_is_saved():
    """No step waits to be saved together with others."""
    share, cursor.SHARE_OF_TIME = cursor.SHARE_OF_TIME, EVERY_STEP
    yield
    cursor.SHARE_OF_TIME = share
