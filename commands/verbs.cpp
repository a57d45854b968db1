#include "commands/verbs.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "commands/commands.h"
#include "engine/backends.h"
#include "gguf-like-format/model_header.h"
#include "gguf-like-format/scheme.h"

namespace tessera {

namespace {

constexpr const char* kModel = "Model";
constexpr const char* kPrompt = "Prompt";
constexpr const char* kSampling = "Sampling";
constexpr const char* kRunning = "Running";
constexpr const char* kBenchmark = "Benchmark";
constexpr const char* kGeneral = "General";

std::vector<std::string_view> backend_names() {
  std::vector<std::string_view> names;
  for (const BackendRow& row : backend_table()) names.emplace_back(row.name);
  return names;
}

// Texts from other tables that options point to.
const std::string kBackendNames = fmt::format("{}", fmt::join(backend_names(), " "));
const std::string kBackendHelp = fmt::format("what computes: {}", fmt::join(backend_names(), ", "));

constexpr Option kHelp = {kGeneral, 'h', "help", "", "", "", "print this help", "--usage"};

constexpr Option kThreads = {kRunning, 0, "threads", "N", "", "all cores", "worker threads; -1: all cores",
                             "-t"};

const Option kBackend = {
    kRunning, 0, "backend", "NAME", kBackendNames.c_str(), kHostBackend, kBackendHelp.c_str()};
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
constexpr Option kContext = {
    kRunning, 0, "ctx", "N", "", "the model's", "tokens of context; 0: the model's", "-c --ctx-size"};
constexpr Option kKv = {kRunning, 0, "kv", "BITS", "4 8 16", "the file's", "precision of the KV cache"};
constexpr Option kKvFirst = {
    kRunning, 0, "kv-first-layers", "N", "", "0", "leading layers that keep a 16-bit KV cache"};
constexpr Option kBatch = {kRunning,         0, "batch", "N", "", "512", "prompt tokens in one run",
                           "-b --batch-size"};
constexpr Option kNoMmap = {
    kRunning, 0, "no-mmap", "", "", "", "read the model into memory instead of mapping it"};
constexpr Option kMlock = {kRunning, 0, "mlock", "", "", "", "lock the model's pages in memory"};
constexpr Option kCacheSize = {kModel,
                               0,
                               "cache-size",
                               "SIZE",
                               "",
                               "a tenth of the disk, at least 20G",
                               "room for models converted on first use; 0 keeps none"};
constexpr Option kMemoryCheck = {
    kRunning, 0, "memory-check", "MODE", "on off", "on", "off: go on where the model does not seem to fit"};
constexpr Option kEscape = {
    kPrompt, 'e', "escape", "", "", "", "\\n, \\t, \\xNN and so on mean what they do in C"};
constexpr Option kVerbose = {kGeneral, 0, "verbose", "", "", "", "say more on stderr", "-v"};
constexpr Option kParseSpecial = {
    kPrompt, 0, "parse-special", "", "", "", "special tokens spelled in the text are meant"};

constexpr Option kChatTemplate = {kPrompt,
                                  0,
                                  "chat-template",
                                  "FILE",
                                  "",
                                  "the file's",
                                  "a Jinja template in place of the model's own",
                                  "--chat-template-file"};

const std::array kRunOptions = {
    Option{kModel, 'm', "model", "FILE", "", "the embedded model",
           "a .tess file, a GGUF file or a checkpoint folder"},
    Option{kModel, 0, "hf-repo", "NAME", "", "",
           "-hf owner/name[:QUANT] runs a model of a hub, which is downloaded once", "-hf -hfr"},
    Option{kModel, 0, "hf-file", "FILE", "", "", "the file of that repository to take", "-hff"},
    kCacheSize,
    Option{kPrompt, 'p', "prompt", "TEXT", "", "chat",
           "answer this, and what a pipe brings; - is stdin alone"},
    Option{kPrompt, 'f', "file", "FILE", "", "", "answer the text of a file; - is stdin"},
    kEscape,
    Option{kPrompt, 0, "system", "TEXT", "", "none", "system message", "-sys --system-prompt"},
    Option{kPrompt, 0, "raw", "", "", "", "continue the text as it is, without the chat template"},
    kChatTemplate,
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
    Option{kSampling, 0, "repeat-last-n", "N", "", "64",
           "how many of the latest tokens count as seen; 0: none, -1: all"},
    Option{kSampling, 0, "presence", "X", "", "0", "subtracted once from the logit of a token seen",
           "--presence-penalty"},
    Option{kSampling, 0, "frequency", "X", "", "0", "subtracted each time a token was seen",
           "--frequency-penalty"},
    Option{kSampling, 0, "seed", "N", "", "random", "start of the random draws; -1: random", "-s"},
    Option{kSampling, 0, "stop", "TEXT", "", "", "end the answer before this text (repeatable)"},
    Option{kSampling, 0, "logit-bias", "ID+X", "", "",
           "add X to a token's logit: 15+2.5, 15-1, 15-inf (repeatable)", "-l"},
    Option{kSampling, 0, "max-tokens", "N", "", "no limit", "most tokens of an answer; -1: no limit",
           "-n --predict --n-predict"},
    Option{kSampling, 0, "ignore-eos", "", "", "", "go on after tokens that end an answer"},
    kBackend,
    kGpuLayers,
    kIsa,
    kThreads,
    kNuma,
    kContext,
    Option{kRunning, 0, "rope-scaling", "KIND", "none linear yarn", "the model's",
           "scaling of positions, so that --ctx may go beyond the model's context"},
    Option{kRunning, 0, "rope-scale", "N", "", "as --ctx needs",
           "the factor of --rope-scaling; linear without it"},
    Option{kRunning, 0, "rope-freq-scale", "X", "", "", "the same as 1 / N"},
    Option{kRunning, 0, "rope-freq-base", "N", "", "the model's", "theta, the base of RoPE"},
    Option{kRunning, 0, "yarn-orig-ctx", "N", "", "the model's",
           "with yarn: the context that the model was trained on"},
    kKv,
    kKvFirst,
    kBatch,
    kNoMmap,
    kMlock,
    kMemoryCheck,
    Option{kBenchmark, 0, "bench", "", "", "", "measure speed instead of answering"},
    Option{kBenchmark, 0, "tests", "LIST", "", "pp128,pp512,pp2048,tg128,tg128@d4096,tg128@d16384",
           "ppN, tgN, tgN@dDEPTH, attn@dDEPTH, batchN, mmN"},
    Option{kBenchmark, 0, "repetitions", "N", "", "3", "runs of each test"},
    Option{kBenchmark, 0, "output", "FORM", "table json csv md", "table", "form of the results"},
    Option{kBenchmark, 0, "plot", "FILE", "", "", "draw the roofline as SVG"},
    Option{kBenchmark, 0, "shape", "NAME", "", "",
           "random weights of a known model's shape, such as llama-3-8b"},
    Option{kBenchmark, 0, "scheme", "NAME", matrix_scheme_names(), "w4a8-g128",
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

const char* quantize_scheme_names() {
  static const std::string names =
      fmt::format("{} {} {}", kKeptScheme, kKeptInt8Scheme, matrix_scheme_names());
  return names.c_str();
}

const std::array kQuantizeOptions = {
    Option{kOutput, 'o', "output", "FILE", "", "", "the .tess file to write (required)"},
    Option{
        kWhat, 0, "scheme", "NAME", quantize_scheme_names(), "keep where there are codes, else w4a8-g128",
        "keep: the codes that the checkpoint has, in the schemes that hold them; f32 f16 bf16 w8a8 w4a8 "
        "w4a8-g128, lut2 lut3 lut4 int4 int8 followed by -g32 -g64 -g128 or -g256, int4m-g32 or int4k-g32; "
        "-a8 behind keep and names with groups: 8-bit activations"},
    Option{kWhat, 0, "head", "NAME", "w8a8 keep", "keep with --scheme keep, else w8a8",
           "embedding and output head: w8a8, or keep the checkpoint's precision"},
    Option{kWhat, 0, "kv", "BITS", "4 8 16", "8", "KV cache precision the file recommends"},
    Option{kWhat, 0, "chat-template", "FILE", "", "the checkpoint's", "a Jinja template to store instead",
           "--chat-template-file"},
    Option{kRecipe, 0, "recipe", "NAME", "qoq rtn", "qoq with --calibration, else rtn",
           "how weights become codes: rtn rounds them as they are"},
    Option{kRecipe, 0, "calibration", "FILE", "", "", "the text that qoq watches the model read"},
    Option{kRecipe, 0, "parse-special", "", "", "", "special tokens spelled in that text are meant"},
    Option{kRecipe, 0, "lines", "", "", "", "every line of it is a text of its own"},
    Option{kRecipe, 0, "calibration-windows", "N", "", "128", "most windows (or lines) of it"},
    Option{kRecipe, 0, "calibration-window", "N", "", "1024 or the context", "tokens of one window"},
    Option{kRecipe, 0, "no-rotate", "", "", "", "without rotating the residual stream and the values"},
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

const std::array kPerplexityOptions = {
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
    kMemoryCheck,
    kCacheSize,
    kHelp,
};

constexpr std::array kInspectOptions = {
    Option{kOutput, 0, "verify", "", "", "", "check every hash and scale; exit 1 with a line per fault"},
    Option{kOutput, 0, "tensors", "", "", "", "list the tensors"},
    Option{kOutput, 0, "graph", "FORM", "dot", "", "print the computation graph instead (dot: for Graphviz)"},
    kCacheSize,
    kHelp,
};

constexpr std::array kTokenizeOptions = {
    Option{kPrompt, 'p', "prompt", "TEXT", "", "stdin", "the text; - reads stdin"},
    Option{kPrompt, 'f', "file", "FILE", "", "", "the text of a file"},
    kEscape,
    kParseSpecial,
    Option{kPrompt, 0, "bos", "", "", "",
           "begin with the token that begins a text, where the model wants one"},
    Option{kPrompt, 0, "chat", "", "", "",
           "the text as a user's message: print the rendered prompt, then its ids"},
    Option{kPrompt, 0, "messages", "FILE", "", "",
           "the same of a whole conversation, a JSON list of roles and contents"},
    Option{kPrompt, 0, "system", "TEXT", "", "none", "with --chat or --messages: system message",
           "-sys --system-prompt"},
    kChatTemplate,
    Option{kPrompt, 0, "decode", "IDS", "", "", "the way back: ids such as [1,2,3] to text"},
    kHelp,
};

constexpr std::array kCacheOptions = {kHelp};

constexpr std::array kPullOptions = {kHelp};
constexpr std::array kCompletionsOptions = {kHelp};

const std::array kVerbs = {
    Verb{"",
         "tessera [-m FILE] [options]             chat when stdin is a terminal\n"
         "       tessera [-m FILE] -p TEXT [options]     one answer on stdout\n"
         "       tessera [-m FILE] --bench [options]     measure speed\n"
         "       tessera pull|quantize|perplexity|inspect|tokenize|cache|completions …",
         "Runs a language model on this machine. Without -m the embedded model answers.", kRunOptions, 0, 0,
         run_without_verb},
    Verb{"quantize", "tessera quantize SOURCE -o FILE [options]",
         "Turns a Hugging Face checkpoint folder or a GGUF file into a .tess file.", kQuantizeOptions, 1, 1,
         run_quantize},
    Verb{"perplexity", "tessera perplexity FILE [--text TEXT] [--kl FILE] [--compare FILE…] [options]",
         "Measures how well models predict a text, and how far they are from a reference.",
         kPerplexityOptions, 1, 256, run_perplexity},
    Verb{"inspect", "tessera inspect FILE [options]", "Shows what a model file holds and checks it.",
         kInspectOptions, 1, 1, run_inspect},
    Verb{"tokenize", "tessera tokenize FILE|DIR -p TEXT [options]",
         "Prints the token ids of a text, or of a conversation, as a JSON array.", kTokenizeOptions, 1, 1,
         run_tokenize},
    Verb{"cache", "tessera cache list|clear [SOURCE…]",
         "Lists or removes what GGUF files and checkpoint folders were converted to on their first use.",
         kCacheOptions, 1, 1025, run_cache, "list clear"},
    Verb{"pull", "tessera pull OWNER/NAME[:FILE|:QUANT][@REVISION]",
         "Downloads a model from a Hugging Face hub and prints where it is.", kPullOptions, 1, 1, run_pull},
    Verb{"completions", "tessera completions bash|zsh|fish", "Prints a completion script for a shell.",
         kCompletionsOptions, 1, 1, run_completions, "bash zsh fish"},
};

}  // namespace

bool is_for_answers(const Option& option) {
  const std::string_view group = option.group;
  return group == kPrompt || group == kSampling || option.name == std::string_view("no-stats");
}

bool is_for_benchmarks(const Option& option) { return std::string_view(option.group) == kBenchmark; }

std::span<const Verb> verbs() { return kVerbs; }

const Verb* find_verb(std::string_view name) {
  const auto found =
      std::find_if(kVerbs.begin() + 1, kVerbs.end(), [&](const Verb& verb) { return verb.name == name; });
  return found != kVerbs.end() ? &*found : nullptr;
}

}  // namespace tessera
