#!/usr/bin/env python3
"""Writes templates.json: what Jinja itself renders for chat templates and conversations.

Usage: make_template_golden.py SHARED_DIR (needs jinja2). Templates of models are read from SHARED_DIR and only
their outputs are stored; the templates below were written for this test and are stored with their outputs.
"""

import json
import pathlib
import sys

import jinja2
import jinja2.ext
import jinja2.sandbox

DATE = "26 Jul 2024"
HERE = pathlib.Path(__file__).parent

MODEL_TEMPLATES = [
    "tokenizers/llama3/tokenizer_config.json",
    "tokenizers/qwen2/tokenizer_config.json",
    "tokenizers/qwen2/qwen3_tokenizer_config.json",
    "models/tessera-tiny/tokenizer_config.json",
]

OWN_TEMPLATES = {
    "headers with date and tools": r"""
{{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "1 Jan 2000" %}
    {%- endif %}
{%- endif %}
{%- if not tools is defined %}{%- set tools = none %}{%- endif %}

{#- The first message may be the system's. #}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|head|>system<|/head|>\n\n" }}
{%- if tools is not none %}
    {%- for t in tools %}{{- t | tojson(indent=4) + "\n\n" }}{%- endfor %}
{%- endif %}
{{- "Today: " + date_string + "\n\n" }}
{{- system_message }}
{{- "<|eot|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|head|>' + message['role'] + '<|/head|>\n\n' + message['content'] | trim + '<|eot|>' }}
    {%- elif message.tool_calls|length != 1 %}
        {{- raise_exception("one call at a time") }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|head|>assistant<|/head|>\n\n' }}
{%- endif %}
""",
    "strict alternation": r"""
{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- set ns = namespace(index=0) %}
{%- for message in loop_messages %}
    {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
        {{- raise_exception("roles must alternate user/assistant, not " ~ message.role) }}
    {%- endif %}
    {%- set ns.index = ns.index + 1 %}
{%- endfor %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\n\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"]|trim + eos_token }}
    {%- else %}
        {{- raise_exception("only user and assistant roles") }}
    {%- endif %}
{%- endfor %}
""",
    "turns without a system role": r"""
{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% if messages[0]['content'] is string %}{% set first_user_prefix = messages[0]['content'] + '

' %}{% else %}{% set first_user_prefix = messages[0]['content'][0]['text'] + '

' %}{% endif %}{% set loop_messages = messages[1:] %}{% else %}{% set first_user_prefix = "" %}{% set loop_messages = messages %}{% endif %}
{%- for message in loop_messages -%}
    {%- if (message['role'] == 'assistant') -%}
        {%- set role = "model" -%}
    {%- else -%}
        {%- set role = message['role'] -%}
    {%- endif -%}
    {{ '<turn>' + role + '
' + (first_user_prefix if loop.first else "") }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- elif message['content'] is iterable -%}
        {%- for item in message['content'] -%}
            {%- if item['type'] == 'text' -%}{{ item['text'] | trim }}{%- endif -%}
        {%- endfor -%}
    {%- endif -%}
    {{ '</turn>
' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{'<turn>model
'}}
{%- endif -%}
""",
    "thinking kept after the last question": r"""
{%- set ns = namespace(multi_step=true, last_query=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step and message.role == "user" and message.content is string and not(message.content.startswith('<tool>') and message.content.endswith('</tool>')) %}
        {%- set ns.multi_step = false %}
        {%- set ns.last_query = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}
        {%- set content = message.content %}
    {%- else %}
        {%- set content = '' %}
    {%- endif %}
    {%- if message.role == "user" or (message.role == "system" and not loop.first) %}
        {{- '<|start|>' + message.role + '\n' + content + '<|end|>' + '\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning = '' %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning = message.reasoning_content %}
        {%- elif '</think>' in content %}
            {%- set reasoning = content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query and (loop.last or reasoning) %}
            {{- '<|start|>assistant\n<think>\n' + reasoning.strip('\n') + '\n</think>\n\n' + content.lstrip('\n') }}
        {%- else %}
            {{- '<|start|>' + message.role + '\n' + content }}
        {%- endif %}
        {{- '<|end|>\n' }}
    {%- else %}
        {{- '<|start|>' ~ message.role ~ '\n' ~ content ~ '<|end|>\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start|>assistant\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\n\n</think>\n\n' }}
    {%- endif %}
{%- endif %}
""",
    "namespace with a collected prompt": r"""
{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}{% set ns = namespace(is_first=false, is_last_user=false, prompt='', first=true) %}{%- for message in messages %}{%- if message['role'] == 'system' %}{%- if ns.first %}{% set ns.prompt = ns.prompt + message['content'] %}{% set ns.first = false %}{%- else %}{% set ns.prompt = ns.prompt + '\n\n' + message['content'] %}{%- endif %}{%- endif %}{%- endfor %}{{ bos_token }}{{ ns.prompt }}{%- for message in messages %}{%- if message['role'] == 'user' %}{%- set ns.is_last_user = true -%}{{ '<|User|>' + message['content'] }}{%- endif %}{%- if message['role'] == 'assistant' and message['tool_calls'] is defined and message['tool_calls'] is not none %}{{ 'calls' }}{%- elif message['role'] == 'assistant' %}{%- set ns.is_last_user = false -%}{% set content = message['content'] %}{% if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}{{ '<|Assistant|>' + content + eos_token }}{%- endif %}{%- endfor -%}{% if add_generation_prompt and ns.is_last_user %}{{ '<|Assistant|><think>\n' }}{% endif %}
""",
    "macros and block set": r"""
{%- macro header(role, name='') -%}
<<{{ role | upper }}{% if name %}:{{ name }}{% endif %}>>
{%- endmacro -%}
{%- macro body(text, keep=false) %}{{ text if keep else text | trim | replace('\t', '    ') | indent(2) }}{% endmacro %}
{%- set preamble %}
You speak to {{ messages | selectattr('role', 'equalto', 'user') | list | length }} questions.
Roles: {{ messages | map(attribute='role') | unique | join(', ') }}
{% endset -%}
{{ preamble | trim }}
{% for message in messages if message.content | trim %}
{{ header(message.role, name=('first' if loop.first else '')) }} {{ body(message.content, keep=loop.last) }}
  {#- between messages -#}
  {% if not loop.last %}

---
  {% endif %}
{% else %}
nothing
{% endfor %}
{% if add_generation_prompt -%}
{{ header('assistant') }}
{%- endif %}
""",
    "json and python forms": r"""
{%- for message in messages %}
{{ loop.index }}/{{ loop.length }} {{ message | tojson }} {{ message.content | tojson(ensure_ascii=true) }}
{{ {'role': message.role, 'n': loop.index0, 'size': message.content | length, 'ok': true, 'none': none} | tojson(indent=2) }}
{{ message.content.split() }} {{ message.content[:7] }}|{{ message.content[-5:] }}|{{ message.content[::-1] }}
{{ message.items() | list }} {{ (loop.previtem.role if loop.previtem is defined else 'start') ~ '>' ~ ((loop.nextitem if not loop.last else {}).role | default('end')) }}
{%- endfor %}
""",
    "old style with last user": r"""
{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>
' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>
' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{% generation %}
{{ '<|assistant|>
'  + message['content'] + eos_token }}
{% endgeneration %}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}
""",
}

