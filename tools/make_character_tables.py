#!/usr/bin/env python3
"""Writes engine/chat_template/character_tables.cpp: what Python says of characters that their categories do not tell.

Usage: make_character_tables.py (the standard library is enough; the tables follow its unicodedata)
"""

import pathlib
import unicodedata

TARGET = pathlib.Path(__file__).resolve().parent.parent / "engine/chat_template/character_tables.cpp"
CODES = [code for code in range(0x110000) if not 0xD800 <= code < 0xE000]


def category(char):
    return unicodedata.category(char)


def ranges(wanted):
    found = []
    for code in CODES:
        if not wanted(chr(code)):
            continue
        if found and found[-1][1] == code - 1:
            found[-1][1] = code
        else:
            found.append([code, code])
    return found


def escaped(text):
    return "".join(f"\\x{byte:02x}" for byte in text.encode())


def range_table(name, wanted):
    rows = ranges(wanted)
    items = ", ".join(f"{{0x{first:X}, 0x{last:X}}}" for first, last in rows)
    return f"constexpr std::array<CodeRange, {len(rows)}> {name} = {{{{{items}}}}};\n"


def mapping_table(name, changed):
    rows = [(code, changed(chr(code))) for code in CODES if len(changed(chr(code))) > 1]
    items = ", ".join(f'{{0x{code:X}, "{escaped(text)}"}}' for code, text in rows)
    return f"constexpr std::array<Mapping, {len(rows)}> {name} = {{{{{items}}}}};\n"


# A capital sigma at the end of a word becomes another letter; these are passed over in looking for the end.
def ignored_by_case(char):
    return f"A\u03a3{char}A".lower()[1] == "\u03c3" and f"A\u03a3{char}".lower()[1] == "\u03c2"


TEXT = f"""// Made by tools/make_character_tables.py from Unicode {unicodedata.unidata_version}.
#include "engine/chat_template/character_tables.h"

#include <algorithm>
#include <array>

namespace tessera::jinja {{

namespace {{

struct CodeRange {{
  uint32_t first;
  uint32_t last;
}};
struct Mapping {{
  uint32_t code;
  std::string_view text;
}};

template <size_t n>
bool contains(const std::array<CodeRange, n>& ranges, uint32_t code) {{
  const auto next = std::upper_bound(
      ranges.begin(), ranges.end(), code,
      [](uint32_t value, const CodeRange& range) {{ return value < range.first; }});
  return next != ranges.begin() && code <= std::prev(next)->last;
}}

template <size_t n>
std::string_view mapped(const std::array<Mapping, n>& mappings, uint32_t code) {{
  const auto found = std::lower_bound(mappings.begin(), mappings.end(), code,
                                      [](const Mapping& row, uint32_t value) {{ return row.code < value; }});
  return found != mappings.end() && found->code == code ? found->text : std::string_view();
}}

// clang-format off
{range_table("kDigits", lambda c: c.isdigit() and category(c) != "Nd")}
{range_table("kNumerals", lambda c: c.isnumeric() and category(c)[0] != "N")}
{range_table("kLower", lambda c: c.islower() and category(c) != "Ll")}
{range_table("kUpper", lambda c: c.isupper() and category(c) != "Lu")}
{range_table("kIgnored", ignored_by_case)}
{mapping_table("kUpperTexts", str.upper)}
{mapping_table("kTitleTexts", str.title)}
// clang-format on

}}  // namespace

bool is_listed_digit(uint32_t code) {{ return contains(kDigits, code); }}
bool is_listed_numeral(uint32_t code) {{ return contains(kNumerals, code); }}
bool is_listed_lower(uint32_t code) {{ return contains(kLower, code); }}
bool is_listed_upper(uint32_t code) {{ return contains(kUpper, code); }}
bool is_ignored_by_case(uint32_t code) {{ return contains(kIgnored, code); }}
std::string_view listed_upper_text(uint32_t code) {{ return mapped(kUpperTexts, code); }}
std::string_view listed_title_text(uint32_t code) {{ return mapped(kTitleTexts, code); }}

}}  // namespace tessera::jinja
"""


def wrapped(line):
    """Cuts a line of a table at commas."""
    if len(line) <= 110:
        return line
    lines = [""]
    for part in line.replace("{0x", "\0{0x").split("\0"):
        if lines[-1] and len(lines[-1]) + len(part) > 108:
            lines.append("    ")
        lines[-1] += part
    return "\n".join(line.rstrip() for line in lines)


if __name__ == "__main__":
    TARGET.write_text("\n".join(wrapped(line) for line in TEXT.split("\n")))
