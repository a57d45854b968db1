// Matches a checkpoint with what its family expects and decides how each tensor will be stored.
#pragma once

#include <optional>
#include <vector>

#include "engine/checkpoint/checkpoint_source.h"
#include "engine/models/model_graph.h"
#include "engine/quantize/keep/kept_codes.h"
#include "gguf-like-format/model_header.h"
#include "gguf-like-format/scheme.h"

namespace tessera {

// One tensor of the new file and where its values come from.
struct PlannedWeight {
  ExpectedTensor expected;
  const CheckpointSource* checkpoint = nullptr;  // has to outlive the plan
  const SourceTensor* source = nullptr;          // of which expected.source says what is read
  Scheme scheme = Scheme::f32;
  std::optional<keep::KeptCodes> kept;  // in which the scheme takes the checkpoint's codes over

  uint64_t elements() const;
};

// Every tensor the model needs, in file order. Matrices get `scheme`; the output head and the token embedding
// become w8a8 under every scheme that rounds to codes, or keep the checkpoint's type with keep_head; vectors
// stay f32. Throws FileError for a missing, mis-shaped or mis-typed
// tensor, and for one that the model has no place for, because leaving it out would make a different model.
std::vector<PlannedWeight> plan_weights(const CheckpointSource& checkpoint,
                                        const Hyperparameters& hyperparameters, Scheme scheme,
                                        bool keep_head);

bool makes_logits_or_embeds(Role role);

// Throws FileError where a matrix has more columns than its scheme can sum.
void check_columns(const PlannedWeight& weight);

// The scheme of the matrix that makes the logits: the head, or the embedding it is tied to.
Scheme head_scheme(const std::vector<PlannedWeight>& plan);

}  // namespace tessera
