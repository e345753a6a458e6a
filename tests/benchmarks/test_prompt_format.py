"""BOS once, thinking as asked, one date: what a chat template does is found out and decided in one place."""

import datetime
from typing import Any

import pytest
from tiny_models import CHAT_TEMPLATE, tiny_tokenizer

from llmjobs.errors import ModelError
from llmjobs.prompt_format import PromptFormat
from llmjobs.thinking import KNOWN, ThinkingFilter, split_reply

USER = [{"role": "user", "content": "Who?"}]
QWEN3 = (
    "{%- for message in messages %}{%- if message.role == 'assistant' %}{%- set content = message.content %}"
    "{%- if '</think>' in content %}{%- set content = content.split('</think>')[-1].lstrip('\\n') %}{%- endif %}"
    "{{- '<|im_start|>assistant\\n' + content + '<|im_end|>\\n' }}{%- else %}"
    "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}"
    "{%- endif %}"
)
QWEN35 = QWEN3.replace(
    "{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}",
    "{{- '<think>\\n\\n</think>\\n\\n' }}{%- else %}{{- '<think>\\n' }}{%- endif %}",
)
DEEPSEEK_R1 = (
    "{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}{{ bos_token }}"
    "{%- for message in messages %}{%- if message['role'] == 'user' %}{{'<｜User｜>' + message['content']}}{%- endif %}"
    "{%- if message['role'] == 'assistant' %}{% set content = message['content'] %}{% if '</think>' in content %}"
    "{% set content = content.split('</think>')[-1] %}{% endif %}"
    "{{'<｜Assistant｜>' + content + '<｜end▁of▁sentence｜>'}}{%- endif %}{%- endfor -%}"
    "{% if add_generation_prompt %}{{'<｜Assistant｜><think>\\n'}}{% endif %}"
)
R1_AS_FIRST_PUBLISHED = DEEPSEEK_R1.replace("<｜Assistant｜><think>\\n", "<｜Assistant｜>")
EMPTY_BLOCK = CHAT_TEMPLATE.replace("<|assistant|>\n{% endif %}", "<|assistant|>\n<think>\n\n</think>\n\n{% endif %}")
GRANITE = CHAT_TEMPLATE.replace(
    "{{ bos_token }}",
    "{{ bos_token }}{% if thinking %}<|system|>\nWrite your thoughts between <think></think>.\n{% endif %}",
)
GPT_OSS = (
    "{% for m in messages %}{{ '<|start|>' + m.role + '<|message|>' + m.content + '<|end|>' }}{% endfor %}"
    "{# <|channel|>analysis<|message|> and <|channel|>final<|message|> #}"
    "{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)
EXAONE = CHAT_TEMPLATE.replace("<|assistant|>\n{% endif %}", "<|assistant|>\n<thought>\n{% endif %}")
APRIEL = CHAT_TEMPLATE.replace("<|assistant|>\n{% endif %}", "<|assistant|>\nHere are my reasoning steps:\n{% endif %}")
GEMMA4 = (
    "{{ bos_token }}{% if enable_thinking is defined and enable_thinking %}<|turn>system\n<|think|><turn|>\n{% endif %}"
    "{% for m in messages %}{{ '<|turn>' + m.role + '\\n' + m.content + '<turn|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|turn>model\\n' }}{% if not enable_thinking | default(false) %}"
    "{{ '<|channel>thought\\n<channel|>' }}{% endif %}{% endif %}"
)
THINKS_OF_ITS_OWN = "<|assistant|>\n<|my_thoughts|>{% endif %}"


def form(template: str, thinking: Any = "off", **how: Any) -> PromptFormat:
    return PromptFormat(tiny_tokenizer(template=template), who="odd", thinking=thinking, **how)


@pytest.mark.parametrize(
    ("template", "end", "how"),
    [
        (QWEN3, "assistant\n<think>\n\n</think>\n\n", "off (enable_thinking=false)"),
        (QWEN35, "assistant\n<think>\n\n</think>\n\n", "off (enable_thinking=false)"),
        (DEEPSEEK_R1, "<｜Assistant｜><think>\n\n</think>\n\n", "off (closed block)"),
        (R1_AS_FIRST_PUBLISHED, "<｜Assistant｜><think>\n\n</think>\n\n", "off (closed block)"),
        (EMPTY_BLOCK, "<|assistant|>\n<think>\n\n</think>\n\n", "off (closed by the template)"),
        (GRANITE, "<|assistant|>\n", "off (thinking=false)"),
        (GPT_OSS, "<|start|>assistant<|channel|>final<|message|>", "off (closed block)"),
        (EXAONE, "<|assistant|>\n<thought>\n\n</thought>\n\n", "off (closed block)"),
        (APRIEL, "<|assistant|>\nHere are my reasoning steps:\n\n[BEGIN FINAL RESPONSE]\n\n", "off (closed block)"),
        (GEMMA4, "<|turn>model\n<|channel>thought\n<channel|>", "off (enable_thinking=false)"),
        (CHAT_TEMPLATE, "<|assistant|>\n", "none"),
    ],
)
def test_off_is_true_of_the_rendered_prompt(template: str, end: str, how: str) -> None:
    found = form(template)
    assert found.render(USER).endswith(end)
    assert found.render([{"role": "user", "content": "a <think> about it"}]).endswith(end)
    assert found.thinking == how
    found.check_scoring("mmlu")


@pytest.mark.parametrize("template", [QWEN3, QWEN35, DEEPSEEK_R1, GRANITE, EXAONE, APRIEL, GEMMA4])
def test_options_are_never_scored_inside_the_thinking(template: str) -> None:
    found = form(template, "on")
    assert found.thinking.startswith("on")
    with pytest.raises(ModelError, match="odd: mmlu scores the options .* set thinking: off"):
        found.check_scoring("mmlu")


def test_what_cannot_be_closed_or_opened_is_refused() -> None:
    for end in (
        THINKS_OF_ITS_OWN,
        "<|assistant|>\nLet me think about this:\n{% endif %}",
        "<|open|>think<|sep|>{% endif %}",
    ):
        for thinking in ("off", "on"):
            with pytest.raises(ModelError, match="looks like the beginning of the model's thinking"):
                form(CHAT_TEMPLATE.replace("<|assistant|>\n{% endif %}", end), thinking)
    off = CHAT_TEMPLATE.replace("<|assistant|>\n{% endif %}", "<|assistant|>\n<|no_think|>{% endif %}")
    assert form(off).thinking == "none"
    with pytest.raises(ModelError, match="closes the thinking in every prompt"):
        form(EMPTY_BLOCK, 256)
    with pytest.raises(ModelError, match="finds no thinking block"):
        form(CHAT_TEMPLATE, "on")


def test_gemma_4_thinks_in_a_channel_of_its_own() -> None:
    found = form(GEMMA4, "on")
    assert found.thinking == "on (enable_thinking=true)"
    text = "<|channel>thought\nA or B?<channel|>B it is"
    reply = found.split(found.tokenizer(text, add_special_tokens=False)["input_ids"], text)
    assert (reply.thinking, reply.answer) == ("A or B?", "B it is")


@pytest.mark.parametrize("template", [QWEN35, DEEPSEEK_R1])
def test_a_reply_is_read_behind_its_thinking(template: str) -> None:
    found = form(template, "on")
    assert found.begins_thinking
    ids = found.tokenizer("Is it A? Question: no.\n</think>\n\nB. Question: C", add_special_tokens=False)["input_ids"]
    reply = found.split(ids, found.tokenizer.decode(ids), stop=("Question:",))
    assert (reply.thinking, reply.answer) == ("Is it A? Question: no.", "B.")
    assert 0 < reply.tokens < len(ids)
    unfinished = found.tokenizer("Is it A? Perhaps B.", add_special_tokens=False)["input_ids"]
    assert found.split(unfinished, found.tokenizer.decode(unfinished)).answer == ""


@pytest.mark.parametrize("template", [QWEN3, QWEN35])
def test_blank_lines_behind_the_thinking_end_no_answer(template: str) -> None:
    found = form(template, "on")
    text = "<think>\nIs it A?\n</think>\n\nParis\nQuestion: next"
    text = text.removeprefix("<think>\n") if found.begins_thinking else text
    ids = found.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert found.split(ids, found.tokenizer.decode(ids), stop=("\n",)).answer == "Paris"


def test_a_reply_that_does_not_think_ends_at_its_stop() -> None:
    found = form(QWEN3, "on")
    ids = found.tokenizer("Paris\nQuestion: next", add_special_tokens=False)["input_ids"]
    reply = found.split(ids, found.tokenizer.decode(ids), stop=("\n",))
    assert (reply.thinking, reply.answer) == (None, "Paris")


def test_replies_in_pieces() -> None:
    for whole, answer in [
        ("<think>\nA or B?\n</think>\n\nB it is", "B it is"),
        ("B it is", "B it is"),
        ("  <b>B</b>", "  <b>B</b>"),
        ("<think>never closed", ""),
    ]:
        for size in (1, 3, 100):
            shown = ThinkingFilter()
            pieces = [shown.add(whole[at : at + size]) for at in range(0, len(whole), size)]
            assert "".join([*pieces, shown.end()]) == answer
        assert split_reply(whole).answer == answer
    assert split_reply("A or B?</think>B").thinking == "A or B?", "the server's template opened it"
    for marks in KNOWN:
        assert split_reply(f"{marks.open}x{marks.close}y", marks=marks).answer == "y"


BOS_AS_TEXT = CHAT_TEMPLATE.replace("{{ bos_token }}", "<s>")


@pytest.mark.parametrize("template", [CHAT_TEMPLATE, BOS_AS_TEXT, "\n" + BOS_AS_TEXT, CHAT_TEMPLATE[15:]])
@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("adds", [True, False])
def test_bos_is_there_once(template: str, named: bool, adds: bool) -> None:
    tokenizer = tiny_tokenizer(bos=adds, template=template)
    if not named:  # the tokenizer adds it all the same
        tokenizer.bos_token = None
    found = PromptFormat(tokenizer)
    text = found.render(USER)
    trained_with_it = adds or "<s>" in text
    assert found.encode(text).count(0) == int(trained_with_it)
    assert PromptFormat(tokenizer, uses_template=False).encode("Who?").count(0) == int(adds)


def test_bos_that_a_tokenizer_promises_and_leaves_out_is_added() -> None:
    tokenizer = tiny_tokenizer(bos=False)
    tokenizer.__dict__["_add_bos_token"] = True
    assert PromptFormat(tokenizer, uses_template=False).encode("Who?")[0] == 0


QWEN25 = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are Qwen, a helpful assistant.<|im_end|>\n{% endif %}"
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def test_a_templates_own_system_message_is_told() -> None:
    tokenizer = tiny_tokenizer(template=QWEN25)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    found = PromptFormat(tokenizer)
    assert found.added_text() == "You are Qwen, a helpful assistant."
    assert found.added_text("Be brief.") == ""
    assert PromptFormat(tiny_tokenizer()).added_text() == ""
    assert PromptFormat(tiny_tokenizer()).added_text("Be brief.") == ""


def test_a_template_that_drops_the_system_message_gets_it_in_the_first_one() -> None:
    dropping = (
        "{% for m in messages %}{% if m.role != 'system' %}<|{{ m.role }}|>{{ m.content }}{% endif %}{% endfor %}"
    )
    found = form(dropping)
    assert not found.takes_system
    assert found.with_system("Be brief.", USER) == [{"role": "user", "content": "Be brief.\n\nWho?"}]


def test_the_date_is_told_only_where_it_is_printed() -> None:
    assert form(CHAT_TEMPLATE, date=datetime.date(2026, 11, 27)).to_record()["prompt_date"] is None