# Single features, one a line, rendered for the conversation below. Changing lists and dicts is allowed here, as it is in
# plain Jinja and not where Hugging Face runs templates.
PIECES = r"""
{% set q=[] %}{% for m in messages %}{% set _ = q.append(m.role) %}{% endfor %}{{ q }}
{% set q=[3,1,2] %}{{ q.pop() }}{{ q.pop(0) }}{{ q }}{% set _=q.insert(0,9) %}{{ q }}{% set _=q.extend((4,5)) %}{{ q }}{{ q.sort() }}{{ q }}{{ q.reverse() }}{{ q }}{{ q.remove(4) }}{{ q }}{{ q.index(9) }}{{ q.count(1) }}{{ q.clear() }}{{ q }}
{% set q=[3,1,2] %}{{ q.sort(reverse=true) }}{{ q }}{% set r=q.copy() %}{{ r.append(7) }}{{ q }}{{ r }}
{% set a=[1] %}{% set b=a %}{{ b.append(2) }}{{ a }}{{ a is sameas b }}{{ a is sameas [1,2] }}{{ a == [1,2] }}
{% set d={'a':1} %}{{ d.pop('a') }}{{ d.pop('b', 5) }}{{ d.update(x=1, y=2) }}{{ d }}{{ d.update({'x':3}) }}{{ d }}{{ d.setdefault('z', []) }}{{ d.setdefault('z').append(1) }}{{ d }}{{ d.popitem() }}{{ d.clear() }}{{ d }}
{% set d={'a':1} %}{{ d.pop('q') }}
{% set q=[] %}{{ q.pop() }}
{% set q=[1,2,3] %}{% for x in q %}{% if x == 2 %}{% set _ = q.append(9) %}{% endif %}{{ x }}{% endfor %}
{% macro f(a, b=2) %}[{{a}}|{{b}}|{{varargs}}|{{kwargs}}]{% endmacro %}{{ f(1) }}{{ f(1,2,3,4) }}{{ f(1,c=5) }}{{ f(*[1,2,3]) }}{{ f(**{'b':7,'a':1}) }}{{ f(1, *[8], **{'z':1}) }}
{% macro f(a, b=2) %}[{{a}}|{{b}}]{% endmacro %}{{ f(1,2,3) }}
{% macro f(a, b=2) %}[{{a}}|{{b}}]{% endmacro %}{{ f(1,c=3) }}
{% macro d(c='x') %}<{{c}}>{{ caller() }}</{{c}}>{% endmacro %}{% call d('y') %}hello{% endcall %}|{% call d() %}{% for m in messages %}{{m.role}}{% endfor %}{% endcall %}
{% macro l(items) %}{% for i in items %}{{ caller(i, loop.index) }};{% endfor %}{% endmacro %}{% call(x, n=0) l([5,6]) %}{{n}}={{x}}{% endcall %}
{% macro d() %}{% if caller %}{{ caller() }}{% else %}none{% endif %}{% endmacro %}{{ d() }}{% call d() %}c{% endcall %}
{% macro d() %}nothing{% endmacro %}{% call d() %}c{% endcall %}
{% for x in [1,2] %}{% macro m(y) %}{{ x }}{{ y }}{% endmacro %}{{ m(3) }},{% endfor %}
{% macro outer(a) %}{% macro inner(b) %}{{ a }}{{ b }}{% endmacro %}{{ inner(1) }}{{ inner(2) }}{% endmacro %}{{ outer('z') }}
{% for n in [{'v':1,'c':[{'v':2,'c':[]},{'v':3,'c':[{'v':4,'c':[]}]}]}] recursive %}{{ n.v }}@{{ loop.depth }}{% if n.c %}({{ loop(n.c) }}){% endif %}{% endfor %}
{{ '{} {}'.format(1, 'x') }}{{ '{1}{0}'.format('a','b') }}{{ '{a:>5}|{b:<5}|{c:^5}'.format(a=1,b=2,c='z') }}{{ '{{}}'.format() }}{{ '{:05.2f}'.format(3.14159) }}{{ '{:,}'.format(1234567) }}{{ '{!r:>6}'.format('x') }}{{ '{0.role}'.format(messages[0]) }}{{ '{0[role]}'.format(messages[0]) }}{{ '{:{w}}|'.format(5, w=4) }}
{{ '%s is %d and %5.2f%%' % ('a', 3, 2.5) }}{{ '%(x)s' % {'x': 1} }}{{ '%r' % 'q' }}{{ "%05d|%-5s|%+d" | format(42, 'ab', 7) }}{{ "%(a)s" | format(a=4) }}{{ '%x' % 255 }}
{% if false %}{{ x | nosuch }}{{ x is nosuch }}{{ nosuch(1) }}{{ x.nosuch() }}{% endif %}ok
{{ 1 | nosuch }}
{{ messages | map('nosuch') | list }}
{{ 'abc'.center(10) }}|{{ 'abc'|center(9) }}|{{ 'a b_c d-e'|wordcount }}|{{ [1,2,3,4,5]|batch(2)|list }}|{{ [1,2,3,4,5]|batch(2,0)|list }}|{{ [1,2,3,4,5]|slice(3)|list }}|{{ [1,2,3,4,5]|slice(3,'x')|list }}
{{ '42'.zfill(5) }}{{ '-42'.zfill(5) }}{{ 'a\tb'.expandtabs(4) }}{{ 'x'.ljust(3,'.') }}{{ 'x'.rjust(3,'.') }}
{% set ns = namespace(l=[]) %}{% for m in messages %}{% set ns.l = ns.l + [m.role] %}{% endfor %}{{ ns.l }}
{{ (1, 2).append(3) }}
{% set x = namespace(f=none) %}{% for i in [1] %}{% macro k() %}K{{ i }}{% endmacro %}{% set x.f = k %}{{ x.f() }}{% endfor %}
{% call(a) [1].append(2) %}x{% endcall %}
{{ range(*[1,4]) | list }}{{ dict(**{'a':1}) }}{{ 'a-b'.split(*['-']) }}{{ [3,1]|sort(**{'reverse':true}) }}
{% macro f() %}{{ varargs }}{% endmacro %}{{ f(1,2) }}{% macro g() %}{% set varargs = 1 %}{{ varargs }}{% endmacro %}{{ g() }}
{% for a in [1,2] %}{% macro f() %}{% break %}{% endmacro %}{% endfor %}
{% macro t() %}{{ x }}{% endmacro %}{% set x = 5 %}{{ t() }}
{% with y=3 %}{% macro t() %}{{ y }}{% endmacro %}{{ t() }}{% endwith %}
{{ '{:>{}}'.format('a', 5) }}{{ '{:d}'.format(true) }}{{ '{:.3}'.format('abcdef') }}{{ '{:e}'.format(12345.678) }}{{ '{:g}'.format(0.0001) }}{{ '{:%}'.format(0.5) }}{{ '{:b}'.format(10) }}{{ '{:#x}'.format(255) }}{{ '{:+d}'.format(5) }}{{ '{: d}'.format(5) }}{{ '{:*^9}'.format('mid') }}{{ '{:010.3f}'.format(-3.14159) }}{{ '{:_}'.format(1000000) }}{{'{:,.2f}'.format(1234567.891)}}
{{ '{}'.format(none) }}{{ '{}'.format([1,'a']) }}{{ '{!s}'.format([1]) }}{{ '{:5}|'.format(true) }}{{ '{:.2}'.format(3.14159) }}{{ '{:.3}'.format(100.0) }}{{ '{:.5}'.format(100.0) }}{{ '{:c}'.format(65) }}
{{ '%s' % [1,2] }}{{ '%s %s' % (1,) }}
{{ 'x' % 1 }}
{{ '%d' % 3.7 }}{{ '%s' % none }}{{ '%5s|%-5s|%.2s' % ('a','b','cde') }}{{ '%c' % 'x' }}{{ '%e' % 1.5 }}{{ '%g' % 1e10 }}{{ '%#x' % 255 }}{{ '%08.3f' % 3.14159 }}{{ '%i' % 5 }}{{ '%%' % () }}
{{ ''.isprintable() }} {{ '½'.isnumeric() }} {{ '½'.isalnum() }} {{ '²'.isdigit() }} {{ '²'.isdecimal() }} {{ '一'.isnumeric() }} {{ 'ⅷⓐ'.islower() }} {{ 'Ⅷ'.isupper() }}
{{ 'ǆ x'|title }} {{ 'ǆ x'.title() }} {{ 'ß'|upper }} {{ 'straße'|title }} {{ 'ßa'.title() }} {{ 'ﬁn'.capitalize() }} {{ 'ΑΣ ΣΑ'|lower }} {{ 'İ'|lower }} {{ 'ŉ ǰ ΐ'|upper }} {{ 'aBß'.swapcase() }} {{ "Σ'Σ. Σ"|lower }}
{{ 'Aǅ'.istitle() }} {{ 'A b'.istitle() }} {{ 'A B'.istitle() }} {{ 'é'.isascii() }} {{ 'ß' is upper }} {{ {'a': 1}[1:] is defined }}
{{ '{:05}|{:<05}|{:05}'.format('ab', 'ab', 42) }} {{ '%05s|%-6d|%+.3d' % ('ab', 42, 7) }}
""".strip("\n").split("\n")
PIECE_CONVERSATION = [{"role": "user", "content": "Hi {x} %s"}, {"role": "assistant", "content": "yo"}]


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def system(text):
    return {"role": "system", "content": text}


