"""Chat templates, written as those of published models are. What they give was computed by
transformers 5.24 (`apply_chat_template`).
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from minigrad.errors import ConfigError
from minigrad.text import tokenizer_from_state
from tests.text.test_published_tokenizer import sentence_piece, with_template

for package in ("tokenizers", "jinja2"):
    pytest.importorskip(package)

TURNS = [
    {"role": "system", "content": " Be <b>brief</b>. "},
    {"role": "user", "content": "Tom & 'Ü'?\n"},
    {"role": "assistant", "content": ""},
]
CALL = {"name": "f", "arguments": {"b": "<ü>", "a": 1}}
CALLED = [
    {"role": "user", "content": "x"},
    {"role": "assistant", "content": None, "tool_calls": [{"function": CALL}]},
]
TOOLS = [{"name": "f", "about": "<b> & 'c' ü", "args": {"z": [1], "a": None}}]

LLAMA_3 = """{{- bos_token }}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}
{%- set date = strftime_now("%Y") if strftime_now is defined else "2024" %}
{%- if tools is not none %}
    {%- for t in tools %}
        {{- t | tojson(indent=4) + "\\n\\n" }}
    {%- endfor %}
{%- endif %}
{%- for m in messages %}
    {{- '<|start|>' + m.role + '<|end|>' + m['content'] | trim + '<|eot|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start|>assistant<|end|>' + (date | length | string) }}
{%- endif %}
"""
QWEN = """{%- if tools %}
    {{- '<tools>' }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
{%- endif %}
{%- for message in messages %}
    {%- if message.tool_calls %}
        {{- '<|im_start|>' + message.role }}
        {%- if message.content is defined %}
            {{- message.content }}
        {%- endif %}
        {%- for call in message.tool_calls %}
            {{- '\\n{"arguments": ' ~ (call.function.arguments | tojson) ~ '}' }}
        {%- endfor %}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content }}
    {%- endif %}
    {{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt and enable_thinking is defined and enable_thinking is false %}
    {{- '<think></think>' }}
{%- endif %}"""
SMOL_3 = """{# a remark #}
{%- set mode = "none" -%}
{%- for m in messages -%}
    {%- if m.role == "assistant" -%}
        {% generation %}
        {%- set mode = "/think" -%}
            {{ mode + "<|im_start|>" + m.content + "<|im_end|>\\n" }}
        {% endgeneration %}
    {%- else -%}
    {{ "<|im_start|>" + m.role + mode + "\\n" }}
    {%- endif -%}
{%- endfor -%}
{{ mode }}"""
ZEPHYR = """{% for m in messages %}
{% if m['role'] == 'user' %}
{{ '<|user|>
' + m['content'] + eos_token }}
    {% generation %}
  b
    {%- endgeneration +%}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}
"""
MISTRAL = """{%- set ns = namespace(n=0) %}
{%- for m in messages if m.role == "user" %}
    {%- set ns.n = ns.n + 1 %}
    {%- if tools is not none and loop.last %}
        {%- for k, v in tools[0].items() if k != "name" %}
            {{- '"' + k + '": ' + v|tojson }}
            {%- if not loop.last %}{{ ", " }}{% endif %}
        {%- endfor %}
    {%- endif %}
{%- endfor %}
{{- bos_token ~ ns.n ~ (messages[-1].tool_calls | tojson(sort_keys=true))[:-1] }}
{{- ("<" | e) ~ (messages[0] | tojson(ensure_ascii=true, separators=(",", ":"))) }}"""
NAMES = """{{ bos_token }} {{ eos_token }} {{ pad_token }} {{ unk_token is defined }}
{{ sep_token is defined }} {{ tools is none and documents is none }} {{ x | default("y") }}"""
EXPECTED: list[Any] = [
    (
        LLAMA_3,
        TURNS,
        {},
        "<s><|start|>system<|end|>Be <b>brief</b>.<|eot|><|start|>user<|end|>Tom & 'Ü'?"
        "<|eot|><|start|>assistant<|end|><|eot|><|start|>assistant<|end|>4",
    ),
    (
        LLAMA_3,
        TURNS,
        {"answer": False, "tools": TOOLS},
        "<s>{\n"
        '    "name": "f",\n'
        '    "about": "<b> & \'c\' ü",\n'
        '    "args": {\n'
        '        "z": [\n'
        "            1\n"
        "        ],\n"
        '        "a": null\n'
        "    }\n"
        "}\n"
        "\n"
        "<|start|>system<|end|>Be <b>brief</b>.<|eot|><|start|>user<|end|>Tom & 'Ü'?"
        "<|eot|><|start|>assistant<|end|><|eot|>",
    ),
    (
        QWEN,
        TURNS,
        {"enable_thinking": False},
        "<|im_start|>system\n"
        " Be <b>brief</b>. <|im_end|>\n"
        "<|im_start|>user\n"
        "Tom & 'Ü'?\n"
        "<|im_end|>\n"
        "<|im_start|>assistant\n"
        "<|im_end|>\n"
        "<think></think>",
    ),
    (
        QWEN,
        CALLED,
        {"tools": TOOLS},
        "<tools>\n"
        '{"name": "f", "about": "<b> & \'c\' ü", "args": {"z": [1], "a": null}}<|im_start|>user\n'
        "x<|im_end|>\n"
        "<|im_start|>assistant\n"
        '{"arguments": {"b": "<ü>", "a": 1}}<|im_end|>\n',
    ),
    (
        SMOL_3,
        TURNS,
        {},
        "<|im_start|>systemnone\n<|im_start|>usernone\n/think<|im_start|><|im_end|>\n\nnone",
    ),
    (ZEPHYR, TURNS, {}, "<|user|>\nTom & 'Ü'?\n</s>\n  b\n<|assistant|>\n"),
    (ZEPHYR, TURNS[:2], {"answer": False}, "<|user|>\nTom & 'Ü'?\n</s>\n  b\n"),
    (
        MISTRAL,
        CALLED,
        {},
        '<s>1[{"function": {"arguments": {"a": 1, "b": "'
        '<ü>"}, "name": "f"}}&lt;{"role":"user","content":"x"}',
    ),
    (
        MISTRAL,
        CALLED,
        {"tools": TOOLS},
        '"about": "<b> & \'c\' ü", "args": {"z": [1], "a": null}'
        '<s>1[{"function": {"arguments": {"a": 1, "b": "'
        '<ü>"}, "name": "f"}}&lt;{"role":"user","content":"x"}',
    ),
    (NAMES, TURNS, {}, "<s> </s> </s> True\nFalse True y"),
]


def tokenizer(template: str) -> Any:
    found = sentence_piece(unknown_token_id=0, padding_token_id=2)
    found.template = template
    return found


@pytest.mark.parametrize(
    ("template", "messages", "variables", "expected"), EXPECTED, ids=range(len(EXPECTED))
)
def test_a_template_gives_what_transformers_gives(
    template: str, messages: Any, variables: dict[str, Any], expected: str
) -> None:
    assert tokenizer(template).chat(messages, **variables) == expected


def test_a_template_may_ask_for_the_date(monkeypatch: Any) -> None:
    class Then(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Then:
            return cls(2025, 3, 4, tzinfo=tz)

    monkeypatch.setattr("minigrad.text.published.datetime", Then)
    assert tokenizer('{{ strftime_now("%d-%m-%Y") }}').chat(TURNS) == "04-03-2025"


def test_a_variable_that_the_template_does_not_read_is_refused() -> None:
    with pytest.raises(ConfigError, match="reads no 'enable_thinkin'"):
        tokenizer(QWEN).chat(TURNS, enable_thinkin=False)


@pytest.mark.parametrize("messages", ["hello", TURNS[0], [TURNS]])
def test_messages_that_are_no_dicts_are_refused(messages: Any) -> None:
    with pytest.raises(ConfigError, match="message must be a dict with role and content, got"):
        tokenizer(QWEN).chat(messages)


@pytest.mark.parametrize(
    "bad",
    [
        "{{ 1 | tojson(default=raise_exception) }}",
        "{{ range | tojson }}",
        "{{ strftime_now(1) }}",
        "{{ strftime_now.__globals__['json'] }}",
        "{% generation %}",
    ],
)
def test_what_a_template_must_not_do_is_a_config_error(bad: str) -> None:
    with pytest.raises(ConfigError, match="template fails"):
        tokenizer(bad).chat(TURNS)


def test_the_names_of_special_tokens_go_with_the_state() -> None:
    named = tokenizer(NAMES)
    state = named.state()
    assert tokenizer_from_state(state).chat(TURNS) == named.chat(TURNS)  # type: ignore[attr-defined]
    del state["names"]  # as in a run of before
    older: Any = tokenizer_from_state(state)
    assert older.chat(TURNS).splitlines()[0] == "<s> </s>  False"


def test_a_special_token_that_a_file_does_not_name_is_undefined() -> None:
    lacking = with_template("{{ bos_token is defined }} {{ eos_token }}")
    assert lacking.bos is None and lacking.chat(TURNS) == "False <|end|>"
