#include "engine/measure/perplexity_windows.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>

namespace tessera {

std::vector<uint32_t> Window::tokens() const {
  std::vector<uint32_t> all(text.begin(), text.end());
  if (first) all.insert(all.begin(), *first);
  return all;
}

size_t Window::scored() const {
  const size_t all = text.size() + (first ? 1 : 0);
  return all - std::min(all, context);
}

size_t WindowPlan::scored() const {
  size_t count = 0;
  for (const Window& window : windows) count += window.scored();
  return count;
}

std::string WindowPlan::description() const {
  std::string how = lines ? fmt::format("{} lines, each a text of its own", windows.size())
                          : fmt::format("{} window{} of {} tokens", windows.size(),
                                        windows.size() == 1 ? "" : "s", windows.front().tokens().size());
  if (!lines) {
    how += apart == 0 ? ", not overlapping" : fmt::format(", {} tokens apart, each token scored once", apart);
  }
  how += bos                   ? ", each begun with the begin token"
         : lines || apart == 0 ? ", the first token of each unscored"
                               : ", the first token of the text unscored";
  how += fmt::format("; {} of {} text tokens scored", scored(), text_tokens);
  if (left_out > 0)
    how += fmt::format(", {} {} left out", left_out, lines ? "beyond the window" : "at the end");
  return how;
}

WindowPlan plan_windows(std::vector<uint32_t> ids, std::optional<uint32_t> bos, size_t window,
                        size_t stride) {
  WindowPlan plan;
  plan.bos = bos.has_value();
  if (bos && !ids.empty() && ids.front() == *bos) ids.erase(ids.begin());  // which every window begins with
  plan.text_tokens = ids.size();
  const std::span<const uint32_t> text = plan.texts.emplace_back(std::move(ids));
  const size_t begin_tokens = bos ? 1 : 0;
  const size_t room = window - begin_tokens;
  assert(window >= 2 && stride >= 1 && stride <= room);
  plan.apart = stride == room ? 0 : stride;
  size_t scored_to = 0;
  for (size_t begin = 0; begin < text.size(); begin += stride) {
    const size_t count = std::min(room, text.size() - begin);
    if (count < room && !plan.windows.empty()) break;
    const size_t seen_before = scored_to - std::min(scored_to, begin);
    plan.windows.push_back(
        {text.subspan(begin, count), bos, std::max<size_t>(seen_before + begin_tokens, 1)});
    scored_to = begin + count;
  }
  plan.left_out = text.size() - scored_to;
  return plan;
}

WindowPlan plan_lines(std::string_view text, const Tokenizer& tokenizer, bool parse_special,
                      std::optional<uint32_t> bos, size_t window) {
  WindowPlan plan;
  plan.lines = true;
  plan.bos = bos.has_value();
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    std::vector<uint32_t> ids = tokenizer.encode(text.substr(begin, end - begin), parse_special);
    begin = end + 1;
    if (ids.empty()) continue;
    plan.text_tokens += ids.size();
    const std::optional<uint32_t> first = ids.front() == bos ? std::nullopt : bos;
    const size_t count = std::min(ids.size(), window - (first ? 1 : 0));
    plan.left_out += ids.size() - count;
    if (count + (first ? 1 : 0) < 2) continue;
    plan.windows.push_back({std::span(plan.texts.emplace_back(std::move(ids))).first(count), first, 1});
  }
  return plan;
}

}  // namespace tessera
