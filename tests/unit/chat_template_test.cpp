// The template interpreter: each of its features, the templates that it refuses, and hostile templates.
#include "engine/chat_template/chat_template.h"

#include <doctest/doctest.h>

#include <ctime>
#include <iostream>
#include <random>
#include <string>
#include <utility>
#include <vector>

namespace {

using Messages = std::vector<tessera::ChatMessage>;

const Messages conversation = {{"system", "Be kind.\n"},
                               {"user", "  Héllo 你好 🙂"},
                               {"assistant", "<think>a</think>\nHi!"},
                               {"user", ""}};

std::string render(const std::string& source, const Messages& messages = conversation) {
  tessera::TemplateInputs inputs;
  inputs.bos_token = "<s>";
  inputs.eos_token = "</s>";
  inputs.date = "26 Jul 2024";
  return tessera::ChatTemplate(source).render(messages, inputs).text;
}

// The text that a template renders, or its error message.
std::string error_of(const std::string& source, const Messages& messages = conversation) {
  try {
    return "rendered: " + render(source, messages).substr(0, 200);
  } catch (const tessera::TemplateError& error) {
    return error.what();
  }
}

std::string times(const std::string& text, size_t count) {
  std::string repeated;
  for (size_t i = 0; i < count; ++i) repeated += text;
  return repeated;
}

struct Case {
  std::string source;
  std::string expected;
};

void check_all(const std::vector<Case>& cases) {
  for (const Case& one : cases) {
    CAPTURE(one.source);
    CHECK(error_of(one.source) == "rendered: " + one.expected);
  }
}

// Checks that the template does not parse and that the message names the line and the missing part.
void check_refused(const std::string& source, const std::string& named) {
  CAPTURE(source);
  std::string message;
  try {
    const tessera::ChatTemplate parsed(source);
    message = "accepted";
  } catch (const tessera::TemplateError& error) {
    message = error.what();
  }
  CAPTURE(message);
  CHECK(message.find("chat template line ") == 0);
  CHECK(message.find(named) != std::string::npos);
  CHECK(message.find('\n') == std::string::npos);
}

}  // namespace

TEST_CASE("arithmetic follows Python") {
  check_all({{"{{ 1 + 2 * 3 }}", "7"},
             {"{{ 7 // 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 7 % -3 }}", "3 -4 2 -2"},
             {"{{ 4 / 2 }} {{ 7.5 // 2 }} {{ -7.5 % 2 }}", "2.0 3.0 0.5"},
             {"{{ 2 ** 10 }} {{ 2 ** -1 }} {{ -2 ** 2 }}", "1024 0.5 4"},
             {"{{ 0.1 + 0.2 }} {{ 1e16 }} {{ 1e15 }} {{ 0.00001 }}",
              "0.30000000000000004 1e+16 1000000000000000.0 1e-05"},
             {"{{ 1_000 + 0x1f + 0b11 + 0o17 }}", "1049"},
             {"{{ true + 1 }} {{ -true }} {{ +5 }}", "2 -1 5"},
             {"{{ 'a' ~ 1 ~ none ~ true ~ 1.5 }}", "a1NoneTrue1.5"},
             {"{{ 'ab' * 2 }} {{ [1] * 2 + [2] }} {{ (1,) + (2,) }}", "abab [1, 1, 2] (1, 2)"},
             {"{{ 9223372036854775806 + 1 }}", "9223372036854775807"}});
}

TEST_CASE("comparison, membership and logic") {
  check_all({{"{{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ 2 >= 2 > 1 }}", "True False True"},
             {"{{ 1 == 1.0 }} {{ true == 1 }} {{ 'a' == 1 }} {{ [1] == [1] }}", "True True False True"},
             {"{{ 9007199254740993 == 9007199254740992.0 }}", "False"},
             {"{{ 'a' < 'b' }} {{ [1, 2] < [1, 3] }}", "True True"},
             {"{{ 'b' in 'abc' }} {{ 'x' not in 'abc' }} {{ 1 in [1] }} {{ 'role' in messages[0] }}",
              "True True True True"},
             {"{{ not true }} {{ not 'z' in 'abc' }} {{ '' or 'b' }} {{ 'a' and 'b' }}", "False True b b"},
             {"{{ 'x' if none else 'y' }}|{{ 'x' if none }}|{{ 1 if 0 else 2 if 0 else 3 }}", "y||3"}});
}

