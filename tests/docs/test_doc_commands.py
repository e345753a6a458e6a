"""Every command in the documentation is valid: names, options, manifests, targets, files.

Those of llmjobs that are whole are run besides (``test_doc_commands_run.py``, slow), those of adding-a-benchmark.md by
the test of its example. A command that belongs to no class here fails.
"""

import re
from collections.abc import Callable

import pytest
from command_checks import (
    check_docker,
    check_kubectl,
    check_llmjobs,
    check_make,
    check_pip,
    check_python,
    check_script,
    check_shell,
)
from doc_commands import PAGES, ROOT, Command, all_commands, commands_in, unlabelled_commands

EXAMPLE = "docs/adding-a-benchmark.md"
CLASSES: dict[str, Callable[[Command], None]] = {
    "llmjobs": check_llmjobs,
    "make": check_make,
    "docker": check_docker,
    "pip": check_pip,
    "python": check_python,
    "mkdir": check_shell,
    ".": check_shell,
    "bash": check_shell,
    "hf": check_shell,
    "kubectl": check_kubectl,
    "script": check_script,
}


@pytest.mark.parametrize("command", all_commands(), ids=str)
def test_it_could_run(command: Command) -> None:
    assert command.words[0] in CLASSES, f"{command}: no class says how it is tested"
    if (command.page, command.words[0]) != (EXAMPLE, "llmjobs"):
        CLASSES[command.words[0]](command)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_command_hides(page: object) -> None:
    hidden = unlabelled_commands(page)  # type: ignore[arg-type]
    assert not hidden, f"put them into a block of sh: {hidden}"


def test_brackets_are_quoted() -> None:
    """The shell of macOS takes a bare bracket for a pattern and refuses the command."""
    for path in [*PAGES, *(ROOT / "manifests").glob("*.yaml")]:
        bare = re.findall(r"--set [^'\"\s]*\[\S*", path.read_text(encoding="utf-8"))
        assert not bare, f"{path.name}: quote {bare}"


BROKEN = {
    "llmjobs evaluate manifests/demo.yaml": "there is no llmjobs evaluate",
    "llmjobs eval manifests/demo.yaml --limits 3": "No such option",
    "llmjobs eval manifests/none.yaml": "cannot be read",
    "llmjobs eval manifests/demo.yaml --set eval.num_fewshot=3": "unknown key",
    "llmjobs eval": "an argument is missing",
    "llmjobs chat --strategy windows": "is not one of",
    "make nothing-of-this-name": "No rule",
    "make setup TORCH=x": "does not look at TORCH",
    "docker run --rn llmjobs:cpu eval manifests/smoke.yaml": "--rn",
    "docker run --rm llmjobs:gpu eval manifests/smoke.yaml": "no image",
    "docker run --rm llmjobs:cpu evl manifests/smoke.yaml": "there is no llmjobs evl",
    "docker build -f Dockerfile.cpu --build-arg TORCH=x -t llmjobs:cpu .": "TORCH",
    "pip install lm_eval==0.0.1": "not what is pinned",
    "pip install 'llmjobs[everything]'": "no extra",
    "python benchmarks/none.py": "is not there",
    "python -m demo_training.train --speed 3": "unrecognized",
    "mkdir -p elsewhere": "say here",
    "docker compose -f docker/none.yaml up -d": "no such file",
    "docker exec CONTAINER llmjobs-entrypoint evl demo": "there is no llmjobs evl",
    "kubectl exec pod -- llmjobs eval manifests/none.yaml": "cannot be read",
    "curl -O x": "no class",
}


@pytest.mark.parametrize("line", BROKEN)
def test_a_broken_command_is_found(line: str) -> None:
    (command,) = commands_in("page", line)
    with pytest.raises(Exception, match=re.escape(BROKEN[line])):
        test_it_could_run(command)
