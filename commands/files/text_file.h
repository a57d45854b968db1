// Whole texts in and out of files.
#pragma once

#include <string>
#include <string_view>

namespace tessera {

class TemporaryFile;

// The text in a file, or of stdin for "-", without a byte order mark and with plain newlines where it has
// those of Windows. Throws std::runtime_error naming the file; refuses more than 1 GiB.
std::string read_text(const std::string& path);

// The same for a prompt: without the newline that ends its last line.
std::string read_prompt(const std::string& path);

// Replaces the file in one step, so that it is never incomplete. Throws FileError.
void write_text(const std::string& path, std::string_view text);
// The same for a temporary file that was made earlier, so that a path that cannot be written is refused
// before long work.
void write_text(TemporaryFile& file, std::string_view text);

}  // namespace tessera
