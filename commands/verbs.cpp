#include "commands/verbs.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <numeric>
#include <vector>

namespace tessera {

namespace {

constexpr const char* kModel = "Model";
constexpr const char* kPrompt = "Prompt";
constexpr const char* kSampling = "Sampling";
constexpr const char* kRunning = "Running";
constexpr const char* kBenchmark = "Benchmark";
constexpr const char* kGeneral = "General";

// Every scheme of matrices, as matrix_schemes lists them (tests/unit/verbs_test.cpp).
constexpr const char* kSchemes =
    "f32 f16 bf16 w8a8 w4a8 w4a8-g128 "
    "lut2-g32 lut2-g32-a8 lut2-g64 lut2-g64-a8 lut2-g128 lut2-g128-a8 lut2-g256 lut2-g256-a8 "
    "lut3-g32 lut3-g32-a8 lut3-g64 lut3-g64-a8 lut3-g128 lut3-g128-a8 lut3-g256 lut3-g256-a8 "
    "lut4-g32 lut4-g32-a8 lut4-g64 lut4-g64-a8 lut4-g128 lut4-g128-a8 lut4-g256 lut4-g256-a8 "
    "int4-g32 int4-g32-a8 int4-g64 int4-g64-a8 int4-g128 int4-g128-a8 int4-g256 int4-g256-a8";

constexpr Option kHelp = {kGeneral, 'h', "help", "", "", "", "print this help"};

constexpr Option kThreads = {kRunning, 0, "threads", "N", "", "all cores", "worker threads", "-t"};

constexpr Option kBackend = {
    kRunning, 0, "backend", "NAME", "cpu cuda reference", "cpu", "what computes: cpu, cuda, reference"};
constexpr Option kGpuLayers = {kRunning,
                               0,
                               "gpu-layers",
                               "N",
                               "",
                               "all that fit",
                               "with cuda: the last N layers there and the rest on the cpu; -ngl is the same",
                               "-ngl --n-gpu-layers"};
constexpr Option kIsa = {
    kRunning, 0, "isa", "NAME", "auto avx512 avx2 portable", "auto", "instruction set of the cpu backend"};
constexpr Option kNuma = {kRunning,
                          0,
                          "numa",
                          "MODE",
                          "off local interleave",
                          "off",
                          "copy weights onto the memory nodes: local to the threads, or interleaved"};
constexpr Option kContext = {kRunning,       0, "ctx", "N", "", "the model's", "tokens of context",
                             "-c --ctx-size"};
constexpr Option kKv = {kRunning, 0, "kv", "BITS", "4 8 16", "the file's", "precision of the KV cache"};
constexpr Option kKvFirst = {
    kRunning, 0, "kv-first-layers", "N", "", "0", "leading layers that keep a 16-bit KV cache"};
constexpr Option kBatch = {kRunning,         0, "batch", "N", "", "512", "prompt tokens in one run",
                           "-b --batch-size"};
constexpr Option kNoMmap = {
    kRunning, 0, "no-mmap", "", "", "", "read the model into memory instead of mapping it"};
constexpr Option kMlock = {kRunning, 0, "mlock", "", "", "", "lock the model's pages in memory"};
constexpr Option kVerbose = {kGeneral, 0, "verbose", "", "", "", "say more on stderr"};
constexpr Option kParseSpecial = {
    kPrompt, 0, "parse-special", "", "", "", "special tokens spelled in the text are meant"};

constexpr std::array kRunOptions = {
    Option{kModel, 'm', "model", "FILE", "", "the embedded model", "a .tess file"},
    Option{kPrompt, 'p', "prompt", "TEXT", "", "chat", "answer this and end; - reads stdin"},
    Option{kPrompt, 'f', "file", "FILE", "", "", "the same with the text of a file"},
    Option{kPrompt, 0, "system", "TEXT", "", "none", "system message", "-sys --system-prompt"},
    Option{kPrompt, 0, "raw", "", "", "", "continue the text as it is, without the chat template"},
    Option{kPrompt, 0, "parse-special", "", "", "",
           "with --raw: special tokens spelled in the text are meant"},
    Option{kPrompt, 0, "overflow", "WHAT", "stop drop-oldest", "stop",
           "when the context is full: stop, or drop-oldest turns"},
    Option{kSampling, 0, "temp", "T", "", "the model's, or 0.8",
           "temperature; 0 always takes the likeliest token", "--temperature"},
    Option{kSampling, 0, "top-k", "N", "", "the model's, or 40", "only the N likeliest tokens; 0 is off"},
    Option{kSampling, 0, "top-p", "P", "", "the model's, or 0.95",
           "only tokens that make up this share; 1 is off"},
    Option{kSampling, 0, "min-p", "P", "", "the model's, or 0.05",
           "only tokens this likely relative to the best; 0 is off"},
    Option{kSampling, 0, "repeat-penalty", "F", "", "the model's, or 1",
           "divides the logits of tokens seen; 1 is off"},
    Option{kSampling, 0, "presence", "X", "", "0", "subtracted once from the logit of a token seen",
           "--presence-penalty"},
    Option{kSampling, 0, "frequency", "X", "", "0", "subtracted each time a token was seen",
           "--frequency-penalty"},
    Option{kSampling, 0, "seed", "N", "", "random", "start of the random draws", "-s"},
    Option{kSampling, 0, "stop", "TEXT", "", "", "end the answer before this text (repeatable)"},
    Option{kSampling, 0, "logit-bias", "ID+X", "", "",
           "add X to a token's logit: 15+2.5, 15-1, 15-inf (repeatable)"},
    Option{kSampling, 0, "max-tokens", "N", "", "no limit", "most tokens of an answer",
           "-n --predict --n-predict"},
    Option{kSampling, 0, "ignore-eos", "", "", "", "go on after tokens that end an answer"},
    kBackend,
    kGpuLayers,
    kIsa,
    kThreads,
    kNuma,
    kContext,
    kKv,
    kKvFirst,
    kBatch,
    kNoMmap,
    kMlock,
    Option{kBenchmark, 0, "bench", "", "", "", "measure speed instead of answering"},
    Option{kBenchmark, 0, "tests", "LIST", "", "pp128,pp512,pp2048,tg128,tg128@d4096,tg128@d16384",
           "ppN, tgN, tgN@dDEPTH, attn@dDEPTH, batchN, mmN"},
    Option{kBenchmark, 0, "repetitions", "N", "", "3", "runs of each test"},
    Option{kBenchmark, 0, "output", "FORM", "table json csv md", "table", "form of the results"},
    Option{kBenchmark, 0, "plot", "FILE", "", "", "draw the roofline as SVG"},
    Option{kBenchmark, 0, "shape", "NAME", "", "",
           "random weights of a known model's shape, such as llama-3-8b"},
    Option{kBenchmark, 0, "scheme", "NAME", kSchemes, "w4a8-g128",
           "schemes of the random weights, as tessera quantize --help lists them; several: A,B"},
    Option{kGeneral, 0, "no-stats", "", "", "", "no speed figures after an answer"},
    kVerbose,
    Option{kGeneral, 0, "list-devices", "", "", "", "name the devices and instruction sets to be had"},
    Option{kGeneral, 0, "version", "", "", "", "print the version"},
    kHelp,
};

constexpr const char* kOutput = "Output";
constexpr const char* kWhat = "What to make";
constexpr const char* kRecipe = "Recipe";

constexpr std::array kQuantizeOptions = {
    Option{kOutput, 'o', "output", "FILE", "", "", "the .tess file to write (required)"},
    Option{kWhat, 0, "scheme", "NAME", kSchemes, "w4a8-g128",
           "f32 f16 bf16 w8a8 w4a8 w4a8-g128, or lut2 lut3 lut4 int4 followed by -g32 -g64 -g128 or -g256 "
           "and, for 8-bit activations, -a8"},
    Option{kWhat, 0, "head", "NAME", "w8a8 keep", "w8a8",
           "embedding and output head: w8a8, or keep the checkpoint's precision"},
    Option{kWhat, 0, "kv", "BITS", "4 8 16", "8", "KV cache precision the file recommends"},
    Option{kRecipe, 0, "recipe", "NAME", "qoq rtn", "qoq with --calibration, else rtn",
           "how weights become codes: rtn rounds them as they are"},
    Option{kRecipe, 0, "calibration", "FILE", "", "", "the text that qoq watches the model read"},
    Option{kRecipe, 0, "parse-special", "", "", "", "special tokens spelled in that text are meant"},
    Option{kRecipe, 0, "lines", "", "", "", "every line of it is a text of its own"},
    Option{kRecipe, 0, "calibration-windows", "N", "", "128", "most windows (or lines) of it"},
    Option{kRecipe, 0, "calibration-window", "N", "", "1024 or the context", "tokens of one window"},
    Option{kRecipe, 0, "no-rotate", "", "", "", "qoq without rotating the residual stream and the values"},
    Option{kRecipe, 0, "no-reorder", "", "", "", "qoq without sorting input channels into groups"},
    Option{kRecipe, 0, "no-smooth-attention", "", "", "", "qoq without moving key outliers to the queries"},
    Option{kRecipe, 0, "no-smooth-outputs", "", "", "", "qoq without smoothing the inputs of o and down"},
    Option{kRecipe, 0, "no-clip", "", "", "", "qoq without the search for narrower ranges"},
    Option{kRecipe, 0, "no-feedback", "", "", "", "qoq without GPTQ's error feedback"},
    Option{kRecipe, 0, "rotate", "", "", "", "lut and int4: rotation too, left out by default"},
    Option{kRecipe, 0, "awq", "", "", "",
           "lut and int4: scaling of channels by their inputs too, left out by default"},
    Option{kRecipe, 0, "no-train-scales", "", "", "",
           "lut and int4: qoq without training scales by the outputs' error"},
    Option{kRecipe, 0, "table", "NAME", "nf kmeans", "kmeans",
           "lut: the codes' values: NormalFloat, or the clusters of each matrix's weights"},
    Option{kRecipe, 0, "no-scale-search", "", "", "",
           "lut and int4: scales by the largest weight of a group instead of the least error"},
    Option{kRecipe, 0, "attention-alpha", "A", "", "searched", "exponent of the keys' smoothing, 0 to 1"},
    Option{kRecipe, 0, "output-alpha", "A", "", "searched", "exponent of the outputs' smoothing, 0 to 1"},
    kThreads,
    kVerbose,
    kHelp,
};

constexpr const char* kCompare = "Comparing";

constexpr std::array kPerplexityOptions = {
    Option{kPrompt, 0, "text", "FILE", "", "stdin", "the text to measure on"},
    Option{kPrompt, 0, "window", "N", "", "2048 or the context", "tokens of one window"},
    Option{kPrompt, 0, "stride", "N", "", "a whole window", "tokens from one window to the next"},
    Option{kPrompt, 0, "lines", "", "", "", "every line is a text and a window of its own"},
    kParseSpecial,
    Option{kCompare, 0, "kl", "FILE", "", "", "also the KL divergence from this model's predictions"},
    Option{kCompare, 0, "compare", "", "", "",
           "one table of all files; the first, or --kl, is the reference"},
    Option{kCompare, 0, "layers", "", "", "",
           "which layers cost most: each alone as in FILE, the rest as in --kl"},
    Option{kCompare, 0, "matrices", "", "", "", "the same for the groups of matrices of every layer"},
    Option{kCompare, 0, "reference-kv", "BITS", "4 8 16", "16", "precision of the reference's KV cache"},
    Option{kCompare, 0, "plot", "FILE", "", "", "draw quality against size as SVG"},
    Option{kOutput, 0, "output", "FORM", "text json csv md", "text", "form of the results"},
    kBackend,
    kGpuLayers,
    kIsa,
    kThreads,
    Option{kRunning, 0, "kv", "BITS", "4 8 16", "the file's",
           "precision of the KV cache; with --compare several: 16,8,4"},
    kKvFirst,
    kNoMmap,
    kMlock,
    kHelp,
};

constexpr std::array kInspectOptions = {
    Option{kOutput, 0, "verify", "", "", "", "check every hash and scale; exit 1 with a line per fault"},
    Option{kOutput, 0, "tensors", "", "", "", "list the tensors"},
    Option{kOutput, 0, "graph", "FORM", "dot", "", "print the computation graph instead (dot: for Graphviz)"},
    kHelp,
};

constexpr std::array kTokenizeOptions = {
    Option{kPrompt, 'p', "prompt", "TEXT", "", "stdin", "the text; - reads stdin"},
    Option{kPrompt, 'f', "file", "FILE", "", "", "the text of a file"},
    kParseSpecial,
    Option{kPrompt, 0, "bos", "", "", "",
           "begin with the token that begins a text, where the model wants one"},
    Option{kPrompt, 0, "decode", "IDS", "", "", "the way back: ids such as [1,2,3] to text"},
    kHelp,
};

constexpr std::array kCompletionsOptions = {kHelp};

constexpr std::array kVerbs = {
    Verb{"",
         "tessera [-m FILE] [options]             chat when stdin is a terminal\n"
         "       tessera [-m FILE] -p TEXT [options]     one answer on stdout\n"
         "       tessera [-m FILE] --bench [options]     measure speed\n"
         "       tessera quantize|perplexity|inspect|tokenize|completions …",
         "Runs a language model on this machine. Without -m the embedded model answers.", kRunOptions, 0, 0},
    Verb{"quantize", "tessera quantize SOURCE -o FILE [options]",
         "Turns a Hugging Face checkpoint folder or a GGUF file into a .tess file.", kQuantizeOptions, 1, 1},
    Verb{"perplexity", "tessera perplexity FILE [--text TEXT] [--kl FILE] [--compare FILE…] [options]",
         "Measures how well models predict a text, and how far they are from a reference.",
         kPerplexityOptions, 1, 256},
    Verb{"inspect", "tessera inspect FILE [options]", "Shows what a .tess file holds and checks it.",
         kInspectOptions, 1, 1},
    Verb{"tokenize", "tessera tokenize FILE|DIR -p TEXT [options]",
         "Prints the token ids of a text as a JSON array.", kTokenizeOptions, 1, 1},
    Verb{"completions", "tessera completions bash|zsh|fish", "Prints a completion script for a shell.",
         kCompletionsOptions, 1, 1},
};

// How many characters to insert, remove, replace or swap with their neighbour make one of the other.
size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> before, above(b.size() + 1), row;
  std::iota(above.begin(), above.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    row.assign(b.size() + 1, i);
    for (size_t j = 1; j <= b.size(); ++j) {
      row[j] = std::min({above[j] + 1, row[j - 1] + 1, above[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1)});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        row[j] = std::min(row[j], before[j - 2] + 1);
    }
    before.swap(above);
    above.swap(row);
  }
  return above[b.size()];
}

std::string spelled(const Option& option) {
  std::string text = option.letter != 0 ? fmt::format("-{}, --{}", option.letter, option.name)
                                        : fmt::format("    --{}", option.name);
  if (option.value[0] != '\0') text += fmt::format(" {}", option.value);
  return text;
}

}  // namespace

