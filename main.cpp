// Runs the command line; here errors become a line on stderr and an exit code.
#include <fmt/format.h>

#include <exception>
#include <new>

#include "commands/command_line/usage_error.h"
#include "commands/commands.h"
#include "commands/terminal/terminal.h"

int main(int argc, char** argv) {
  try {
    return tessera::run_command_line(argc, argv);
  } catch (const tessera::UsageError& error) {
    tessera::say(fmt::format("tessera: {}", tessera::one_line(error.what())));
    return tessera::kExitUsage;
  } catch (const std::bad_alloc&) {
    tessera::write_stderr("tessera: out of memory\n");
    return tessera::kExitFailed;
  } catch (const std::exception& error) {
    tessera::say(fmt::format("tessera: {}", tessera::one_line(error.what())));
    return tessera::kExitFailed;
  }
}