TEST_CASE("subscripts, attributes and slices count characters") {
  check_all(
      {{"{{ messages[0].role }} {{ messages[-1]['role'] }} {{ messages.0.role }}", "system user system"},
       {"[{{ messages[9] }}{{ messages[0].nope }}]", "[]"},
       {"{{ messages[1].content[3] }}{{ messages[1].content[-1] }}", "é🙂"},
       {"{{ messages[1].content[2:5] }}|{{ messages[1].content[-3:-1] }}", "Hél|好 "},
       {"{{ 'aé你🙂'[::-1] }} {{ 'abcdef'[4:0:-2] }} {{ 'abc'[7:] }}", "🙂你éa ec "},
       {"{{ [1, 2, 3, 4][::-1] }} {{ [1, 2, 3, 4][1::2] }} {{ (1, 2)[:1] }}", "[4, 3, 2, 1] [2, 4] (1,)"},
       {"{{ {'a': {'b': [10, 20]}}.a.b[1] }}", "20"},
       {"{{ 'a\xff"
        "b'|length }} {{ 'a\xff"
        "b'[2] }}",
        "3 b"}});
}

TEST_CASE("loops") {
  check_all(
      {{"{% for i in range(3) %}{{ i }},{% endfor %}", "0,1,2,"},
       {"{% for i in range(5, 0, -2) %}{{ i }}{% endfor %}", "531"},
       {"{% for x in [] %}x{% else %}empty{% endfor %}", "empty"},
       {"{% for m in messages %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ "
        "loop.length "
        "}} {% endfor %}",
        "10434 21324 32214 43104 "},
       {"{% for x in 'abc' %}{% if loop.first %}<{% endif %}{{ x }}{{ '>' if loop.last else ',' }}{% endfor "
        "%}",
        "<a,b,c>"},
       {"{% for x in [1, 2, 3] %}{{ loop.previtem }}{{ x }}{{ loop.nextitem }} {% endfor %}", "12 123 23 "},
       {"{% for x in [1, 2, 3] %}{{ loop.cycle('a', 'b') }}{% endfor %}", "aba"},
       {"{% for m in messages if m.role == 'user' %}{{ loop.index }}/{{ loop.length }} {% endfor %}",
        "1/2 2/2 "},
       {"{% for k, v in {'a': 1, 'b': 2}.items() %}{{ k }}{{ v }}{% endfor %}", "a1b2"},
       {"{% for (a, b), c in [((1, 2), 3)] %}{{ a }}{{ b }}{{ c }}{% endfor %}", "123"},
       {"{% for i in range(9) %}{% if i == 1 %}{% continue %}{% endif %}{% if i > 3 %}{% break %}{% endif "
        "%}{{ i "
        "}}{% endfor %}",
        "023"},
       {"{% for i in [1, 2] %}{% for j in [3] %}{{ loop.length }}{% endfor %}{{ loop.length }}{% endfor %}",
        "1212"},
       {"{% for x in missing %}x{% endfor %}", ""}});
}

TEST_CASE("variables, scopes and namespaces") {
  check_all(
      {{"{% set x = 1 %}{% for i in [1, 2] %}{% set x = x + 5 %}{{ x }}{% endfor %}{{ x }}", "661"},
       {"{% set x = 1 %}{% if true %}{% set x = 2 %}{% endif %}{{ x }}", "2"},
       {"{% set a, b = 1, 'z' %}{% set a, b = b, a %}{{ a }}{{ b }}", "z1"},
       {"{% set ns = namespace(n=0) %}{% for i in range(4) %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}",
        "6"},
       {"{% set ns = namespace({'a': 1}, b=2) %}{{ ns.a }}{{ ns['b'] }}{{ ns.c is defined }}", "12False"},
       {"{% set ns = namespace() %}{% set ns.t %}in{{ 1 }}{% endset %}{{ ns.t }}", "in1"},
       {"{% set t | upper | replace('B', 'x') %}abc{% endset %}{{ t }}", "AxC"},
       {"{% set t %}{% set inner = 1 %}{{ inner }}{% endset %}{{ t }}{{ inner is defined }}", "1False"},
       {"{% with a = 1, b = 2 %}{{ a + b }}{% endwith %}{{ a is defined }}", "3False"},
       {"{% filter upper %}a{{ 'b' }}{% endfilter %}", "AB"},
       {"{% generation %}{{ 1 }}{% endgeneration %}", "1"},
       {"{% set ns = namespace() %}{% set ns.me = ns %}{{ ns.me.me.me is defined }}", "True"}});
}

