// Checks and comparisons of hyperparameters, by the one list of their fields.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "gguf-like-format/file_error.h"
#include "gguf-like-format/hyperparameter_fields.h"

namespace tessera {

struct ScalingName {
  RopeScalingKind kind;
  std::string_view name;
};
inline constexpr ScalingName kScalingNames[] = {{RopeScalingKind::none, "none"},
                                                {RopeScalingKind::linear, "linear"},
                                                {RopeScalingKind::llama3, "llama3"},
                                                {RopeScalingKind::yarn, "yarn"}};
std::string_view scaling_name(RopeScalingKind kind);

// Checks that every hyperparameter lies in the range the format allows and agrees with the others. prefix
// names the object in errors. Throws FileError naming file and field.
void check_hyperparameters(const Hyperparameters& hyperparameters, const std::string& file,
                           const std::string& prefix);

// Name and value of every field as text, exactly: equal texts mean equal values.
std::vector<std::pair<std::string, std::string>> hyperparameter_texts(const Hyperparameters& hyperparameters);

}  // namespace tessera