CONVERSATIONS = [
    [user("Hello")],
    [system("You are terse."), user("Hello")],
    [user("What is 2+2?"), assistant("4."), user("And 3+3?")],
    [system("Answer in one word."), user("Colour of snow?"), assistant("White."), user("Of coal?"), assistant("Black.")],
    [user("  leading and trailing  \n"), assistant("\n\n reply \t"), user("\ttabs\tinside\t")],
    [user("Grüße, 世界! 🙂👩‍👩‍👧 عربى e\u0301 ﬁ"), assistant("Ça va — naïve “quotes” ½"), user("\u00a0nbsp\u3000wide\u2028sep")],
    [user("")],
    [system(""), user(""), assistant(""), user("x")],
    [user("Think."), assistant("<think>\nStep 1.\nStep 2.\n</think>\n\nDone."), user("Again.")],
    [user("Think."), assistant("<think>\n\n</think>\n\nA </think> B"), user("More"), assistant("<think>last</think>tail")],
    [user("line one\nline two\r\nline three\n\n\nline six"), assistant("```python\nprint(\"{{ x }}\")\n```")],
    [user("{{ messages }} {% if true %} {# no #} <|end|> \\n \"quoted\" 'single' \\ &<>")],
    [system("  padded system \n"), user("a"), assistant("b"), user("c"), assistant("d"), user("e"), assistant("f"), user("g")],
    [user("one"), user("two")],
    [assistant("I speak first."), user("ok")],
    [user("Sys later"), system("Now be kind."), user("ok")],
    [user("0"), assistant("\u0000\u0007\u001f\u007f control")],
]


