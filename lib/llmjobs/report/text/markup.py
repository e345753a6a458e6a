"""Plain text to reportlab's paragraph markup: escaped, in fonts that have every character."""

from html import escape

from llmjobs.report.text.arabic import join_letters
from llmjobs.report.text.direction import printed_order
from llmjobs.report.text.fonts import NAMES, Face, split_runs
from llmjobs.report.text.visible import visible


def markup(text: str, face: Face = "regular") -> str:
    """Return ``text`` as markup that prints as that text, whatever it holds, in a left-to-right sentence."""
    flat = printed_order(join_letters(visible(text, keep_lines=False)), base_right=False)
    parts = []
    for run in split_runs(flat, face):
        inner = escape(run.text, quote=False)
        if run.boxed:
            parts.append(f'<font name="{run.font}" size="6" backColor="#e4e7ea">{inner}</font>')
        elif run.font == NAMES[face]:
            parts.append(inner)
        else:
            parts.append(f'<font name="{run.font}">{inner}</font>')
    return "".join(parts)
