r"""Every command in the documentation, as words, and what a test does with each.

A block of ``sh`` or ``console`` is shell: a command a line, ``\`` goes on, ``#`` begins a comment, ``$`` is a prompt. A
block that begins with ``#!`` is one script. Code in a sentence counts where it begins with one of the commands and has
something behind it.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "benchmarks" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
SHELL = {"sh", "bash", "shell", "console"}
FENCE = re.compile(r"^(```+)(\w*)[^\n]*\n(.*?)^\1", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"(?:^|\n\n)((?:    [^\n]*\n)+)")
INLINE = re.compile(r"`([^`\n]+(?:\n[^`\n]+)?)`")
VARIABLE = re.compile(r"[A-Z_]+=\S*")


@dataclass(frozen=True)
class Command:
    """One command: where it is, its words without the path of ``.venv``, and variables set before it."""

    page: str
    words: tuple[str, ...]
    variables: tuple[str, ...] = ()
    inline: bool = False

    def __str__(self) -> str:
        """How it reads; of a script the first lines."""
        return f"{self.page}: {' '.join(' '.join((*self.variables, *self.words)).split())[:200]}"


def all_commands() -> list[Command]:
    """Every command of every page, each once a page."""
    return list(dict.fromkeys(command for page in PAGES for command in commands_of(page)))


def commands_of(page: Path) -> Iterator[Command]:
    """The commands of one page."""
    text, name = page.read_text(encoding="utf-8"), str(page.relative_to(ROOT))
    for _, language, body in FENCE.findall(text):
        if language in SHELL and body.startswith("#!"):
            yield Command(name, ("script", body))
        elif language in SHELL:
            for line in shell_lines(body):
                yield from commands_in(name, line)
    for code in INLINE.findall(FENCE.sub("", text)):
        words = code.split()
        if (
            len(words) > 1
            and words[1] != "@"
            and base_name(words[0]) in {"llmjobs", "make", "python", "docker", "hf"}
            and code[0] != " "
        ):
            yield from commands_in(name, " ".join(words), inline=True)


def unlabelled_commands(page: Path) -> list[str]:
    """Lines of blocks without a language, and of indented ones, that begin with a command: they would go unnoticed."""
    text = page.read_text(encoding="utf-8")
    bodies = [body for _, language, body in FENCE.findall(text) if language not in SHELL]
    bodies += INDENTED.findall(FENCE.sub("", text))
    lines = [line.strip().removeprefix("$ ") for body in bodies for line in body.splitlines()]
    runs = {"llmjobs", "docker", "pip", "python", "python3", "bash", "hf"}
    return [line for line in lines if " " in line and base_name(line.split()[0]) in runs]


def shell_lines(body: str) -> Iterator[str]:
    """Whole lines of a block; of a ``console`` block with prompts only what is typed."""
    lines = body.replace("\\\n", " ").splitlines()
    typed = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    yield from (line for line in typed or lines if line.strip() and not line.lstrip().startswith("#"))


def commands_in(page: str, line: str, *, inline: bool = False) -> Iterator[Command]:
    """Split a line at ``&&``, ``;`` and ``|``."""
    words: list[str] = []
    lexer = shlex.shlex(line, posix=True, punctuation_chars="&;|")
    lexer.whitespace_split = True
    for word in [*lexer, ";"]:
        if word in {"&&", ";", "|", "||"}:
            if words:
                yield _command(page, words, inline)
            words = []
        else:
            words.append(word)


def _command(page: str, words: list[str], inline: bool) -> Command:
    variables = []
    while words and VARIABLE.fullmatch(words[0]):
        variables.append(words.pop(0))
    words = [base_name(words[0]), *words[1:]] if words else words
    if words[:3] == ["python", "-m", "llmjobs"]:
        words = ["llmjobs", *words[3:]]
    return Command(page, tuple(words), tuple(variables), inline)


def base_name(word: str) -> str:
    """``.venv/bin/llmjobs`` → ``llmjobs``."""
    return word.rsplit("/", 1)[-1] if word.startswith((".venv/bin/", "./")) else word
