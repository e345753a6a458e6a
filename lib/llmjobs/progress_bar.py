"""A progress bar for each place: a widget or text in a notebook, text on a terminal, none elsewhere."""

import sys
import warnings
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from tqdm import tqdm


NO_WIDGETS = "IProgress not found"
"""The start of tqdm's advice to install ipywidgets, which a text bar does not need."""


def in_notebook() -> bool:
    """Whether this process is a notebook's kernel; a plain IPython terminal is not."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return getattr(shell, "kernel", None) is not None


def new_bar(stream: TextIO, total: int, **settings: Any) -> "tqdm[Any] | None":
    """Return a bar on ``stream``, or None if it would fill a log with partial lines.

    ``settings`` are tqdm's.
    """
    notebook = in_notebook()
    if not notebook and not stream.isatty():
        return None
    if notebook and find_spec("ipywidgets"):
        from tqdm.notebook import tqdm as widget

        bar: tqdm[Any] = widget(total=total, **settings)
        return bar
    from tqdm import tqdm as text

    return text(total=total, dynamic_ncols=not notebook, file=stream, **settings)


def import_quietly() -> None:
    """Import tqdm's choice of bars, which other packages use, without its advice about widgets."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=NO_WIDGETS)
        import tqdm.auto  # noqa: F401