bool is_for_answers(const Option& option) {
  const std::string_view group = option.group;
  return group == kPrompt || group == kSampling || option.name == std::string_view("no-stats");
}

std::span<const Verb> verbs() { return kVerbs; }

const Verb* find_verb(std::string_view name) {
  const auto found =
      std::find_if(kVerbs.begin() + 1, kVerbs.end(), [&](const Verb& verb) { return verb.name == name; });
  return found != kVerbs.end() ? &*found : nullptr;
}

std::string help_text(const Verb& verb) {
  std::string text = fmt::format("Usage: {}\n\n{}\n", verb.usage, verb.summary);
  size_t width = 0;
  for (const Option& option : verb.options) width = std::max(width, spelled(option).size());
  const char* group = nullptr;
  for (const Option& option : verb.options) {
    if (group == nullptr || std::strcmp(group, option.group) != 0) {
      group = option.group;
      text += fmt::format("\n{}\n", group);
    }
    text += fmt::format("  {:<{}}  {}", spelled(option), width, option.help);
    if (option.fallback[0] != '\0') text += fmt::format(" [{}]", option.fallback);
    text += '\n';
  }
  return text;
}

std::string nearest_name(std::string_view name, std::span<const std::string> candidates) {
  if (name.size() < 2) return {};  // any other letter would be as near
  std::string best;
  size_t best_distance = std::max<size_t>(1, name.size() / 3) + 1;
  for (const std::string& candidate : candidates) {
    const size_t distance = edit_distance(name, candidate);
    if (distance < best_distance) {
      best_distance = distance;
      best = candidate;
    }
  }
  return best;
}

std::string option_hint(const Verb& verb, std::string_view unknown) {
  const bool is_word = unknown.substr(0, 2) == "--";
  const std::string_view name = unknown.substr(is_word ? 2 : 1);
  std::string meant;
  std::vector<std::string> names;
  for (const Option& option : verb.options) {
    const std::string_view own = names.emplace_back(option.name);
    // "-temp", and the longest of those that "--top-k-most" begins with; "kv" says too little to be one.
    const bool begins =
        is_word && own.size() > 2 && name.substr(0, own.size() + 1) == fmt::format("{}-", own);
    if (name == own || (begins && own.size() > meant.size())) meant = own;
  }
  // Letters such as "-cnv" are another program's abbreviations: what they resemble is not what was meant.
  if (meant.empty() && is_word) meant = nearest_name(name, names);
  return meant.empty() ? "" : fmt::format(", did you mean --{}?", meant);
}

}  // namespace tessera
