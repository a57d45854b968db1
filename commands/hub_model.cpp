#include "commands/hub_model.h"

#include <fmt/format.h>

#include <cstdlib>
#include <thread>

#include "commands/commands.h"
#include "commands/terminal/interrupt.h"
#include "commands/terminal/terminal.h"
#include "engine/hub/hub_error.h"

namespace tessera {

namespace {

hub::ModelName name_of(const std::string& text, const std::optional<std::string>& file,
                       const std::string& endpoint) {
  try {
    hub::ModelName name = hub::parse_model_name(text, endpoint);
    if (!file) return name;
    if (!hub::is_safe_path(*file))
      throw hub::HubError(fmt::format("--hf-file: no file has the name '{}'", *file));
    name.choice = *file;
    return name;
  } catch (const hub::HubError& error) {
    throw UsageError(error.what());
  }
}

}  // namespace

std::string pull_from_hub(const std::string& text, const std::optional<std::string>& file, hub::Ask ask) {
  const hub::HubSettings settings =
      hub::read_hub_settings([](const char* name) { return std::getenv(name); });
  const hub::ModelName name = name_of(text, file, settings.endpoint);
  ProgressBar bar("downloading");
  hub::HubEvents events;
  events.file = [&](std::string_view path) { bar.rename(one_line(path.substr(path.rfind('/') + 1))); };
  events.progress = [&](uint64_t done, uint64_t total) {
    say_on_interrupt("tessera: what was downloaded is kept: the same command goes on from there");
    bar.update(done, total);
  };
  events.note = [&](const std::string& line) {
    bar.hide();
    say(line, Style::dim);
  };
  events.wait = [](std::chrono::milliseconds time) { std::this_thread::sleep_for(time); };
  std::string path = hub::pull_model(name, settings, ask, events, hub::open_curl);
  say_on_interrupt(nullptr);
  return path;
}

std::optional<std::string> chosen_model(const Arguments& arguments) {
  const auto repository = arguments.text("hf-repo");
  const auto file = arguments.text("hf-file");
  if (file && !repository) throw UsageError("--hf-file: needs -hf, the repository it is in");
  if (!repository) return arguments.text("model");
  if (arguments.has("model")) throw UsageError("-m and -hf: expected one of them, found both");
  return pull_from_hub(*repository, file, hub::Ask::when_missing);
}

int run_pull(const Arguments& arguments) {
  write_stdout(pull_from_hub(arguments.operands().front(), std::nullopt, hub::Ask::always) + "\n");
  return kExitDone;
}

}  // namespace tessera