class Generation(jinja2.ext.Extension):
    """The generation tag: its body as it is."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("plain"), [], [], body).set_lineno(line)

    def plain(self, caller):
        return caller()


def environment(kind=jinja2.sandbox.ImmutableSandboxedEnvironment):
    def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    made = kind(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    made.filters["tojson"] = tojson
    made.globals["raise_exception"] = raise_exception
    made.globals["strftime_now"] = lambda form: DATE
    return made


def token_text(config, name):
    token = config.get(name)
    return token["content"] if isinstance(token, dict) else token


def render_all(source, bos, eos):
    template = environment().from_string(source)
    special = {name: text for name, text in (("bos_token", bos), ("eos_token", eos)) if text is not None}
    rendered = []
    for messages in CONVERSATIONS:
        for prompt in (False, True):
            try:
                rendered.append(
                    template.render(
                        messages=messages, tools=None, documents=None, add_generation_prompt=prompt, **special
                    )
                )
            except jinja2.exceptions.TemplateError:
                rendered.append(None)
    return rendered


def render_pieces():
    made = environment(jinja2.sandbox.SandboxedEnvironment)
    pieces = []
    for source in PIECES:
        try:
            output = made.from_string(source).render(messages=PIECE_CONVERSATION, bos_token="<s>", eos_token="</s>")
        except (jinja2.exceptions.TemplateError, ArithmeticError, AttributeError, LookupError, SyntaxError,
                TypeError, ValueError):
            output = None
        pieces.append({"source": source, "output": output})
    return pieces


def main():
    shared = pathlib.Path(sys.argv[1])
    templates = []
    for path in MODEL_TEMPLATES:
        config = json.loads((shared / path).read_text())
        bos, eos = token_text(config, "bos_token"), token_text(config, "eos_token")
        outputs = render_all(config["chat_template"], bos, eos)
        templates.append({"name": path, "path": path, "bos": bos or "", "eos": eos or "", "outputs": outputs})
    for name, source in OWN_TEMPLATES.items():
        outputs = render_all(source, "<s>", "</s>")
        templates.append({"name": name, "source": source, "bos": "<s>", "eos": "</s>", "outputs": outputs})
    golden = {"jinja": jinja2.__version__, "date": DATE, "conversations": CONVERSATIONS, "templates": templates,
              "piece_conversation": PIECE_CONVERSATION, "pieces": render_pieces()}
    (HERE / "templates.json").write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main()