TEST_CASE("macros") {
  check_all({{"{% macro m(a, b=2) %}[{{ a }}{{ b }}]{% endmacro %}{{ m(1) }}{{ m(1, 3) }}{{ m(b=5, a=4) }}{{ "
              "m() }}",
              "[12][13][45][2]"},
             {"{% macro f(n) %}{% if n < 2 %}1{% else %}{{ n * (f(n - 1) | int) }}{% endif %}{% endmacro "
              "%}{{ f(6) }}",
              "720"},
             {"{% set g = 1 %}{% macro m() %}{{ g }}{% endmacro %}{% set g = 2 %}{% for g in [9] %}{{ m() "
              "}}{% endfor %}",
              "2"},
             {"{% macro m() %}x{% endmacro %}{% set t = m() %}{{ t | length }}", "1"}});
  CHECK(error_of("{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}").find("'m' takes 1 arguments, found 2") !=
        std::string::npos);
  CHECK(error_of("{% macro m(a) %}{% endmacro %}{{ m(z=2) }}").find("no parameter 'z'") != std::string::npos);
}

TEST_CASE("filters") {
  check_all(
      {{"{{ '  x ' | trim }}|{{ 'xxaxx' | trim('x') }}|{{ '\xC2\xA0x\xE3\x80\x80' | trim }}", "x|a|x"},
       {"{{ 'aBé' | upper }} {{ 'ABÉ' | lower }} {{ 'hello wORLD-foo' | title }} {{ 'hELLO' | capitalize }}",
        "ABÉ abé Hello World-Foo Hello"},
       {"{{ 'a-b-c' | replace('-', '+') }} {{ 'aaa' | replace('a', 'b', 2) }} {{ 'ab' | replace('', '.') }}",
        "a+b+c bba .a.b."},
       {"{{ 'aé你🙂' | length }} {{ [1, 2] | count }} {{ {'a': 1} | length }} {{ nope | length }}",
        "4 2 1 0"},
       {"{{ nope | default('d') }}{{ '' | default('d') }}{{ '' | default('e', true) }}{{ none | d('f', "
        "boolean=true) }}",
        "def"},
       {"{{ [1, 'a', none] | join(', ') }} {{ 'abc' | join('-') }} {{ messages | join(',', attribute='role') "
        "}}",
        "1, a, None a-b-c system,user,assistant,user"},
       {"{{ [1, 2] | first }}{{ [1, 2] | last }}{{ 'ab' | last }}{{ [] | first is defined }}", "12bFalse"},
       {"{{ [3, 1, 2] | sort }} {{ ['b', 'A'] | sort }} {{ [1, 2] | reverse | list }} {{ 'abc' | reverse }}",
        "[1, 2, 3] ['A', 'b'] [2, 1] cba"},
       {"{{ [1, 1, 2] | unique | list }} {{ [1, 5] | min }} {{ [1, 5] | max }} {{ [1, 5] | sum }}",
        "[1, 2] 1 5 6"},
       {"{{ messages | map(attribute='role') | list | length }} {{ ['a'] | map('upper') | join }}", "4 A"},
       {"{{ messages | selectattr('role', 'equalto', 'user') | list | length }} {{ messages | "
        "rejectattr('role', "
        "'in', ['user']) | list | length }} {{ [1, 2, 3] | select('odd') | list }} {{ [0, 1] | reject | list "
        "}}",
        "2 2 [1, 3] [0]"},
       {"{{ {'b': 1, 'a': 2} | dictsort }} {{ {'b': 1} | items | list }}", "[('a', 2), ('b', 1)] [('b', 1)]"},
       {"{{ '42' | int }} {{ 'x' | int(7) }} {{ '1F' | int(base=16) }} {{ -3.9 | int }} {{ '2.5' | float }}",
        "42 7 31 -3 2.5"},
       {"{{ 2.5 | round }} {{ 2.675 | round(2) }} {{ 42.51 | round(1, 'floor') }} {{ 42 | round }} {{ -5 | "
        "abs }}",
        "2.0 2.67 42.5 42 5"},
       {"{{ 'a\\n\\nb' | indent }}|{{ 'a\\nb' | indent(1, true) }}", "a\n\n    b| a\n b"},
       {"{{ 5 | string | length }} {{ 'x' | safe }} {{ 'a' | list }}", "1 x ['a']"}});
}

