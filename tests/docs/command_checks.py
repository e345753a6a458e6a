"""What is checked of a command without running it: that it could run, with the options that are there today."""

import argparse
import io
import re
import subprocess
import sys
import tomllib
import warnings
from collections.abc import Sequence
from contextlib import redirect_stderr, suppress
from importlib.util import find_spec
from pathlib import Path
from runpy import run_module, run_path
from typing import Any
from unittest.mock import patch

import click
from doc_commands import ROOT, Command

from llmjobs.cli import COMMANDS, group
from llmjobs.manifest import load_manifest

PLACEHOLDERS = {
    "MANIFEST": "manifests/demo.yaml",
    "FILE": "manifests/demo.yaml",
    "MODEL": "llmjobs/demo-base",
    "NAME": "mmlu",
    "URL": "http://127.0.0.1:9/v1",
    "VARIABLE": "JUDGE_KEY",
    "RESULTS…": "results/demo",
    "…": "",
}
"""Words of a sentence that stand for something, and what a test puts there."""
DOCKER_FLAGS: dict[str, dict[str, bool]] = {
    "kill": {},
    "inspect": {"--format": True},
    "build": {"-f": True, "-t": True, "--build-arg": True, "--network": True},
    "run": {
        "--rm": False,
        "-it": False,
        "-d": False,
        "-v": True,
        "-e": True,
        "-p": True,
        "--name": True,
        "--gpus": True,
        "--user": True,
        "--network": True,
        "--read-only": False,
        "--tmpfs": True,
        "--cap-drop": True,
        "--security-opt": True,
        "--entrypoint": True,
        "--memory": True,
        "--shm-size": True,
    },
    "stop": {"-t": True},
    "network": {},
    "compose": {"-f": True},
    "exec": {"-it": False, "-d": False, "-e": True},
}
"""Flag → whether a value follows. One that is not here is a typing error, or has to be added after a look."""
ENTRYPOINT = "llmjobs-entrypoint"
IMAGES = {"llmjobs:cpu": "Dockerfile.cpu", "llmjobs:cuda": "Dockerfile.cuda"}


def is_placeholder(command: Command) -> bool:
    """Whether a word is a placeholder."""
    return any(word.strip("[]") in PLACEHOLDERS for word in command.words)


def check_llmjobs(command: Command) -> None:
    """Parse with click itself, and read the manifest with its overrides; in a sentence arguments may be missing."""
    words = [PLACEHOLDERS.get(word.strip("[]"), word.strip("[]") if command.inline else word) for word in command.words]
    name, arguments = words[1], [word for word in words[2:] if word]
    if name.startswith("-"):
        assert name in {option for param in group.params for option in param.opts} | {"-h", "--help"}, name
        return
    assert name in COMMANDS, f"there is no llmjobs {name}"
    found = group.get_command(click.Context(group), name)
    assert found is not None
    try:
        context = found.make_context(name, arguments)
    except click.exceptions.Exit:
        return
    except click.MissingParameter:
        assert command.inline, f"{command}: an argument is missing"
        return
    manifest = context.params.get("manifest") or context.params.get("model")
    if isinstance(manifest, str) and (manifest.endswith((".yaml", ".yml")) or "manifest" in context.params):
        load_manifest(manifest, context.params["overrides"])


def check_make(command: Command) -> None:
    """The target is there, and make knows how to reach it."""
    targets = [word for word in command.words[1:] if "=" not in word]
    run = subprocess.run(["make", "-n", *targets], cwd=ROOT, capture_output=True, text=True)
    assert targets and run.returncode == 0, run.stderr
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    for name in (word.split("=")[0] for word in command.words[1:] if "=" in word):
        assert f"$({name})" in text or f"$(or $({name})" in text, f"the Makefile does not look at {name}"


def check_docker(command: Command) -> None:
    """Flags are Docker's, files and build arguments are there, and what the entrypoint gets is a command of llmjobs."""
    verb, words = command.words[1], list(command.words[2:])
    assert verb in DOCKER_FLAGS, f"docker {verb}: add it to DOCKER_FLAGS after a look"
    flags: list[tuple[str, str]] = []
    while words and words[0].startswith("-"):
        flag, _, value = words.pop(0).partition("=")
        assert flag in DOCKER_FLAGS[verb], f"docker {verb} {flag}: add it to DOCKER_FLAGS after a look"
        flags.append((flag, value or (words.pop(0) if DOCKER_FLAGS[verb][flag] else "")))
    if verb == "build":
        given = dict(flags)
        assert IMAGES.get(given["-t"]) == given["-f"] and (ROOT / given["-f"]).is_file() and words == ["."]
        for name in (value.split("=")[0] for flag, value in flags if flag == "--build-arg"):
            assert re.search(rf"^ARG {name}\b", (ROOT / given["-f"]).read_text(), re.MULTILINE), name
    elif verb == "run" and words and words != ["…"]:
        assert words[0] in IMAGES, f"{words[0]} is no image that is built here"
        if "--entrypoint" not in dict(flags):
            check_entrypoint(command, words[1:])
    elif verb in {"compose", "exec"}:
        assert all((ROOT / value).is_file() for flag, value in flags if flag == "-f"), f"{flags}: no such file"
        assert verb == "exec" or words[0] in {"up", "down", "exec", "run", "ps", "logs"}, words
        if ENTRYPOINT in words:
            check_entrypoint(command, words[words.index(ENTRYPOINT) + 1 :])


