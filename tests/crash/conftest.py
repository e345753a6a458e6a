"""Fixtures of the crash tests: every job on its small run, in a separate folder."""

import shutil

import pytest
from crash_jobs import JOBS, fast_folder, played_once


@pytest.fixture
def folder():
    made = fast_folder()
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module", params=JOBS)
def small(request):
    """A job, what an unbroken run of it leaves, and how many file operations that took."""
    with played_once(request.param) as found:
        yield found
