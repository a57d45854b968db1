// What lies in place of a file whose download was left out or not finished: dangling links, Git LFS pointers,
// web pages.
#pragma once

#include <string>
#include <string_view>

namespace tessera {

// Why a file could not be opened, for an error line behind its name: what the system says of errno `error`,
// or, where the path is a link whose target is missing, that.
std::string why_not_opened(const std::string& path, int error);

// Throws FileError when the first bytes of a file are those of a Git LFS pointer or of a web page. beginning:
// at least its first 256 bytes, or all of it.
void refuse_stand_in(const std::string& path, std::string_view beginning);

}  // namespace tessera
