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


def test_without_ray_one_line_says_how_to_get_it(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("llmjobs.cluster.local_or_cluster.find_spec", lambda name: None)
    with pytest.raises(SystemExit) as ended:
        main(["eval", "smoke", "--ray", "auto", "--results", str(tmp_path)])
    err = capsys.readouterr().err
    assert ended.value.code == 1
    assert err.splitlines()[-1] == "llmjobs: --ray needs the ray package; run pip install 'llmjobs[ray]'"


def test_without_the_option_ray_is_not_imported():
    code = (
        "import sys\nsys.modules['ray'] = None  # an import of it fails\n"
        "import llmjobs.cli\nllmjobs.cli.main(['eval', 'smoke', '--dry-run'])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