def check_entrypoint(command: Command, words: Sequence[str]) -> None:
    """What an image's entrypoint gets: a command of llmjobs, or a word of the entrypoint's own."""
    own = re.findall(r'"(ray-[a-z]+)"', (ROOT / "docker" / "entrypoint.py").read_text(encoding="utf-8"))
    if words and words[0] not in own:
        check_llmjobs(Command(command.page, ("llmjobs", *words), inline=command.inline))


def check_kubectl(command: Command) -> None:
    """A verb of kubectl, and after ``--`` a command of llmjobs."""
    assert command.words[1] in {"apply", "exec", "get", "delete", "logs"}, command.words[1]
    if "--" in command.words:
        inside = command.words[command.words.index("--") + 1 :]
        assert inside[0] == "llmjobs", inside
        check_llmjobs(Command(command.page, inside))


def check_script(command: Command) -> None:
    """Bash can read it."""
    run = subprocess.run(["bash", "-n"], input=command.words[1], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def check_pip(command: Command) -> None:
    """Names and versions are those of the pins, extras those of pyproject.toml."""
    assert command.words[1] == "install"
    pins = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "docker").glob("requirements-*.txt"))
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for word in command.words[2:]:
        own = re.fullmatch(r"(?:llmjobs|\.)\[([\w,]+)\](?: @ .+)?", word)
        if own:
            assert set(own[1].split(",")) <= set(extras), f"pyproject.toml has no extra {own[1]}"
        elif not word.startswith("-"):
            assert re.search(rf"^{re.escape(word)}\b", pins, re.MULTILINE | re.IGNORECASE), (
                f"{word} is not what is pinned"
            )


def check_python(command: Command) -> None:
    """The script or module is there and its own parser takes the arguments."""
    words = list(command.words[1:])
    if words[:2] == ["-m", "pytest"]:
        assert all((ROOT / word).exists() for word in words[2:] if "/" in word)
        return
    module = words[1] if words[0] == "-m" else None
    path = Path(str(find_spec(module).origin)) if module else ROOT / words[0]  # type: ignore[union-attr]
    arguments = words[2:] if module else words[1:]
    assert path.is_file(), f"{path} is not there"
    if "argparse" not in path.read_text(encoding="utf-8"):
        assert not arguments, f"{path.name} takes no arguments"
        return
    parse_only(module, path, arguments)


def parse_only(module: str | None, path: Path, arguments: Sequence[str]) -> None:
    """Start a script, and leave it as soon as its parser has taken the arguments."""

    class Parsed(Exception):
        """It has."""

    def parse(self: argparse.ArgumentParser, args: Any = None, namespace: Any = None) -> None:
        with redirect_stderr(io.StringIO()) as said:
            try:
                whole(self, args, namespace)
            except SystemExit:
                raise AssertionError(said.getvalue()) from None
        raise Parsed

    whole = argparse.ArgumentParser.parse_args
    with (
        patch.object(argparse.ArgumentParser, "parse_args", parse),
        patch.object(sys, "argv", [path.name, *arguments]),
        patch.object(sys, "path", [str(path.parent), *sys.path]),
        suppress(Parsed),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", RuntimeWarning)  # the module may have been imported by another test
        run_module(module, run_name="__main__") if module else run_path(str(path), run_name="__main__")
        raise AssertionError(f"{path.name} never parsed its arguments")


def check_shell(command: Command) -> None:
    """The few things of a shell that the pages use."""
    known: dict[tuple[str, ...], Sequence[str]] = {
        ("mkdir", "-p", "results"): [],
        (".", ".venv/bin/activate"): [],
        ("bash", ".ci/run"): ["bash", "-n", str(ROOT / ".ci" / "run")],
        ("hf", "auth", "login"): [sys.executable, "-m", "huggingface_hub.cli.hf", "auth", "login", "--help"],
    }
    assert command.words in known, f"{command}: say here how it is checked"
    if known[command.words]:
        subprocess.run(known[command.words], check=True, capture_output=True)
