// Which files of a repository make the model that was asked for.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace tessera::hub {

struct GgufChoice {
  std::vector<std::string> files;  // one, or all parts of a split model in order
  // Whether more files beside these could not have led to another choice.
  bool certain = false;
};

// Whether the repository is one of GGUF files: it has one that is a language model.
bool has_gguf(std::span<const std::string> paths);

// The GGUF file, parts included, that choice names: a path or file name; a word that a file's name has as a
// whole, in any case ("q4_k_m"); or, when it is empty, Q4_K_M, else Q4_0, else the first. repository begins
// errors. Throws HubError with the names there are.
GgufChoice choose_gguf(std::span<const std::string> paths, std::string_view choice,
                       const std::string& repository);

// The file that choice names, when it names one: by its path, or by its name where that is unique. Empty
// otherwise.
std::string named_file(std::span<const std::string> paths, std::string_view choice);

// A checkpoint folder: what it needs beside its weights, and the file that holds them or names their parts.
struct FolderChoice {
  std::vector<std::string> small;  // settings and tokenizer
  std::string weights;             // one file; empty where there is an index
  std::string index;
};
// Throws HubError where the repository is no checkpoint that could be imported.
FolderChoice choose_folder(std::span<const std::string> paths, const std::string& repository);

// The files that an index of weights, a JSON text, names. about begins errors. Throws HubError.
std::vector<std::string> weight_files(const std::string& index, const std::string& about);

// Up to eight of the names in one line, for errors.
std::string some_names(std::span<const std::string> names);

}  // namespace tessera::hub
