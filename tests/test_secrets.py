"""Planted keys: in no file, no line, no traceback, no argument, and no child that does not need them."""

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from llmjobs.cli import main
from llmjobs.errors import LlmjobsError
from llmjobs.machine.child import run_child
from llmjobs.redaction import HUB_TOKENS, SafeFormatter, holds_secret, redacted, without_secrets
from llmjobs.work.run import one_line

PLANTED = {
    "HF_TOKEN": "hf_PlantedHubToken0123456789",
    "OPENAI_API_KEY": "sk-PlantedJudgeKey0123456789",
    "MY_JUDGE": "planted-by-another-name-42",
    "DB_PASSWORD": "planted/pass:word+42",
}


@pytest.fixture(autouse=True)
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in PLANTED.items():
        monkeypatch.setenv(name, value)
    holds_secret("MY_JUDGE")


def leaks(text: str) -> list[str]:
    """Which keys appear in a text, or a large part of one."""
    return [name for name, value in PLANTED.items() if value[:14] in text or value[-12:] in text]


ALL = " | ".join(PLANTED.values())


def test_values_are_taken_out_of_texts_of_any_kind() -> None:
    assert leaks(ALL) == list(PLANTED), "the check itself sees them"
    assert not leaks(redacted(f"Bearer {ALL}!"))
    assert not leaks(str(LlmjobsError(f"wrong key {ALL}")))
    assert not leaks(one_line(ValueError(f"b'Bearer {ALL}'")))
    assert redacted("see https://me:secret@host/x and ftp://token@host") == "see https://…@host/x and ftp://…@host"
    assert redacted("mail me@host, 3 / 4, a://b/c@d") == "mail me@host, 3 / 4, a://b/c@d"


def test_short_values_and_other_variables_do_not_garble_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHORT_KEY", "the")
    monkeypatch.setenv("HF_TOKEN_PATH", "/run/secrets/hf")
    assert redacted("the token (from /run/secrets/hf)") == "the token (from /run/secrets/hf)"


def test_a_key_that_begins_another_leaves_no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", "planted-abcdef")
    monkeypatch.setenv("B_KEY", "planted-abcdef-and-more")
    assert redacted("x planted-abcdef-and-more y") == "x … y"


def test_the_token_of_the_hubs_file_counts_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.delenv("HF_TOKEN")
    (tmp_path / "token").write_text("hf_from_a_file_0123456789\n")
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    assert "hf_from_a_file" not in str(LlmjobsError("token hf_from_a_file_0123456789"))


def test_log_lines_and_their_tracebacks() -> None:
    try:
        raise RuntimeError(f"header {ALL}\x1b]52;c;QQ==\x07")
    except RuntimeError:
        record = logging.LogRecord("x", logging.ERROR, "f", 1, "said %s", (ALL,), sys.exc_info())
    text = SafeFormatter("%(message)s").format(record)
    assert "Traceback" in text and "\x1b" not in text and "\\x1b]52" in text
    assert not leaks(text)


CHILD = """
import os
from pathlib import Path
from llmjobs.machine.child import serve
def act(task, reporter):
    parent = Path(f"/proc/{os.getppid()}/cmdline").read_text()
    reporter.report(environment=dict(os.environ), arguments=Path("/proc/self/cmdline").read_text() + parent)
    raise ValueError("failed with " + task["secret"])
serve(act)
"""


@pytest.mark.parametrize("kept", [(), HUB_TOKENS])
def test_children_get_what_they_need_and_no_argument(tmp_path: Path, kept: tuple[str, ...]) -> None:
    (tmp_path / "tells_all.py").write_text(CHILD)
    ended = run_child("tells_all", {"secret": ALL}, environment={"PYTHONPATH": str(tmp_path)}, secrets=kept)
    told = ended.lines[0]
    assert [name for name in PLANTED if name in told["environment"]] == (["HF_TOKEN"] if kept else [])
    assert not leaks(told["arguments"])
    assert ended.error is not None
    here = str(ended.error) + ended.stderr_tail
    assert "failed with" in here
    assert not leaks(redacted(here))
    assert "PATH" in without_secrets()


