"""Models behind a server in an eval: replies, log-likelihoods where they are proven, kills, limits, one-line errors."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from endpoint_stand_in import HONEST, Server, likeliest, logprob, running

from llmjobs.calls.retry import RetryPolicy
from llmjobs.cli import main
from llmjobs.eval import job as eval_job
from llmjobs.manifest import load_manifest
from llmjobs.prepare.doctor_network import check_endpoints
from llmjobs.prepare.doctor_result import Checkup
from llmjobs.work.journal import read_records

QUESTIONS = 24


@pytest.fixture
def server() -> Iterator[Server]:
    with running() as one:
        yield one


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RetryPolicy, "wait_s", lambda *_: 0.0)


def study(folder: Path, url: str, *, options: tuple[str, ...] | None = None, **settings: Any) -> Path:
    """Questions asked by letter, with whole options, and with a free reply."""
    rows = [
        {"question": f"What is {n}?", "answer": "A", "a": "one word", "b": f"two {n}", "c": "three", "text": "one"}
        for n in range(QUESTIONS)
    ]
    (folder / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    plain = {"file": "q.jsonl", "question": "question", "answer": "answer"}
    every = {
        "letters": plain | {"name": "letters", "choices": ["a", "b", "c"]},
        "replies": plain | {"name": "replies", "answer": "text"},
    }
    model = {"model": "toy", "name": "toy", "endpoint": url, "chat_template": False, **settings.pop("model", {})}
    section = {"benchmarks": [every[name] for name in options or every], **settings}
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump({"models": [model], "eval": section}))
    return path


def run(path: Path, results: Path, *arguments: str, expect: int = 0) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["eval", str(path), "--results", str(results), *arguments])
    assert ended.value.code == expect


def found(results: Path, name: str) -> list[dict[str, Any]]:
    return list(read_records(next(results.rglob(f"{name}*/records.jsonl"))))


def records(results: Path) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in results.rglob("records.jsonl")}


def described(results: Path) -> dict[str, Any]:
    return dict(json.loads((results / "study/eval/toy/model.json").read_text()))


@pytest.mark.parametrize(
    ("can", "chat", "way"),
    [
        ({"echo", "top_logprobs"}, False, "echo"),
        ({"prompt_logprobs", "top_logprobs"}, False, "prompt_logprobs"),
        ({"prompt_logprobs", "top_logprobs"}, True, "prompt_logprobs"),
        ({"top_logprobs"}, False, "top_logprobs"),
        ({"top_logprobs"}, True, "top_logprobs"),
    ],
)
def test_each_way_gives_the_servers_own_values(tmp_path, server, can, chat, way):
    server.can = can
    path = study(tmp_path, server.url, model={"chat_template": chat})
    run(path, tmp_path / "r")
    model = described(tmp_path / "r")
    assert model["scoring_path"] == model["probe"]["path"] == way
    assert model["probe"]["max_difference"] is not None
    assert (model["engine"], model["device"], model["dtype"]) == ("endpoint", "server", "unknown")
    letters = found(tmp_path / "r", "letters")
    assert [one["status"] for one in letters] == ["ok"] * QUESTIONS
    if not chat:
        prompt = next(body["prompt"] for _, body in server.requests if "What is 0?" in body.get("prompt", ""))
        prompt = prompt[: prompt.index("Answer:") + len("Answer:")]
        expected = [logprob(prompt, f" {letter}") for letter in "ABC"]
        assert letters[0]["loglikelihoods"] == pytest.approx(expected, abs=1e-6)
    replies = found(tmp_path / "r", "replies")
    assert all(one["new_tokens"] for one in replies) and sum(bool(one["text"]) for one in replies) > QUESTIONS / 2
    unit = json.loads(next((tmp_path / "r").rglob("letters*/unit.json")).read_text())
    assert unit["effective"]["scoring_path"] == way and unit["fingerprint"]["endpoint"] == server.url


def test_a_kill_and_more_calls_at_once_change_no_byte_and_pay_nothing_twice(tmp_path, server, monkeypatch):
    run(study(tmp_path, server.url), tmp_path / "whole")
    paid = len(server.requests)
    path = study(tmp_path, server.url, endpoints={"toy": {"concurrency": 4}})
    server.requests.clear()
    with monkeypatch.context() as patch:
        for work in (eval_job.LoglikelihoodWork, eval_job.GenerationWork):
            step = work.step

            def stops(self, index, step=step):
                made = step(self, index)
                if index:
                    raise RuntimeError("killed before the step is saved")
                return made

            patch.setattr(work, "step", stops)
        run(path, tmp_path / "broken", expect=3)
    assert records(tmp_path / "broken") != records(tmp_path / "whole")
    run(path, tmp_path / "broken")
    assert records(tmp_path / "broken") == records(tmp_path / "whole")
    questions = [json.dumps(body) for _, body in server.requests if "What is" in str(body)]
    repeated = len(questions) - len(set(questions))
    assert repeated <= 12, "the probe alone may ask again"
    assert len(server.requests) <= paid + 12


@pytest.mark.parametrize("status", [500, 400])
def test_a_failed_call_is_no_answer_and_is_asked_again(tmp_path, server, capsys, status):
    run(study(tmp_path, server.url), tmp_path / "whole")
    path = study(tmp_path, server.url)
    server.fails = [lambda text: status if "What is 20?" in text else None]
    run(path, tmp_path / "r", expect=3)
    for name in ("letters", "replies"):
        failed = found(tmp_path / "r", name)[20]
        assert (failed["status"], failed["temporary"], failed["correct"]) == ("error", True, None)
    assert f"the server answered {status}" in capsys.readouterr().out
    server.fails, before = [], len(server.requests)
    run(path, tmp_path / "r")
    assert records(tmp_path / "r") == records(tmp_path / "whole")
    asked = [body for _, body in server.requests[before:] if "What is" in str(body)]
    assert {"What is 20?" in str(body) for body in asked if "max_tokens" in body and body.get("stream")} == {True}


def test_a_server_that_answers_nothing_is_given_up(tmp_path, server, capsys):
    server.fails = [lambda text: 500]
    path = study(tmp_path, server.url, options=("replies",))
    run(path, tmp_path / "r", expect=3)
    assert "3 questions in a row had no answer" in capsys.readouterr().out
    server.fails = []
    run(path, tmp_path / "r")


def test_a_server_that_refuses_every_question_is_asked_all_and_again(tmp_path, server, capsys):
    server.fails = [lambda text: 400]
    path = study(tmp_path, server.url, options=("replies",))
    run(path, tmp_path / "r", expect=3)
    assert [one["status"] for one in found(tmp_path / "r", "replies")] == ["error"] * QUESTIONS
    server.fails = []
    run(path, tmp_path / "r")
    assert {one["status"] for one in found(tmp_path / "r", "replies")} == {"ok"}


def test_a_spending_limit_stops_and_a_raised_one_goes_on(tmp_path, server, capsys):
    limited = {"endpoints": {"toy": {"price": {"prompt": 1.0, "completion": 2.0}}}, "options": ("replies",)}
    path = study(tmp_path, server.url, spending={"tokens": 400}, **limited)
    run(path, tmp_path / "r", expect=3)
    out = capsys.readouterr().out
    assert "raise eval.spending.tokens" in out and "paid answers are kept" in out
    done = len(server.requests)
    assert 0 < done < QUESTIONS
    run(study(tmp_path, server.url, spending={"tokens": 100_000}, **limited), tmp_path / "r")
    assert len(server.requests) == QUESTIONS
    assert "24 calls" in capsys.readouterr().out


def test_an_option_that_is_not_listed_is_not_scored_and_is_no_zero(tmp_path, server, capsys):
    server.can, server.most_top = {"top_logprobs"}, 5
    run(study(tmp_path, server.url, options=("letters",)), tmp_path / "r", expect=3)
    rows = found(tmp_path / "r", "letters")
    unscored = [one for one in rows if one["status"] == "error"]
    assert unscored and all(one["correct"] is None and one["loglikelihoods"] is None for one in unscored)
    for at, one in enumerate(rows):
        if one["status"] == "ok":
            asked = next(b["prompt"] for _, b in server.requests if f"What is {at}?" in b.get("prompt", ""))
            listed = dict(likeliest(asked, 5))
            assert all(f" {letter}" in listed for letter in "ABC")
    assert "not all options are among the 5 likeliest next tokens" in capsys.readouterr().out


REFUSED = [
    ({"can": set()}, "no log-probabilities that can be trusted"),
    ({"lies": "nan", "can": {"echo", "top_logprobs"}}, "are not numbers"),
    ({"lies": "constant", "can": {"echo"}}, "do not change with the answer"),
    ({"lies": "contradicts", "can": {"echo", "top_logprobs"}}, "contradict its own generation"),
]


@pytest.mark.parametrize(("server_has", "says"), REFUSED)
def test_what_is_not_proven_gives_no_score(tmp_path, server, capsys, server_has, says):
    for name, value in server_has.items():
        setattr(server, name, value)
    if server_has.get("lies") == "contradicts":
        server.most_top = 5
    run(study(tmp_path, server.url), tmp_path / "r", expect=3)
    out = capsys.readouterr().out
    line = next(line for line in out.splitlines() if line.startswith("failed:"))
    assert says in line and "generate_until" in line
    assert len(found(tmp_path / "r", "replies")) == QUESTIONS, "generation goes on without log-probabilities"
    assert not list((tmp_path / "r").rglob("letters*/records.jsonl")) or not found(tmp_path / "r", "letters")


WRONG = [
    ((200, "application/json", b""), {}, "sent nothing"),
    ((200, "text/html", b"<html>hello</html>"), {}, "a web page"),
    ((200, "text/event-stream", b"data: [DONE]\n\n"), {}, "ended before the answer did"),
    (None, {"model": "other"}, "answered 404 (the model other does not exist)"),
    (None, {"api_key_env": "TOY_KEY"}, "answered 401 (invalid key)"),
    (None, {"endpoint": "http://127.0.0.1:9/v1"}, "cannot be reached"),
]


@pytest.mark.parametrize(("whole_body", "model", "says"), WRONG)
def test_a_server_that_cannot_be_used_is_one_line(tmp_path, server, capsys, monkeypatch, whole_body, model, says):
    monkeypatch.setenv("TOY_KEY", "wrong-key")
    server.whole_body = whole_body
    run(study(tmp_path, server.url, model=model), tmp_path / "r", expect=3)
    captured = capsys.readouterr()
    lines = [line for line in captured.out.splitlines() if line.startswith("failed:")]
    assert lines and all(says in line for line in lines), captured.out
    assert "Traceback" not in captured.out + captured.err and "wrong-key" not in captured.out + captured.err


def test_what_another_server_can_is_another_run(tmp_path, server, capsys, monkeypatch):
    path = study(tmp_path, server.url, options=("letters",))
    with monkeypatch.context() as patch:
        step = eval_job.LoglikelihoodWork.step
        patch.setattr(eval_job.LoglikelihoodWork, "step", lambda self, at: 1 / 0 if at else step(self, at))
        run(path, tmp_path / "r", expect=3)
    server.can = {"top_logprobs"}
    run(path, tmp_path / "r", expect=1)
    assert "scoring_path was 'echo' and is now 'top_logprobs'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "message",
    [{"content": "<think>\none two\n</think>\n\none\nmore"}, {"reasoning_content": "one two", "content": "one\nmore"}],
)
def test_thinking_is_read_by_the_one_module_and_is_no_part_of_the_answer(tmp_path, server, message):
    body = {"message": {"role": "assistant", **message}, "finish_reason": "stop", "index": 0}
    server.whole_body = (200, "application/json", json.dumps({"choices": [body]}).encode())
    run(
        study(tmp_path, server.url, options=("replies",), model={"chat_template": True, "thinking": 100}),
        tmp_path / "r",
    )
    one = found(tmp_path / "r", "replies")[0]
    assert (one["thinking"], one["text"], one["new_tokens"], one["correct"]) == ("one two", "one", None, True)
    asked = server.requests[-1][1]
    assert asked["max_tokens"] > 100 and "stop" not in asked
    assert asked["chat_template_kwargs"] == {"enable_thinking": True, "thinking": True}


def choice_of(server: Server, finish: str | None, content: str | None) -> None:
    body = {"message": {"role": "assistant", "content": content}, "finish_reason": finish, "index": 0}
    server.whole_body = (200, "application/json", json.dumps({"choices": [body]}).encode())


@pytest.mark.parametrize(("finish", "content"), [("stop", ""), ("stop", None), ("length", " ")])
def test_an_answer_without_text_is_wrong_and_marked(tmp_path, server, capsys, finish, content):
    choice_of(server, finish, content)
    run(study(tmp_path, server.url, options=("replies",), model={"chat_template": True}), tmp_path / "r")
    assert {(one["status"], one["correct"]) for one in found(tmp_path / "r", "replies")} == {("unparsed", False)}
    assert len(server.requests) == QUESTIONS
    summary = json.loads(next((tmp_path / "r").rglob("summary.json")).read_text())["eval"]
    assert summary["models"][0]["empty"] == QUESTIONS
    assert f"toy: {QUESTIONS} answers without any text, counted as wrong" in capsys.readouterr().out


@pytest.mark.parametrize(("finish", "content"), [(None, None), (None, ""), ("error", ""), ("abort", "one")])
def test_an_answer_that_the_server_did_not_complete_is_no_answer(tmp_path, server, finish, content):
    choice_of(server, finish, content)
    run(study(tmp_path, server.url, options=("replies",), model={"chat_template": True}), tmp_path / "r", expect=3)
    assert not any(
        one["status"] != "error" for path in (tmp_path / "r").rglob("records.jsonl") for one in read_records(path)
    )


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ({"quantization": "4bit"}, "quantization is set when the server is started"),
        ({"engine": "transformers"}, "engine: transformers runs a model on this machine"),
    ],
)
def test_settings_of_a_model_here_are_refused(tmp_path, server, capsys, model, says):
    run(study(tmp_path, server.url, model=model), tmp_path / "r", expect=2)
    assert says in capsys.readouterr().err


def test_the_plan_counts_calls_tokens_and_cost_and_asks_nothing(tmp_path, server, capsys):
    price = {"toy": {"price": {"prompt": 1000.0, "completion": 2000.0}}}
    path = study(tmp_path, server.url, endpoints=price)
    with pytest.raises(SystemExit) as ended:
        main(["plan", str(path), "--results", str(tmp_path / "r"), "--json"])
    assert ended.value.code == 0 and not server.requests
    plan = json.loads(capsys.readouterr().out)["endpoints"][0]
    assert plan["calls"] == QUESTIONS * 3 + QUESTIONS
    assert plan["cost"] == pytest.approx(plan["prompt_tokens"] / 1000 + plan["new_tokens"] / 500, abs=1e-3)


@pytest.mark.parametrize(
    ("can", "status", "says"),
    [(HONEST, "ok", "log-likelihoods by echo"), (set(), "warning", "without log-likelihoods")],
)
def test_the_doctor_says_which_way_works(tmp_path, server, can, status, says):
    server.can = set(can)
    found = load_manifest(study(tmp_path, server.url))
    check = next(iter(check_endpoints(Checkup(found, tmp_path))))
    assert (check.status, says in check.line) == (status, True), check.line


def test_the_doctor_names_a_server_that_is_not_there(tmp_path):
    check = next(iter(check_endpoints(Checkup(load_manifest(study(tmp_path, "http://127.0.0.1:9/v1")), tmp_path))))
    assert check.status == "failed" and "cannot be reached" in check.line


@pytest.mark.parametrize("option", ["letters", "replies"])
def test_a_rule_that_stops_the_questions_pays_for_no_other_one(server, tmp_path, option):
    path = study(tmp_path, server.url, options=(option,), stop={"precision": 14})
    lines = (tmp_path / "q.jsonl").read_text()
    (tmp_path / "q.jsonl").write_text("".join(lines.replace("What is", f"What is {n} and") for n in range(10)))
    run(path, tmp_path / "r")
    (race,) = json.loads((tmp_path / "r/study/summary.json").read_text())["eval"]["stop"]["races"]
    assert race["decided"] and race["asked"] < race["population"] == 10 * QUESTIONS
    asked = {number for _, body in server.requests for number in re.findall(r"What is (\d+ and \d+)", json.dumps(body))}
    assert len(found(tmp_path / "r", option)) == race["asked"] == len(asked)
    before = len(server.requests)
    run(path, tmp_path / "r")
    assert not [body for _, body in server.requests[before:] if "What is" in json.dumps(body)]