TEST_CASE("tojson") {
  check_all({{"{{ messages[0] | tojson }}", R"({"role": "system", "content": "Be kind.\n"})"},
             {"{{ {'a': [1, 2.5, none, true], 'b': {}} | tojson(indent=2) }}",
              "{\n  \"a\": [\n    1,\n    2.5,\n    null,\n    true\n  ],\n  \"b\": {}\n}"},
             {R"({{ 'q"\\\n\t\x01é🙂' | tojson }})", R"("q\"\\\n\t\u0001é🙂")"},
             {"{{ 'é🙂' | tojson(ensure_ascii=true) }}", R"("\u00e9\ud83d\ude42")"},
             {"{{ {'b': 1, 'a': 2} | tojson(sort_keys=true) }}", R"({"a": 2, "b": 1})"},
             {"{{ [1, {'a': 2}] | tojson(separators=(',', ':')) }}", R"([1,{"a":2}])"}});
  CHECK(error_of("{{ nope | tojson }}").find("tojson: an undefined value has no JSON form") !=
        std::string::npos);
}

TEST_CASE("tests") {
  check_all(
      {{"{{ nope is defined }} {{ nope is undefined }} {{ messages is not defined }}", "False True False"},
       {"{{ tools is none }} {{ tools is defined }} {{ none is not none }}", "True True False"},
       {"{{ 'a' is string }} {{ {} is mapping }} {{ [] is iterable }} {{ 1 is iterable }} {{ [] is sequence "
        "}}",
        "True True True False True"},
       {"{{ 1 is number }} {{ 1.5 is float }} {{ 1 is integer }} {{ true is boolean }} {{ true is integer }}",
        "True True True True False"},
       {"{{ true is true }} {{ 1 is true }} {{ false is false }}", "True False True"},
       {"{{ 3 is odd }} {{ 3 is even }} {{ 9 is divisibleby 3 }}", "True False True"},
       {"{{ 1 is in [1] }} {{ 'a' is equalto 'a' }} {{ 'a' is eq('b') }} {{ 3 is gt 2 }}",
        "True True False True"},
       {"{{ 'ab' is lower }} {{ 'AB' is upper }} {{ range is callable }}", "True True True"},
       {"{{ nope is defined and nope.x }} {{ not nope is defined }}", "False True"}});
}

TEST_CASE("methods") {
  check_all(
      {{"{{ ' x '.strip() }}|{{ 'xya'.lstrip('yx') }}|{{ 'aé'.rstrip('é') }}", "x|a|a"},
       {"{{ 'abc'.startswith('ab') }} {{ 'abc'.endswith(('x', 'c')) }} {{ 'abc'.startswith('b', 1) }}",
        "True True True"},
       {"{{ 'a,b,,c'.split(',') }} {{ ' a  b '.split() }} {{ 'a b c'.split(' ', 1) }} {{ 'a b c'.rsplit(' ', "
        "1) }}",
        "['a', 'b', '', 'c'] ['a', 'b'] ['a', 'b c'] ['a b', 'c']"},
       {"{{ messages[2].content.split('</think>')[-1].lstrip('\\n') }}", "Hi!"},
       {"{{ 'a\\nb\\r\\nc'.splitlines() }} {{ 'k=v'.partition('=') }}", "['a', 'b', 'c'] ('k', '=', 'v')"},
       {"{{ 'abc'.replace('b', 'x') }} {{ 'ab'.upper() }} {{ 'AB'.lower() }} {{ \"it's ok\".title() }}",
        "axc AB ab It'S Ok"},
       {"{{ 'héllo'.find('l') }} {{ 'x'.find('y') }} {{ 'banana'.count('an') }} {{ 'banana'.rfind('a') }}",
        "2 -1 2 5"},
       {"{{ ', '.join(['a', 'b']) }} {{ 'abc'.removeprefix('a') }} {{ '12'.isdigit() }}", "a, b bc True"},
       {"{{ {'a': 1}.get('a') }} {{ {'a': 1}.get('b') }} {{ {'a': 1}.get('b', 5) }}", "1 None 5"},
       {"{{ {'a': 1}.keys() | list }} {{ {'a': 1}.values() | list }} {{ dict(a=1).items() | list }}",
        "['a'] [1] [('a', 1)]"}});
}

TEST_CASE("functions and inputs") {
  check_all({{"{{ bos_token }}{{ eos_token }}{{ add_generation_prompt }}", "<s></s>True"},
             {"{{ strftime_now('%d %b %Y') }} {{ strftime_now is defined }}", "26 Jul 2024 True"},
             {"{{ [\"a'b\", 'n\\n', 'é', '\\x00'] }}", "[\"a'b\", 'n\\n', 'é', '\\x00']"}});
  tessera::TemplateInputs inputs;
  const tessera::ChatTemplate dated("{{ strftime_now('%Y-%m-%d') }}");
  const std::string today = dated.render({}, inputs).text;
  CHECK(today.size() == 10);
  CHECK(today[4] == '-');
  CHECK(today.substr(0, 2) == "20");
}

TEST_CASE("white space as with trim_blocks and lstrip_blocks") {
  check_all({{"a\n  {% if true %}\n  b\n  {% endif %}\nc\n", "a\n  b\nc"},
             {"a {%- if true -%} b {%- endif +%}\n c", "ab\n c"},
             {"  {%+ if true %}x{% endif %}", "  x"},
             {"x\n\n", "x\n"},
             {"   {{ 1 }}  \n", "   1  "},
             {"a\r\nb\rc\r\n", "a\nb\nc"},
             {"{{- 'a' -}}   {{ 'b' }}", "ab"},
             {"  {# c #}\nx\n  {#- d -#}\n  y", "xy"},
             {"{% raw %}{{ x }}{% y %}{% endraw %}", "{{ x }}{% y %}"},
             {"  {% raw -%}  y  {%- endraw %}\n z", "y z"},
             {"{{ '}}' }}{{ {'a': {'b': 1}}.a.b }}{{ '%}' }}", "}}1%}"},
             {"", ""}});
}

TEST_CASE("what is not supported is refused before anything runs, by its name") {
  check_refused("a\n{% include 'x' %}", "line 2: the statement 'include' is not supported");
  check_refused("{% block a %}{% endblock %}", "'block'");
  check_refused("{{ f(*x, *y) }}", "'*' are given twice");
  check_refused("{{ f(**x, a=1) }}", "nothing may follow");
  check_refused("{{ f(a=1, 2) }}", "a positional argument follows");
  check_refused("{% call x %}{% endcall %}", "expected the call of a macro");
  check_refused("{% call m() %}", "'endcall' is missing");
}

TEST_CASE("what is not there is an error only where it is used") {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"{{ x | urlize }}", "the filter 'urlize' is not supported"},
      {"{{ x is nosuch }}", "the test 'nosuch' is not supported"},
      {"{{ 'x'.encode() }}", "a string has no method 'encode'"},
      {"{{ (1, 2).append(1) }}", "a tuple has no method 'append'"},
      {"{{ cycler(1) }}", "'cycler' is undefined"},
      {"{{ [1] | map('urlize') }}", "the filter 'urlize' is not supported"},
      {"{{ [1] | select('nosuch') }}", "the test 'nosuch' is not supported"},
      {"{{ 'x' | trim(1, 2) }}", "'trim' takes at most 1 arguments, found 2"},
      {"{{ 'x' | indent(wide=1) }}", "'indent' has no argument 'wide'"},
      {"{{ 'x' | replace('a') }}", "'replace' needs the argument 'new'"}};
  for (const auto& each : cases) {
    const auto& source = each.first;
    const auto& message = each.second;
    CAPTURE(source);
    CHECK(error_of(source) == "chat template line 1: " + message);
    CHECK(error_of("{% if false %}" + source + "{% endif %}ok") == "rendered: ok");
  }
}

