"""A budget of thinking is its own: what is thought beyond it is ended, and the answer keeps all of its tokens."""

import pytest
from test_eval_generation import records_of, run, write_study
from transformers import AutoTokenizer

from llmjobs.thinking import Marks, ThinkingCount, ThinkingLimit

MARKS = Marks("<think>", "</think>")
CUT = tuple(map(ord, "\n</think>\n\n"))


def follow(text: str, *, begun: bool, tokens: int, answer: int) -> tuple[str, bool]:
    """Let a model that would write ``text`` (one character per token) write it; return the reply."""
    count = ThinkingCount(ThinkingLimit(MARKS, begun, tokens, answer, CUT), lambda ids: "".join(map(chr, ids)))
    said = ""
    for chosen in text:
        if count.is_full:
            break
        written = count.written()
        token = ord(chosen) if written is None else written
        count.add(token)
        said += chr(token)
    return said, count.was_cut


def test_thinking_that_ends_by_itself_is_left_alone():
    assert follow("I see.</think>B it is", begun=True, tokens=50, answer=2) == ("I see.</think>B ", False)
    assert follow("<think>so</think>B it is", begun=False, tokens=50, answer=4) == ("<think>so</think>B it", False)


def test_thinking_beyond_its_tokens_is_ended_and_the_answer_has_its_own():
    said, was_cut = follow("x" * 200, begun=True, tokens=30, answer=5)
    assert was_cut
    assert said == "x" * (30 - len(CUT)) + "\n</think>\n\n" + "x" * 5
    assert follow("x" * 200, begun=True, tokens=1, answer=3) == ("\n</think>\n\nxxx", True)
    assert follow("<think>" + "x" * 200, begun=False, tokens=30, answer=1)[0].endswith("\n</think>\n\nx")


def test_a_reply_without_thinking_has_no_more_than_its_own_tokens():
    assert follow("B it is, I am sure", begun=False, tokens=1000, answer=4) == ("B it", False)


@pytest.mark.parametrize("budget", [1, 40])
def test_a_model_that_never_stops_thinking_answers(llama, tmp_path, budget, capsys):
    folder = tmp_path / "thinker"
    folder.mkdir()
    for file in llama.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ m.content.split('</think>')[-1] }}\n{% endfor %}"
        "{% if add_generation_prompt %}Model: <think>\n{% endif %}"
    )
    study = write_study(tmp_path, folder, "generate_until", ["Which?", "What?"], chat_template=True, thinking=budget)
    run("eval", study, "--results", tmp_path / "r")
    cut = len(AutoTokenizer.from_pretrained(llama)("\n</think>\n\n", add_special_tokens=False)["input_ids"])
    for record in records_of(tmp_path / "r"):
        assert record["thinking_cut"] is True
        assert record["thinking_tokens"] <= max(budget, cut)
        assert record["text"] and record["new_tokens"] <= max(budget, cut) + 32
    assert "the thinking reached its limit and was cut off on 2 questions" in "".join(capsys.readouterr())
