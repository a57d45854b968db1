#include "commands/command_line/llama_cpp_options.h"

#include <algorithm>
#include <array>

namespace tessera {

namespace {

constexpr std::array kOptions = {
    LlamaCppOption{"-fa --flash-attn", "attention is always computed in pieces, leave it out"},
    LlamaCppOption{"-ctk --cache-type-k -ctv --cache-type-v",
                   "--kv 16, 8 or 4 is the precision of keys and values"},
    LlamaCppOption{
        "-cnv --conversation -i --interactive -if --interactive-first -ins --instruct -cml --chatml",
        "without -p, on a terminal, a chat begins"},
    LlamaCppOption{"-no-cnv --no-conversation", "--raw continues a text without the chat template"},
    LlamaCppOption{"-st --single-turn", "-p answers once and ends"},
    LlamaCppOption{"-mli --multiline-input",
                   "in a chat, \\ at its end makes a line go on, and \"\"\" begins several"},
    LlamaCppOption{"-r --reverse-prompt", "--stop ends an answer before a text"},
    LlamaCppOption{"--in-prefix --in-prefix-bos --in-suffix",
                   "turns are put together by the chat template, or by you with --raw"},
    LlamaCppOption{"-sysf --system-prompt-file", "--system takes a text: --system \"$(cat FILE)\""},
    LlamaCppOption{"-bf --binary-file", "-f reads any bytes"},
    LlamaCppOption{"--no-escape", "escapes are read with -e only, leave it out"},
    LlamaCppOption{"--jinja", "chat templates are always read as Jinja, leave it out"},
    LlamaCppOption{"--no-jinja", "chat templates are always read as Jinja; --raw does without one"},
    LlamaCppOption{"--reasoning-format --reasoning-budget", "an answer is shown as the model writes it"},
    LlamaCppOption{"--keep --context-shift",
                   "--overflow drop-oldest makes room and keeps the system message"},
    LlamaCppOption{"--no-context-shift", "a full context ends the answer, leave it out"},
    LlamaCppOption{"--prompt-cache --prompt-cache-all --prompt-cache-ro",
                   "in a chat, /save and /load keep it"},
    LlamaCppOption{
        "--samplers --sampler-seq --sampling-seq --typical --typical-p --tfs --mirostat --mirostat-lr "
        "--mirostat-ent --xtc-probability --xtc-threshold --dry-multiplier --dry-base "
        "--dry-allowed-length --dry-penalty-last-n --dry-sequence-breaker --dynatemp-range "
        "--dynatemp-exp --top-nsigma --top-n-sigma",
        "the samplers are --top-k, --top-p, --min-p and --temp, in this order"},
    LlamaCppOption{"--grammar --grammar-file -j --json-schema -jf --json-schema-file",
                   "an answer cannot be bound to a grammar"},
    LlamaCppOption{"--lora --lora-scaled --lora-base --control-vector --control-vector-scaled",
                   "an adapter has to be merged into its checkpoint before tessera quantize"},
    LlamaCppOption{"-md --model-draft --draft --draft-max --draft-min --draft-p-min -ngld --gpu-layers-draft",
                   "there is no speculative decoding"},
    LlamaCppOption{"-mm --mmproj -mmu --mmproj-url --image --audio", "models read nothing but text"},
    LlamaCppOption{"-mu --model-url", "download the file and name it with -m"},
    LlamaCppOption{"-tb --threads-batch", "--threads counts for prompts and answers"},
    LlamaCppOption{"-ub --ubatch-size", "--batch is how many tokens of a prompt run at once"},
    LlamaCppOption{"-np --parallel -ns --sequences -cb --cont-batching",
                   "there is one conversation at a time; --bench --tests batchN measures several"},
    LlamaCppOption{"-mg --main-gpu -sm --split-mode -ts --tensor-split",
                   "the first GPU is used, -ngl says for how many layers"},
    LlamaCppOption{"-dev --device", "--backend says what computes, --list-devices what there is"},
    LlamaCppOption{"-ot --override-tensor -cmoe --cpu-moe -ncmoe --n-cpu-moe",
                   "layers are placed whole, -ngl says how many are on the GPU"},
    LlamaCppOption{"-nkvo --no-kv-offload --op-offload --no-op-offload",
                   "the KV cache of a layer lies where the layer does, leave it out"},
    LlamaCppOption{"-fit --fit", "layers and context are fitted to the memory, unless --memory-check off"},
    LlamaCppOption{"--mmap", "files are mapped unless --no-mmap is given, leave it out"},
    LlamaCppOption{"-dio --direct-io", "--no-mmap reads the file into memory"},
    LlamaCppOption{"-nr --no-repack --repack", "weights are stored as kernels read them, leave it out"},
    LlamaCppOption{"-dt --defrag-thold", "the KV cache has pages and never needs it, leave it out"},
    LlamaCppOption{"-C --cpu-mask -Cr --cpu-range --cpu-strict --prio --poll",
                   "taskset and nice choose cores and priority"},
    LlamaCppOption{"--yarn-ext-factor --yarn-attn-factor --yarn-beta-slow --yarn-beta-fast",
                   "of YaRN only --rope-scale and --yarn-orig-ctx can be chosen"},
    LlamaCppOption{"--override-kv", "what a file says is settled by tessera quantize"},
    LlamaCppOption{"--perplexity --ppl-stride --kl-divergence --kl-divergence-base",
                   "tessera perplexity measures a model, and how far it is from another"},
    LlamaCppOption{"--check-tensors", "tessera inspect FILE --verify checks a file"},
    LlamaCppOption{"--warmup --no-warmup", "nothing runs before the prompt, leave it out"},
    LlamaCppOption{"--display-prompt --no-display-prompt --verbose-prompt",
                   "a prompt is never repeated; tessera tokenize shows its tokens"},
    LlamaCppOption{"-sp --special", "special tokens are not shown"},
    LlamaCppOption{"-co --color --simple-io", "colours come on a terminal only, NO_COLOR=1 takes them away"},
    LlamaCppOption{"--perf --no-perf --show-timings --no-show-timings", "--no-stats leaves the figures out"},
    LlamaCppOption{"-lv --verbosity --log-verbosity --log-disable --log-file --log-colors --log-prefix "
                   "--log-timestamps",
                   "notes go to standard error, --verbose makes them more"},
    LlamaCppOption{
        "--host --port --path --api-key --api-key-file --embedding --embeddings --reranking --pooling "
        "--metrics --slots --props",
        "there is no server"},
    LlamaCppOption{"--completion-bash", "tessera completions bash prints it"},
};

}  // namespace

std::span<const LlamaCppOption> llama_cpp_options() { return kOptions; }

std::string_view instead_of_llama_cpp(std::string_view name) {
  for (const LlamaCppOption& option : kOptions) {
    std::string_view names = option.names;
    while (!names.empty()) {
      const size_t end = std::min(names.find(' '), names.size());
      if (names.substr(0, end) == name) return option.instead;
      names.remove_prefix(std::min(end + 1, names.size()));
    }
  }
  return {};
}

}  // namespace tessera
