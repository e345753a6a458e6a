"""A conversation on disk continues after a resume at any moment as if it had not been interrupted."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from chat_fakes import FakeBackend, load_backend

from llmjobs.chat.agent import Agent
from llmjobs.chat.backend import Sampling
from llmjobs.chat.store import ChatStore
from llmjobs.cli import main
from llmjobs.errors import FingerprintError, LockedError, RunFolderError
from llmjobs.work import checkpoint
from llmjobs.work.journal import read_records

SAID = [f"My name is {name}." for name in ("Ana", "Ben", "Cara", "Dan", "Eva")]
SETTINGS = {"model": "m", "revision": None, "endpoint": None}


def make(backend, strategy="full"):
    return Agent(backend, strategy=strategy, max_context=96, sampling=Sampling(8, 1.0), seed=3)


def hold(store, agent, said):
    for message in said:
        agent.ask(message)
        store.turn(agent)
    store.close()


@pytest.mark.parametrize("strategy", ["window", "summary"])
def test_resumed_after_each_turn_the_rest_is_the_same(tiny, tmp_path, strategy):
    whole = ChatStore.create(tmp_path / "whole", "t")
    agent = make(load_backend(tiny), strategy)
    whole.begin(SETTINGS, agent)
    hold(whole, agent, SAID)
    parts = ChatStore.create(tmp_path / "parts", "t")
    agent = make(load_backend(tiny), strategy)
    parts.begin(SETTINGS, agent)
    parts.close()
    for message in SAID:
        store = ChatStore.resume(tmp_path / "parts", "t")
        agent = make(load_backend(tiny), strategy)
        store.restore(agent)
        hold(store, agent, [message])
    assert parts.folder.records.read_bytes() == whole.folder.records.read_bytes()


def test_what_was_not_saved_is_cut_off(fake, tmp_path):
    store = ChatStore.create(tmp_path, "t")
    agent = Agent(fake)
    store.begin(SETTINGS, agent)
    hold(store, agent, ["One."])
    with store.folder.records.open("ab") as stream:
        stream.write(b'{"turn":2,"role":"user","content":"tor')
    again = ChatStore.resume(tmp_path, "t")
    restored = Agent(fake)
    again.restore(restored)
    assert [m.content for m in restored.messages] == ["One.", "Noted."]
    hold(again, restored, ["Two."])
    assert [r.get("content") for r in read_records(store.folder.records)][1:] == ["One.", "Noted.", "Two.", "Noted."]


@pytest.mark.parametrize("damage", ["missing", "garbage"])
def test_the_journal_alone_is_enough(fake, tmp_path, damage, caplog):
    store = ChatStore.create(tmp_path, "t")
    agent = Agent(fake)
    store.begin(SETTINGS, agent)
    hold(store, agent, ["One.", "Two."])
    for path in store.folder.path.glob("checkpoint.pkl*"):
        path.unlink() if damage == "missing" else path.write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with store.folder.records.open("ab") as stream:
        stream.write(b'{"turn":3,"role":"user","content":"half a turn"}\n')
    timings = store.folder.timings.read_bytes()
    with store.folder.timings.open("ab") as stream:
        stream.write(b'{"turn":3,"ttft_s":1.0}\n{"tur')
    again = ChatStore.resume(tmp_path, "t")
    restored = Agent(fake)
    again.restore(restored)
    assert timings and again.folder.timings.read_bytes() == timings
    again.close()
    assert [m.content for m in restored.messages] == ["One.", "Noted.", "Two.", "Noted."]
    assert "random numbers start over" in caplog.text


def test_events_are_replayed(fake, tmp_path):
    store = ChatStore.create(tmp_path, "t")
    agent = Agent(fake)
    store.begin(SETTINGS, agent)
    for message in ("One.", "Two."):
        agent.ask(message)
        store.turn(agent)
    agent.undo()
    store.note(agent, "undo")
    store.note(agent, "settings", history=False)
    assert [m.content for m in store.messages()] == ["One.", "Noted."]
    store.note(agent, "reset")
    assert store.messages() == []
    store.note(agent, "load", messages=[{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}])
    assert [m.content for m in store.messages()] == ["x", "y"]
    assert store.settings() == {**SETTINGS, "history": False}
    store.close()


def test_another_model_and_a_second_process_are_refused(fake, tmp_path):
    store = ChatStore.create(tmp_path, "t")
    store.begin(SETTINGS, Agent(fake))
    with pytest.raises(FingerprintError, match="model was 'm' and is now 'other'"):
        store.check({**SETTINGS, "model": "other"})
    with pytest.raises(LockedError):
        ChatStore.resume(tmp_path, "t")
    store.close()
    with pytest.raises(RunFolderError, match="no conversation 7 to resume"):
        ChatStore.resume(tmp_path, "t", 7)
    with pytest.raises(RunFolderError, match="no a conversation|no conversation"):
        ChatStore.resume(tmp_path, "empty")


@pytest.mark.slow
def test_killed_with_sigkill_the_rest_is_what_it_would_have_been(tiny, tmp_path, monkeypatch, capsys):
    options = ["chat", str(tiny), "--temperature", "1", "--max-new-tokens", "8", "--results"]

    def run(results, said, *more):
        monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(said) + "\n"))
        with pytest.raises(SystemExit) as ended:
            main([*options, str(tmp_path / results), *more])
        assert ended.value.code == 0

    run("whole", SAID)
    command = [sys.executable, "-m", "llmjobs", *options, str(tmp_path / "cut")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    process.stdin.write("\n".join(SAID[:3]) + "\n")
    process.stdin.flush()
    records = tmp_path / "cut/chat/chat/001/records.jsonl"
    while not records.exists() or records.read_bytes().count(b"\n") < 5:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    saved = checkpoint.load(records.with_name("checkpoint.pkl")).state["records_bytes"]
    asked = records.read_bytes()[:saved].count(b'"role":"user"')
    assert 0 < asked < len(SAID)
    run("cut", SAID[asked:], "--resume")
    assert records.read_bytes() == (tmp_path / "whole/chat/chat/001/records.jsonl").read_bytes()


def test_no_key_is_written(tmp_path, monkeypatch):
    monkeypatch.setenv("CHAT_KEY", "sk-planted-secret")
    from llmjobs.chat.start import identity
    from llmjobs.manifest.models import ModelSpec

    spec = ModelSpec(id="x", name="x", endpoint="http://127.0.0.1:9", api_key_env="CHAT_KEY")
    store = ChatStore.create(tmp_path, "t")
    store.begin(identity(spec), Agent(FakeBackend()))
    store.close()
    found = b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
    assert b"CHAT_KEY" in found and b"sk-planted-secret" not in found
    assert json.loads(store.folder.records.read_text().splitlines()[0])["spec"]["api_key_env"] == "CHAT_KEY"
    shutil.rmtree(tmp_path / "t")