TEST_CASE("lists and dicts that change share their changes and may contain themselves") {
  check_all({{"{% set a = [] %}{% set b = a %}{% set _ = b.append(1) %}{{ a }}{{ a | list is sameas a }}",
              "[1]False"},
             {"{% set a = [1, 2] %}{% for x in a if a | length < 4 and not a.append(0) %}{{ x }}{% endfor %}",
              "12"},
             {"{% set a = [1, 2] %}{% for x in a %}{{ a.clear() }}{{ loop.previtem is defined }}{% endfor %}",
              "NoneFalse"},
             {"{% set a = [] %}{{ a.append(a) }}{{ a | length }}", "None1"},
             {"{% set d = {} %}{{ d.update(d=d) }}{{ d.d.d.d | length }}", "None1"}});
  const std::string endless = "chat template line 1: a value contains itself or is nested too deeply";
  for (const char* use : {"{{ a }}", "{{ a | tojson }}", "{{ a == b }}", "{{ a < b }}"}) {
    CAPTURE(use);
    CHECK(error_of(std::string("{% set a = [] %}{% set b = [] %}{{ a.append(a) }}{{ b.append(b) }}") + use) ==
          endless);
  }
  // Each list holds the next: far deeper than destructors could recurse.
  CHECK(
      error_of("{% set n = namespace(last=[]) %}{% set first = n.last %}{% for i in range(90000) %}{% set "
               "next = [] %}"
               "{% set _ = n.last.append(next) %}{% set n.last = next %}{% endfor %}{{ first | length }}") ==
      "rendered: 1");
  CHECK(error_of("{% set a = [] %}{% for i in range(90000) %}{% set a = a.append(a) or a %}{% endfor %}{{ a "
                 "| length }}") == "rendered: 90000");
  CHECK(error_of("{% set a = [1] %}{% for x in a %}{% set _ = a.append(x) %}{% endfor %}")
            .find("does too much work") != std::string::npos);
}

