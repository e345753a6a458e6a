"""The talk itself: commands, pipes, Ctrl-C, what is shown."""

import io
import json
import sys

import pytest
from chat_fakes import FakeBackend

from llmjobs.chat.agent import Agent
from llmjobs.chat.store import ChatStore
from llmjobs.chat.terminal import EXIT_INTERRUPTED, PipeReader, Terminal, undisturbed, visible
from llmjobs.cli import main


class Lines:
    """A reader that returns lines, or raises the exceptions among them."""

    def __init__(self, *lines):
        self.lines = list(lines)

    def read(self):
        if not self.lines:
            raise EOFError
        line = self.lines.pop(0)
        if isinstance(line, type):
            raise line
        return line


@pytest.fixture
def talk(tmp_path, capsys):
    def run(*lines, backend=None, is_terminal=True, **options):
        agent = Agent(backend or FakeBackend(), **options)
        store = ChatStore.create(tmp_path, "t")
        store.begin({}, agent)
        code = Terminal(agent, store, Lines(*lines), is_terminal=is_terminal).run()
        store.close()
        out, err = capsys.readouterr()
        return code, agent, out, err

    return run


def test_answers_and_a_meter(talk):
    code, agent, out, err = talk("Hello.", "", "  ", "Again.")
    assert (code, out) == (0, "Noted.\nNoted.\n")
    assert "[turn 2 · 9 of 200 tokens sent, 0 reused · 1 new in" in err
    assert len(agent.messages) == 4


def test_the_commands(talk, tmp_path):
    file = tmp_path / "saved.json"
    code, agent, out, err = talk(
        "/help", "One.", "/history", "/tokens", "/strategy window", "/strategy", "/strategy wind", "/history off",
        "Two.", "/history maybe", "/history on", "/system Be brief.", "/system", f"/save {file}", "/undo", "/reset",
        "/undo", f"/load {file}", "/load nowhere.json", "/save", "/histroy", "//slash", "/exit", "never",
    )  # fmt: skip
    assert code == 0
    for said in (
        "/strategy [NAME]", "     user  One.", "the whole conversation: 8 of 200 tokens", "strategy: window",
        "'wind' is not one of none, full", "answered alone", "use /history on,", "saved 4 messages to", "1 left",
        "a new conversation", "there is nothing to undo", "loaded 4 messages from", "nowhere.json: cannot be read",
        "/save FILE: add the name of a file", "did you mean /history?",
    ):  # fmt: skip
        assert said in err, said
    assert agent.messages[-2].content == "/slash"
    assert agent.system == "Be brief."
    assert json.loads(file.read_text())["messages"][0] == {"role": "system", "content": "Be brief."}


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{}",
        "nonsense",
        '{"messages": [{"role": "user", "content": "x"}]}',
        "[" * 9999,
        '{"messages": [{"role": "user", "content": "\\ud800"}, {"role": "assistant", "content": "x"}]}',
    ],  # fmt: skip
)
def test_a_foreign_file_is_refused(talk, tmp_path, text):
    file = tmp_path / "x.json"
    file.write_text(text)
    _, agent, _, err = talk("One.", f"/load {file}")
    assert "llmjobs: " in err and len(agent.messages) == 2


def test_errors_are_one_line_and_the_talk_goes_on(talk):
    backend = FakeBackend(say=lambda sent: "" if sent[-1].content == "empty" else "Yes.")
    code, agent, out, err = talk("empty", "word " * 300, "Hello.", backend=backend)
    assert (code, out) == (0, "Yes.\n")
    assert err.count("llmjobs: ") == 2 and "Traceback" not in err
    code, *_ = talk("empty", "Hello.", backend=backend, is_terminal=False)
    assert code == 1, "from a pipe a failed turn shows in the exit code"


def interrupted_at(words: int):
    def answer(self, messages, sampling):
        for _ in range(words):
            yield "word "
        raise KeyboardInterrupt

    return type("Interrupted", (FakeBackend,), {"answer": answer})()


