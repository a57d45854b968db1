// The parsed arguments of one verb, read strictly: every fault is a UsageError that names the flag and what
// it takes.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "commands/command_line/usage_error.h"
#include "commands/command_line/verb.h"

namespace tessera {

// The number that the whole text spells, within [least, most]. `what` names it in the error: "--top-k".
// Throws UsageError.
uint64_t parse_integer(std::string_view what, std::string_view text, uint64_t least, uint64_t most);
// "500M", "20GB", "1.5TiB" or a plain number of bytes: K, M, G and T are powers of 1000, and of 1024 with an
// i. Throws UsageError.
uint64_t parse_bytes(std::string_view what, std::string_view text);
double parse_real(std::string_view what, std::string_view text, double least, double most);

class Arguments {
 public:
  // words are what follows the verb; command_line is the whole line, for files that say how they were made.
  // Throws UsageError.
  Arguments(const Verb& verb, const std::vector<std::string>& words, std::string command_line = {});

  const Verb& verb() const { return *verb_; }
  const std::string& command_line() const { return command_line_; }
  const std::vector<std::string>& operands() const { return operands_; }
  bool has(std::string_view name) const;  // given at all; for a switch, whether it is on
  std::optional<std::string> text(std::string_view name) const;  // the last one when repeated
  std::vector<std::string> all(std::string_view name) const;
  std::optional<uint64_t> integer(std::string_view name, uint64_t least, uint64_t most) const;
  // One of the option's choices; the fallback of the table when it was not given.
  std::string choice(std::string_view name) const;
  // Several of them, separated by commas; empty when it was not given.
  std::vector<std::string> choices(std::string_view name) const;

 private:
  const Option& option(std::string_view name) const;
  std::string checked_choice(std::string_view name, const std::string& given) const;
  const Verb* verb_;
  std::string command_line_;
  std::map<std::string, std::vector<std::string>, std::less<>> given_;
  std::vector<std::string> operands_;
};

}  // namespace tessera
