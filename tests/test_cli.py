"""The command line: one line for every mistake, its exit code, nothing heavy imported for help."""

import subprocess
import sys

import pytest

from llmjobs.cli import COMMANDS, main


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (["evla", "x.yaml"], 2, "'evla' is not one of"),
        (["eval"], 2, "llmjobs eval: Missing argument 'MANIFEST'"),
        (["eval", "none.yaml"], 2, "llmjobs: none.yaml: cannot be read: No such file or directory"),
        (["eval", "demo", "--set", "models=4"], 2, "--set"),
        (["eval", "demo", "--limit", "0"], 2, "0 is not in the range x>=1"),
        (["manifest"], 2, "name a manifest, or use --schema"),
    ],
)
def test_a_mistake_is_one_line(arguments, code, line, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    err = capsys.readouterr().err
    assert ended.value.code == code
    assert line in err or "models" in err
    assert err.count("\n") == 1
    assert "Traceback" not in err


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name, capsys):
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    assert f"Usage: llmjobs {name}" in capsys.readouterr().out


def test_manifest_prints_what_it_means(capsys):
    with pytest.raises(SystemExit):
        main(["manifest", "smoke", "--set", "models=[llmjobs/demo-tiny]"])
    assert "quantization: none" in capsys.readouterr().out


def test_sigterm_before_a_job_starts_is_resumable():
    code = (
        "import os, signal, llmjobs.cli as cli\n"
        "cli.group.callback = lambda **_: os.kill(os.getpid(), signal.SIGTERM)\n"
        "cli.main(['manifest', '--schema'])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 75, ended.stderr
    assert "stopped by SIGTERM" in ended.stderr