TEST_CASE("syntax errors name their line") {
  check_refused("a\nb\n{{ 1 + }}", "line 3: expected a value, found '}}'");
  check_refused("{% if true %}\nx", "'endif' is missing");
  check_refused("\n{% endfor %}", "line 2: unexpected 'endfor'");
  check_refused("{{ 'abc }}", "the string is not closed");
  check_refused("{{ 1", "the tag is not closed by }}");
  check_refused("{# never", "the comment is not closed");
  check_refused("{% raw %}x", "the raw block is not closed");
  check_refused("{{ a b }}", "expected '}}' after the expression, found 'b'");
  check_refused("{{ (1 }}", "unexpected '}'");
  check_refused("{{ ? }}", "unexpected character '?'");
  check_refused("{{ 99999999999999999999 }}", "not an integer of 64 bits");
  check_refused("{{ '\\ud800' }}", "is not a character");
  check_refused("{% set true = 1 %}", "'true' cannot be assigned");
  check_refused("{% break %}", "'break' outside a loop");
  check_refused("{% %}", "expected the name of a statement");
  check_refused("{{ x is }}", "expected the name of a test");
  check_refused("{% for in x %}{% endfor %}", "expected a name to assign to, found 'in'");
}

TEST_CASE("errors while rendering are one line with the line number") {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"\n\n{{ raise_exception('no\nsystem ' ~ 'role') }}", "chat template line 3: no system role"},
      {"{{ nope.x }}", "chat template line 1: 'nope' is undefined"},
      {"{{ messages[0].a.b }}", "chat template line 1: 'a' is undefined"},
      {"{{ 'a' + 1 }}", "chat template line 1: '+' does not work on string and integer"},
      {"{{ 1 / 0 }}", "chat template line 1: division by zero"},
      {"{{ 9223372036854775807 + 1 }}", "chat template line 1: an integer does not fit 64 bits"},
      {"{{ -9223372036854775807 - 2 }}", "chat template line 1: an integer does not fit 64 bits"},
      {"{{ (-9223372036854775807 - 1) // -1 }}", "chat template line 1: an integer does not fit 64 bits"},
      {"{{ 10 ** 100 }}", "chat template line 1: an integer does not fit 64 bits"},
      {"{{ 'a' < 1 }}", "chat template line 1: string and integer have no order"},
      {"{% for x in 5 %}{% endfor %}", "chat template line 1: an integer cannot be iterated over"},
      {"{% for a, b in [[1]] %}{% endfor %}",
       "chat template line 1: 1 values cannot be unpacked into 2 names"},
      {"{{ none | length }}", "chat template line 1: none has no length"},
      {"{{ messages[0].role() }}", "chat template line 1: a string cannot be called"},
      {"{% set x = 1 %}{{ x() }}", "chat template line 1: an integer cannot be called"},
      {"{{ [1].strip() }}", "chat template line 1: a list has no method 'strip'"},
      {"{% set x.y = 1 %}", "chat template line 1: 'x' is not a namespace"},
      {"{{ 'abc'[::0] }}", "chat template line 1: the step of a slice is zero"},
      {"{{ strftime_now('%999999d') }}", "rendered: 26 Jul 2024"},
  };
  for (const auto& one : cases) {
    const std::string& source = one.first;
    const std::string& expected = one.second;
    CAPTURE(source);
    CHECK(error_of(source) == expected);
  }
  const tessera::ChatTemplate padded("{{ strftime_now('%999999d') }}");
  CHECK_THROWS_AS(padded.render({}, {}), tessera::TemplateError);
}

