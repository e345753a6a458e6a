"""A chat template is a program: it renders as transformers renders it, and ends whatever it does."""

import datetime
import os
import time
from pathlib import Path
from typing import Any

import pytest
from jinja2 import TemplateError
from transformers import PreTrainedTokenizerFast
from transformers.utils.chat_template_utils import render_jinja_template

from llmjobs.chat.prompt import ChatPrompt
from llmjobs.demo import DEMO_MODELS
from llmjobs.engines import chat_template
from llmjobs.engines.chat_template import bound_template
from llmjobs.errors import LlmjobsError, ModelError
from llmjobs.prompt_format import PromptFormat

pytestmark = pytest.mark.usefixtures("new_interpreters")
MESSAGES = [
    {"role": "system", "content": "Be brief. ü 水 <b>"},
    {"role": "user", "content": "  Hi {{ 7 * 7 }}\n\n"},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": "And?"},
]
SOUND = (
    "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>\n{{ m.content | trim }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}",
    "{%- for m in messages -%}\n    {%- if loop.first %}{{ date_string }}{% endif %}\n  {{ m | tojson }}\n{% endfor %}",
    "{% for m in messages %}{% if m.role == 'system' %}{% continue %}{% endif %}{{ m['content'].strip() }}{% endfor %}",
)


def tokenizer(template: str) -> Any:
    made = PreTrainedTokenizerFast(
        tokenizer_file=str(DEMO_MODELS["demo-tiny"] / "tokenizer.json"), bos_token="<s>", eos_token="</s>"
    )
    made.chat_template = template
    return bound_template(made, "odd-model")


@pytest.mark.parametrize("template", SOUND, ids=range(len(SOUND)))
def test_a_sound_template_gives_what_transformers_gives(template: str) -> None:
    values = {"date_string": "26 Jul 2024"}
    made = tokenizer(template)
    (expected,), _ = render_jinja_template(
        [MESSAGES], chat_template=template, add_generation_prompt=True, **made.special_tokens_map, **values
    )
    assert made.apply_chat_template(MESSAGES, tokenize=False, add_generation_prompt=True, **values) == expected


@pytest.mark.parametrize(
    "template",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}{% endfor %}{% endfor %}"
        "{% endfor %}",
        "{% if messages[0].content == 'late' %}{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}"
        "{% endfor %}{% endif %}",
        "{{ 9 ** (9 ** 9) }}",
        "{{ 'x' * 10 ** 11 }}",
        "{{ '%0999999999999d' % 1 }}",
        "{{ 'x' | center(10 ** 11) }}",
        "{% set n = namespace(x='ab') %}{% for i in range(99) %}{% set n.x = n.x ~ n.x %}{% endfor %}{{ n.x }}",
        "{% set n = namespace(x=[1]) %}{% for i in range(99) %}{% set n.x = n.x + n.x %}{% endfor %}",
        "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}",
        "{{ 'abcdefgh' * 4000000 }}",
    ],
    ids=["loops", "loops-later", "power", "times", "format", "center", "doubling", "lists", "recursion", "long"],
)
def test_a_template_without_end_ends_in_one_line(template: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_template, "RENDER_S", 2.0)
    made, began = tokenizer(template), time.monotonic()
    with pytest.raises(ModelError, match="odd-model: its chat template") as caught:
        made.apply_chat_template([{"role": "user", "content": "late"}])
    assert "\n" not in str(caught.value)
    assert time.monotonic() - began < 60


REACHING = "{{ ''.__class__.__mro__[1].__subclasses__() }}"


def test_a_template_that_reaches_for_attributes_is_refused(tmp_path: Path) -> None:
    made = tokenizer(REACHING)
    with pytest.raises(TemplateError, match="unsafe"):
        made.apply_chat_template(MESSAGES)
    with pytest.raises(LlmjobsError, match="refuses these messages: access to attribute '__class__'"):
        ChatPrompt(made, warn=lambda _: None).text([])


def test_after_one_that_had_to_be_stopped_the_next_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_template, "RENDER_S", 1.0)
    loop = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    made = tokenizer("{% if messages[0].content == 'x' %}" + loop + "{% endif %}fine")
    with pytest.raises(ModelError):
        made.apply_chat_template([{"role": "user", "content": "x"}])
    assert made.apply_chat_template([{"role": "user", "content": "y"}]) == "fine"


DATED = "{% set d = strftime_now('%d %b %Y') %}{% for m in messages %}{{ d }} {{ m.content }}{% endfor %}"
CASE = Path(os.environ.get("LLMJOBS_SHARED", Path(__file__).parents[3] / "shared")) / "cases/templates"


def test_a_template_prints_the_date_that_it_is_given() -> None:
    made = tokenizer(DATED)
    asked = [{"role": "user", "content": "Hi"}]
    assert made.apply_chat_template(asked, date="2026-11-27") == "27 Nov 2026 Hi"
    assert made.apply_chat_template(asked, date="1999-12-31") == "31 Dec 1999 Hi"
    assert made.apply_chat_template(asked) == f"{datetime.date.today():%d %b %Y} Hi"
    found = PromptFormat(made, date=datetime.date(2026, 11, 27))
    assert found.render(asked) == "27 Nov 2026 Hi"
    assert found.to_record()["prompt_date"] == "2026-11-27"
    assert PromptFormat(tokenizer(SOUND[0]), date=datetime.date(2026, 11, 27)).to_record()["prompt_date"] is None


def test_the_date_is_told_as_the_templates_own_text() -> None:
    file = CASE / "prints_the_date.jinja"
    if not file.is_file():
        pytest.skip(f"no case at {file}: set LLMJOBS_SHARED to the folder that holds cases/")
    found = PromptFormat(tokenizer(file.read_text()), date=datetime.date(2026, 11, 27))
    assert found.render([{"role": "user", "content": "Hi"}]).count("Today Date: 27 Nov 2026") == 1
    assert found.to_record()["prompt_date"] == "2026-11-27"


def test_a_template_with_a_typing_error_is_told_apart_from_one_that_refuses() -> None:
    made = tokenizer("{% for m in messages %}\n{{ m.content }{% endfor %}")
    with pytest.raises(ModelError, match=r"odd-model: its chat template is not valid Jinja \(line 2: unexpected '}'\)"):
        PromptFormat(made, who="odd-model")


def test_what_python_says_of_a_template_is_told_without_its_class() -> None:
    made = tokenizer("{{ 1 + 'a' }}")
    with pytest.raises(ModelError, match="its chat template cannot be used: ") as caught:
        made.apply_chat_template(MESSAGES)
    assert "TypeError" not in str(caught.value)
