"""Progress: a bar on a terminal and in a notebook, plain lines in a log."""

import io
import sys
import types

import pytest

from llmjobs import progress_bar
from llmjobs import progress_bar as module
from llmjobs.progress_bar import Progress


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def notebook(monkeypatch):
    """A kernel's shell, as IPython shows it."""
    shell = types.SimpleNamespace(kernel=object(), config={"IPKernelApp": {}})
    ipython = types.ModuleType("IPython")
    ipython.get_ipython = lambda: shell
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    return shell


def test_a_log_gets_whole_lines(monkeypatch):
    stream = io.StringIO()
    bar = Progress("eval", 100, 10, stream)
    bar.unit("eval/a/b")
    bar.advance(5, "eval/a/b")
    assert stream.getvalue() == ""
    monkeypatch.setattr(module, "PLAIN_INTERVAL_S", 0.0)
    bar.advance(5, "eval/a/b")
    bar.say("failed: x")
    bar.close()
    first, second = stream.getvalue().splitlines()
    assert first.startswith("eval eval/a/b: 20 of 100, ") and first.endswith(" left") and second == "failed: x"


def test_a_job_that_may_stop_early_has_no_certain_end(monkeypatch):
    stream = io.StringIO()
    bar = Progress("eval", 100, 10, stream)
    bar.at_most = True
    monkeypatch.setattr(module, "PLAIN_INTERVAL_S", 0.0)
    bar.advance(5, "eval/a/b")
    assert stream.getvalue().startswith("eval eval/a/b: 15 of at most 100, ")
    assert ", at most 0:0" in stream.getvalue()


def test_a_terminal_gets_a_bar():
    stream = Screen()
    bar = Progress("eval", 100, 10, stream)
    bar.advance(90, "eval/a/b")
    bar.say("failed: x")
    bar.close()
    assert "100/100" in stream.getvalue() and "failed: x\n" in stream.getvalue()


def test_a_notebook_without_widgets_gets_text(notebook, monkeypatch):
    monkeypatch.setattr(progress_bar, "find_spec", lambda name: None)
    stream = io.StringIO()
    bar = Progress("eval", 100, 10, stream)
    bar.advance(90, "eval/a/b")
    bar.close()
    assert progress_bar.in_notebook() and "100/100" in stream.getvalue()


def test_a_terminal_s_ipython_is_no_notebook(notebook):
    del notebook.kernel
    assert not progress_bar.in_notebook()
    assert progress_bar.new_bar(io.StringIO(), 3) is None