TEST_CASE("hostile templates end with an error, soon and within bounds") {
  const std::string deep_list =
      "{% set ns = namespace(x=[]) %}{% for i in range(100000) %}{% set ns.x = [ns.x] %}{% endfor %}";
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"nested loops", times("{% for a in range(100000) %}", 5) + "x" + times("{% endfor %}", 5)},
      {"doubling string",
       "{% set ns = namespace(x='a') %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}"},
      {"doubling list",
       "{% set ns = namespace(x=[1]) %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}"},
      {"doubling by join",
       "{% set ns = namespace(x='ab') %}{% for i in range(99) %}{% set ns.x = [ns.x, ns.x] | join %}{% "
       "endfor %}"},
      {"doubling by replace",
       "{% set ns = namespace(x='a') %}{% for i in range(99) %}{% set ns.x = ns.x | replace('a', 'aaa') %}{% "
       "endfor %}"},
      {"shared lists printed",
       "{% set ns = namespace(x=[1]) %}{% for i in range(50) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ "
       "ns.x }}"},
      {"shared lists as json",
       "{% set ns = namespace(x=[1]) %}{% for i in range(50) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ "
       "ns.x | tojson(indent=2) }}"},
      {"shared lists compared",
       "{% set ns = namespace(x=[1], y=[1]) %}{% for i in range(50) %}{% set ns.x = [ns.x, ns.x] %}{% set "
       "ns.y = [ns.y, ns.y] %}{% endfor %}{{ ns.x == ns.y }}"},
      {"deep value", deep_list},
      {"deep value of dicts",
       "{% set ns = namespace(x={}) %}{% for i in range(1000) %}{% set ns.x = {'k': ns.x} %}{% endfor %}"},
      {"deep value of loops",
       "{% set ns = namespace(x=[1]) %}{% for i in range(1000) %}{% for j in [ns.x] %}{% set ns.x = loop "
       "%}{% endfor %}{% endfor %}"},
      {"deep value of methods",
       "{% set ns = namespace(x=[1]) %}{% for i in range(1000) %}{% set ns.x = [ns.x.copy] %}{% endfor %}"},
      {"repeated text", "{{ 'a' * 99999999999 }}"},
      {"repeated list", "{{ [1] * 9223372036854775807 }}"},
      {"huge range", "{{ range(9223372036854775807) }}"},
      {"range over everything", "{{ range(-9223372036854775807, 9223372036854775807) | length }}"},
      {"huge indent", "{{ 'a\nb' | indent(9223372036854775807) }}"},
      {"huge json indent", "{{ [1] | tojson(indent=999999999999) }}"},
      {"output", "{% set x = 'a' * 1000000 %}{% for i in range(100000) %}{{ x }}{% endfor %}"},
      {"captured output",
       "{% set x = 'a' * 1000000 %}{% set t %}{% for i in range(100000) %}{{ x }}{% endfor %}{% endset %}"},
      {"endless macro", "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}"},
      {"endless macro in deep blocks", "{% macro m() %}" + times("{% if 1 %}", 60) + "{{ " +
                                           times("1 ~ (", 60) + "m()" + times(")", 60) + " }}" +
                                           times("{% endif %}", 60) + "{% endmacro %}{{ m() }}"},
      {"forking macro",
       "{% macro m(n) %}{% if n > 0 %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(35) }}"},
      {"macro and json", "{% macro m() %}{{ m }}{% endmacro %}{{ m() }}"},
      {"parentheses", "{{ " + times("(", 20000) + "1" + times(")", 20000) + " }}"},
      {"brackets", "{{ " + times("[", 20000) + times("]", 20000) + " }}"},
      {"not not not", "{{ " + times("not ", 20000) + "1 }}"},
      {"minus minus", "{{ " + times("-", 20000) + "1 }}"},
      {"long sum", "{{ 1" + times(" + 1", 20000) + " }}"},
      {"long chain of attributes", "{{ x" + times(".a", 20000) + " }}"},
      {"long chain of filters", "{{ x" + times("|trim", 20000) + " }}"},
      {"long chain of calls", "{{ range" + times("()", 20000) + " }}"},
      {"nested conditionals", "{{ " + times("1 if 1 else ", 20000) + "1 }}"},
      {"nested blocks", times("{% if 1 %}", 10000) + times("{% endif %}", 10000)},
      {"nested targets", "{% set " + times("(", 10000) + "a" + times(")", 10000) + " = 1 %}"},
      {"many arguments", "{{ dict(" + times("a=1,", 30000) + ") }}"},
      {"search", "{% set a = 'a' * 4000000 %}{{ a.find('a' * 2000000 ~ 'b') }}"},
      {"count", "{% set a = 'a' * 4000000 %}{{ a.count('a' * 2000000 ~ 'b') }}"},
      {"strip of many characters", "{% set a = 'b' * 4000000 %}{{ a.strip('a' * 4000000 ~ 'b') }}"},
      {"split into many", "{{ ('a,' * 10000000).split(',') | length }}"},
      {"characters of much", "{{ ('a' * 10000000) | list | length }}"},
      {"sort of much",
       "{% set x = range(100000) | list %}{% for i in range(1000) %}{% set y = x | sort(reverse=true) %}{% "
       "endfor %}"},
      {"unique of much", "{{ range(100000) | unique | list | length }}"},
      {"dict of much",
       "{{ dict((range(100000) | map('string') | map('list') | map('join') | map('list')) | list) }}"},
      {"namespaces", "{% for i in range(100000) %}{% set x = namespace(a='a' * 1000) %}{% endfor %}"},
      {"long template", std::string(300000, 'x')},
      {"power", "{{ 9 ** 9 ** 9 ** 9 }}"},
  };
  for (const auto& one : cases) {
    const std::string& name = one.first;
    const std::string& source = one.second;
    CAPTURE(name);
    // Processor time, so that other work on the machine does not count.
    const std::clock_t start = std::clock();
    const std::string message = error_of(source);
    const double taken = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
    CHECK(message.find("chat template line ") == 0);
    CHECK(message.find('\n') == std::string::npos);
    CHECK(message.size() < 600);
    CHECK(taken < 20.0);  // a second at most without sanitizers
    if (taken > 2.0) std::cout << name << " took " << taken << " s\n";
  }
}

