"""Memory: what a kill by the kernel changes in an eval, what a person's does not, and a model that cannot fit."""

import json
import os
import signal
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "crash"))
from crash_jobs import differences, play, played_once, records_of, state_of, tell_to
from faults import in_child

from llmjobs.cli import main
from llmjobs.eval.job import LoglikelihoodWork
from llmjobs.work import checkpoint, memory_kills
from llmjobs.work.journal import read_records

UNIT = "eval/eval/tiny/demo.odd_one_out"


@pytest.fixture(scope="module")
def small():
    with played_once("eval") as found:
        yield found


@pytest.fixture
def attempt(small, tmp_path):
    """Run the small eval with a given kernel count; die in a batch of the second unit if requested."""
    job = small[0]

    def run(count: int | None, dies_in: int | None = None) -> tuple[int, str]:
        told = tmp_path / "told"
        told.write_text("")

        def child() -> int:
            tell_to(told)
            play()
            memory_kills.own_oom_kills = lambda: None if count is None else ("group", count)
            memory_kills.oom_kills = lambda: count
            step = LoglikelihoodWork.step

            def step_or_die(work, index):
                if dies_in == index and UNIT.endswith(work.task.data.subject):
                    os.kill(os.getpid(), signal.SIGKILL)
                return step(work, index)

            LoglikelihoodWork.step = step_or_die
            code = job.work(tmp_path / "r")
            sys.stdout.flush()
            return code

        return in_child(child), told.read_text()

    return run


def records(results: Path) -> list[dict]:
    return read_records(results / UNIT / "records.jsonl")


def test_a_persons_kills_change_nothing(attempt, small, tmp_path):
    for _ in range(3):
        assert attempt(7, dies_in=1)[0] == -signal.SIGKILL
    code, told = attempt(7)
    assert code == 0 and "ran out of memory" not in told
    assert differences(state_of(tmp_path / "r"), small[1]) == []


def test_a_kill_for_memory_halves_the_batch_aloud_and_the_answers_stay(attempt, small, tmp_path):
    assert attempt(7, dies_in=1)[0] == -signal.SIGKILL
    code, told = attempt(8)
    assert code == 0, told
    assert f"{UNIT.removeprefix('eval/')}: the last attempt ran out of memory" in told
    limit = checkpoint.read(tmp_path / "r" / UNIT / "checkpoint.pkl")["state"]["token_limit"]
    assert f"continuing with at most {limit:,} tokens a batch" in told
    model = json.loads((tmp_path / "r/eval/eval/tiny/model.json").read_text())
    assert model["token_limit"] == limit < model["batch_tokens"]
    opened = [line for line in read_records(tmp_path / "r" / UNIT / "timings.jsonl") if line["phase"] == "open"][-1]
    assert (opened["memory_kills"], opened["token_limit"]) == (1, limit)
    summary = json.loads((tmp_path / "r/eval/summary.json").read_text())["eval"]["models"][0]
    assert summary["memory_kills"] == 1
    whole = {name: data for name, data in small[1].items() if name.endswith("records.jsonl")}
    assert whole.keys() == records_of(tmp_path / "r").keys()
    before = [json.loads(line) for line in whole[f"{UNIT}/records.jsonl"].splitlines()]
    for ours, theirs in zip(records(tmp_path / "r"), before, strict=True):
        assert ours["prediction"] == theirs["prediction"]
        assert ours["loglikelihoods"] == pytest.approx(theirs["loglikelihoods"], abs=1e-5)


def test_killed_again_and_again_it_says_so_in_the_end(attempt, tmp_path):
    for count in range(12):
        code, told = attempt(count, dies_in=1)
        if code >= 0:
            break
    assert code == 3, "it ended by itself"
    assert "ran out of memory even with the smallest batch and was killed; use quantization: 4bit" in told
    assert 4 <= count <= 10, "halved each time, down to one token"


def test_a_model_that_cannot_fit_is_refused_before_it_is_loaded(tmp_path, monkeypatch, capsys):
    from llmjobs.engines.transformers import fits_in_memory

    manifest = tmp_path / "m.yaml"
    manifest.write_text(
        "models: [{id: llmjobs/demo-base, name: big, dtype: float32, device: cpu}]\n"
        "eval: {benchmarks: [{name: demo, subjects: [letters], limit: 1}], threads: 1}\n"
    )
    monkeypatch.setattr(fits_in_memory, "memory_bytes", lambda: 2_000_000)
    monkeypatch.setattr(fits_in_memory, "GIB", 1_000_000)
    with pytest.raises(SystemExit) as ended:
        main(["eval", str(manifest), "--results", str(tmp_path / "r")])
    assert ended.value.code == 3
    said = capsys.readouterr()
    line = next(line for line in said.err.splitlines() if "does not fit" in line)
    assert "big: does not fit: its weights take 3.8 GiB as float32, and cpu has 2.0 GiB in all" in line
    assert "quantization: 8bit takes" in line and line.endswith("nothing was loaded")
