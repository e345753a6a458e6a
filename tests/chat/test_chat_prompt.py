"""Messages into tokens: templates and the plain form, byte for byte; never two BOS; ends and stops."""

import pytest
from transformers import AutoTokenizer

from llmjobs.chat.messages import Message
from llmjobs.chat.prompt import ChatPrompt
from llmjobs.demo import DEMO_MODELS
from llmjobs.errors import ModelError

TALK = (Message("system", "Be brief."), Message("user", "Hello."), Message("assistant", "Hi."), Message("user", "Who?"))


@pytest.fixture
def tokenizer():
    return AutoTokenizer.from_pretrained(DEMO_MODELS["demo-base"])


def test_the_template_is_used_with_one_bos(tokenizer):
    prompt = ChatPrompt(tokenizer)
    ids = prompt.encode(TALK)
    assert prompt.form == "template"
    assert prompt.text(TALK).startswith("<|bos|><|system|> Be brief.<|end|><|user|> Hello.")
    assert list(ids) == tokenizer.apply_chat_template(
        [m.to_builtin() for m in TALK], add_generation_prompt=True, return_dict=False
    )
    assert ids.count(tokenizer.bos_token_id) == 1
    assert prompt.end_ids == {tokenizer.convert_tokens_to_ids("<|end|>")}
    assert prompt.stops == ()


def test_a_template_without_bos_gets_the_tokenizers_own(tokenizer):
    tokenizer.chat_template = tokenizer.chat_template.replace("{{ bos_token }}", "")
    assert ChatPrompt(tokenizer).encode(TALK).count(tokenizer.bos_token_id) == 1


def test_the_plain_form(tokenizer):
    said = []
    tokenizer.chat_template = None
    prompt = ChatPrompt(tokenizer, said.append)
    assert prompt.text(TALK) == "Be brief.\n\nUser: Hello.\nAssistant: Hi.\nUser: Who?\nAssistant:"
    assert prompt.text(TALK[1:]) == "User: Hello.\nAssistant: Hi.\nUser: Who?\nAssistant:"
    assert prompt.encode(TALK).count(tokenizer.bos_token_id) == 1
    assert prompt.stops == ("\nUser:",)
    prompt.encode(TALK[1:])
    assert len(said) == 1 and "no chat template" in said[0]


GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{% for m in messages %}{{ '<|' + m['role'] + '|> ' + m['content'] + '<|end|>' }}{% endfor %}"
)


def test_a_template_without_system_role_gets_it_in_the_first_message(tokenizer):
    said = []
    tokenizer.chat_template = GEMMA
    prompt = ChatPrompt(tokenizer, said.append)
    assert "<|user|> Be brief.\n\nHello.<|end|>" in prompt.text(TALK)
    assert "no system role" in said[0]


def test_a_template_that_drops_the_system_message_in_silence_is_noticed(tokenizer):
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m['role'] != 'system' %}{{ m['content'] }}{% endif %}{% endfor %}"
    )
    assert "Be brief." in ChatPrompt(tokenizer, lambda _: None).text(TALK)


def test_turns_marked_by_plain_text_stop_at_the_users_mark(tokenizer):
    tokenizer.chat_template = (
        "{% for m in messages %}{{ '### ' + m['role'] + ': ' + m['content'] + '\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '### assistant:' }}{% endif %}"
    )
    assert ChatPrompt(tokenizer).stops == ("### user:",)


def test_a_template_that_refuses_is_one_line(tokenizer):
    tokenizer.chat_template = "{{ raise_exception('no\\nway') }}"
    prompt = ChatPrompt(tokenizer, lambda _: None)
    with pytest.raises(ModelError, match="refuses these messages: no way"):
        prompt.text(TALK)