TEST_CASE("a long message of a template is cut") {
  const std::string message = error_of("{{ raise_exception('é' * 100000) }}");
  CHECK(message.size() < 600);
  CHECK(message.find("chat template line 1: é") == 0);
}

TEST_CASE("long conversations fit the budget") {
  Messages messages;
  for (size_t i = 0; i < 4000; ++i)
    messages.push_back({i % 2 == 0 ? "user" : "assistant", std::string(500, 'x')});
  const std::string text = render(
      "{% set ns = namespace(n=0) %}{% for message in messages %}{% set content = '<|' + message['role'] + "
      "'|>' + "
      "message['content'] | trim + '<|end|>' %}{% set ns.n = ns.n + 1 %}{% if loop.index0 == 0 %}{% set "
      "content = "
      "bos_token + content %}{% endif %}{{ content }}{% endfor %}{{ ns.n }}",
      messages);
  CHECK(text.size() > 4000 * 510);
  CHECK(text.substr(text.size() - 4) == "4000");
}

TEST_CASE("messages are data: their text is never run, and malformed bytes pass through") {
  const std::string odd = "{{ 1 }}{% x %}\xff\xc3(\xe4\xbd";
  CHECK(render("{{ messages[0].content }}|{{ messages[0].content | length }}", {{"user", odd}}) ==
        odd + "|19");
}

TEST_CASE("random mutations of a real template never do worse than an error") {
  const std::string source =
      "{%- set ns = namespace(i=0) -%}\n{% for m in messages[::-1] if m.role != 'x' %}\n  {%- if loop.first "
      "and "
      "m['content'] is string %}{{ '<|' ~ m.role ~ '|>\\n' + m.content | trim }}{% elif not m.tool_calls "
      "%}{{ "
      "m | tojson(indent=2) }}{%- else %}{{ m.content.split('</think>')[-1].lstrip('\\n') }}{% endif %}\n{% "
      "endfor "
      "%}{% macro f(a, b=[1, 2]) %}{{ a[1:] }}{{ b | join(',') }}{% endmacro %}{{ f('abc', b={'k': -1.5e3}) "
      "}}";
  const std::string pieces = "{}%#-+[]().,:|'\"=<>~*/ \n09azif";
  const auto seed = static_cast<uint32_t>(std::random_device{}());
  std::cout << "seed " << seed << "\n";
  std::mt19937 random(seed);
  size_t rendered = 0;
  for (size_t round = 0; round < 3000; ++round) {
    std::string mutated = source;
    for (size_t change = random() % 4 + 1; change > 0; --change) {
      const size_t at = random() % mutated.size();
      switch (random() % 4) {
        case 0:
          mutated.erase(at, random() % 5 + 1);
          break;
        case 1:
          mutated.insert(at, 1, pieces[random() % pieces.size()]);
          break;
        case 2:
          mutated[at] = pieces[random() % pieces.size()];
          break;
        default:
          mutated.insert(at, mutated.substr(random() % mutated.size(), random() % 20));
      }
    }
    if (error_of(mutated).find("rendered: ") == 0) ++rendered;
  }
  CHECK(rendered > 0);
  CHECK(rendered < 3000);
}