class Quoting(BaseHTTPRequestHandler):
    """An endpoint that refuses and quotes the key that it was sent, in body, header and reason."""

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        key = self.headers["authorization"]
        body = json.dumps({"error": {"message": f"Incorrect API key provided: {key}"}}).encode()
        self.send_response(401, f"no {key}")
        self.send_header("x-error-message", f"no {key}")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def quoting() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Quoting)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("verbose", [True, False])
def test_whole_commands_that_fail_in_every_way(
    tmp_path: Path, quoting: str, capfd: pytest.CaptureFixture[str], verbose: bool
) -> None:
    manifest = tmp_path / "m.yaml"
    manifest.write_text(
        f"models:\n  - {{id: remote, endpoint: '{quoting}', api_key_env: OPENAI_API_KEY}}\n"
        "  - {id: /nowhere/model, name: gone}\n"
        "converse: {conversations: 1, distances: [1], strategies: [full], models: [remote]}\n"
        "eval: {benchmarks: [demo]}\n"
    )
    results = tmp_path / "results"
    for command in (
        ["converse", manifest, "--results", results],
        ["eval", manifest, "--results", results],
        [
            "chat",
            "--endpoint",
            quoting,
            "--model",
            "x",
            "--api-key-env",
            "MY_JUDGE",
            "--results",
            results,
            "--once",
            "Hi.",
        ],
        ["chat", "--endpoint", f"http://me:{PLANTED['DB_PASSWORD']}@127.0.0.1:1/v1", "--model", "x", "--once", "Hi."],
        ["manifest", manifest],
        ["eval", manifest, "--set", f"models[0].quantization={PLANTED['OPENAI_API_KEY']}"],
        ["report", tmp_path / PLANTED["MY_JUDGE"]],
        ["nonsense", PLANTED["HF_TOKEN"]],
    ):
        with pytest.raises(SystemExit) as ended:
            main([*(["-v"] if verbose else []), *map(str, command)])
        assert ended.value.code != 0 or command[0] == "manifest"
    out, err = capfd.readouterr()
    assert "Incorrect API key provided" in out + err and "401" in out + err
    assert not leaks(out + err), err
    written = {p: p.read_bytes() for p in results.rglob("*") if p.is_file()}
    assert any(p.name == "error.json" for p in written) and any(p.name == "environment.json" for p in written)
    assert not [p for p, data in written.items() if leaks(data.decode("utf-8", "replace")) or leaks(str(p))]


def test_an_unexpected_exception_with_a_key_in_it(capfd: pytest.CaptureFixture[str], monkeypatch) -> None:
    import llmjobs.cli as command

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError(f"Illegal header value b'Bearer {ALL}'")

    monkeypatch.setattr(command.benchmarks_command, "callback", fail)
    with pytest.raises(SystemExit):
        main(["-v", "benchmarks"])
    text = capfd.readouterr().err
    assert "Traceback" in text and "Illegal header value" in text
    assert not leaks(text)


def test_no_file_of_the_repository_holds_a_key() -> None:
    """What looks like a real token, in any file that git knows."""
    root = Path(__file__).parents[1]
    listed = subprocess.run(["git", "ls-files"], cwd=root, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("no git checkout: its files are not searched")
    pattern = (
        r"hf_[A-Za-z0-9]{34}([^A-Za-z0-9]|$)|sk-(proj-|ant-)?[A-Za-z0-9_-]{40,}|AKIA[0-9A-Z]{16}|ghp_[A-Za-z0-9]{36}"
    )
    found = subprocess.run(["git", "grep", "-nIE", pattern], cwd=root, capture_output=True, text=True)
    assert found.stdout == ""