def test_ctrl_c_stops_an_answer_and_keeps_it(talk):
    code, agent, out, err = talk("Go.", backend=interrupted_at(3))
    assert code == 0
    assert agent.messages[-1].content == "word word word"
    assert "stopped" in err


def test_ctrl_c_before_the_first_word_forgets_the_message(talk):
    code, agent, out, err = talk("Go.", backend=interrupted_at(0))
    assert (code, agent.messages) == (0, [])
    assert "the message was discarded" in err


def test_ctrl_c_twice_leaves(talk):
    assert talk(KeyboardInterrupt, KeyboardInterrupt, "never")[0] == EXIT_INTERRUPTED
    code, agent, out, _ = talk("Go.", KeyboardInterrupt, "never", backend=interrupted_at(2))
    assert code == EXIT_INTERRUPTED and len(agent.messages) == 2


def test_a_file_is_written_whole_before_ctrl_c_counts():
    import os
    import signal

    done = []
    with pytest.raises(KeyboardInterrupt), undisturbed():
        os.kill(os.getpid(), signal.SIGINT)
        done.append(True)
    assert done


def test_control_characters_are_shown_not_obeyed():
    assert visible("a\x1b[2J\tb\n\u202e") == "a\\x1b[2J\tb\n\\x202e"


def test_a_pipe_gives_a_line_a_turn():
    reader = PipeReader(io.StringIO("one\r\ntwo"))
    assert [reader.read(), reader.read()] == ["one", "two"]
    with pytest.raises(EOFError):
        reader.read()


def test_bytes_that_are_no_text_do_not_end_a_conversation(talk):
    reader = PipeReader(io.TextIOWrapper(io.BytesIO(b"\xff\xfe one\n\0 two\nthree \xed\xa0\x80\n"), "utf-8"))
    lines = [reader.read(), reader.read(), reader.read(), "half \udcff\ud800", "/system \udcff", "/undo"]
    code, agent, out, err = talk(*lines)
    assert code == 0 and out == "Noted.\n" * 4
    assert all(message.content.encode() for message in agent.messages) and agent.system == "?"


def run(*arguments) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["chat", *map(str, arguments)])
    return ended.value.code


def test_once_a_pipe_and_a_manifest(tiny, tmp_path, capsys, monkeypatch):
    common = ["--results", tmp_path, "--max-new-tokens", 6]
    assert run(tiny, *common, "--once", "Hello.") == 0
    once = capsys.readouterr().out
    monkeypatch.setattr(sys, "stdin", io.StringIO("Hello.\n/tokens\n"))
    assert run(tiny, *common) == 0
    assert capsys.readouterr().out == once
    manifest = tmp_path / "talk.yaml"
    manifest.write_text(f"models: ['{tiny}']\nchat: {{max_new_tokens: 6, strategy: window}}\n")
    assert run(manifest, "--results", tmp_path, "--once", "Hello.") == 0
    assert capsys.readouterr().out == once
    assert (tmp_path / "talk/chat/001/records.jsonl").exists()
    assert run(tiny, *common, "--max-context", 9999, "--once", "Hello.") == 1
    assert "more than tiny's limit of 2,048 tokens" in capsys.readouterr().err
    assert run("--endpoint", "http://127.0.0.1:1/v1", *common) == 2
    assert run(*common, "--resume", "--conversation", 99) == 1


def test_the_demo_is_said_to_be_a_toy_with_lines_that_work(tmp_path, monkeypatch, capsys):
    from llmjobs.chat.start import KNOWN_LINES
    from llmjobs.cli import main

    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(KNOWN_LINES)))
    with pytest.raises(SystemExit) as ended:
        main(["chat", "llmjobs/demo-base", "--results", str(tmp_path)])
    out, err = capsys.readouterr()
    assert ended.value.code == 0
    assert "is a toy" in err and all(line in err for line in KNOWN_LINES)
    assert out.splitlines() == ["Noted.", "Your name is Ben.", "Noted.", "You live in Paris."]
