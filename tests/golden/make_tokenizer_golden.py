#!/usr/bin/env python3
"""Writes tokenizer_golden.json: 300 varied lines and their ids by established tokenizer libraries.

Usage: make_tokenizer_golden.py SHARED_DIR
SHARED_DIR holds tokenizers/{gpt2,llama2,llama3,qwen2,smollm2} and models/{tessera-tiny,stories260k}.
Needs the Python packages tokenizers, transformers and sentencepiece.

For every tokenizer the file has "special" (ids of each line with special tokens recognised), "plain" (line
number -> ids where they differ when special tokens are ordinary text) and "decoded" (line number -> text where
decoding gives something else than the line, as composition to NFC does).

Also writes tokenizer_variants.json: two small vocabularies, many ways to set up the rest of a tokenizer.json
around them (split behaviors, prefixes, flags of added tokens, unknown characters), and the ids for some lines.
"""
import base64
import json
import os
import random
import re
import sys

import sentencepiece
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import AddedToken, GPT2Tokenizer, Qwen2Tokenizer
from transformers.convert_slow_tokenizer import TikTokenConverter

LINES = 300

HAND_WRITTEN = [
    "",
    " ",
    "  ",
    "\n",
    "\t",
    "\r\n",
    "a",
    "Hello, world!",
    " Hello",
    "Hello ",
    "   leading and trailing   ",
    "The quick brown fox jumps over the lazy dog.",
    "I'm sure we'll say they've gone; it's what she'd do, isn't it? YOU'RE RIGHT, I'LL GO. 'Tis 'sblood",
    "It\u2019s a \u201cquoted\u201d line \u2014 with typographic marks\u2026",
    "'\u017f '\u017f'S 'T '\u212a can'\u017ft",
    "1234567890 12 345 6789 3.14159 -273.15 1e-5 0x7fff 1,000,000 \u0661\u0662\u0663 \u2167 \u00bd \u2460 x\u00b2",
    "line one\nline two\r\nline three\rline four\n\n\nline seven\u2028separator\u2029paragraph",
    "a\u00a0b\u2003c\u3000d\u200be\ufefff\u180eg\u0085h\u1680i",
    " \u180e \u180e",
    "tabs\tand\t\tmore\t \t mixed  \n \n  \t\n",
    "trailing newline\n",
    "spaces then newline    \n    then indent",
    "x" * 300,
    "ab" * 400,
    " " * 200,
    "\n" * 60,
    "\t" * 40 + "deep",
    "0" * 120,
    "=" * 90 + "\n" + "-" * 90,
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab" * 4,
    "Donaudampfschifffahrtselektrizit\u00e4tenhauptbetriebswerkbauunterbeamtengesellschaft",
    "#include <cstdint>\nint main() {\n\treturn 0;  // done\n}\n",
    "def f(x: int) -> str:\n    return f\"{x!r:>10}\" if x else ''\n",
    "SELECT * FROM t WHERE a <> 'b''c' AND d IS NOT NULL;",
    "{\"key\": [1, 2.5, true, null], \"nested\": {\"a\\u00e9\": \"\\n\"}}",
    "<div class=\"x\" style='y'>&nbsp;&lt;tag/&gt;</div>",
    "https://example.org/path/to?query=1&other=%20%C3%A9#frag user.name+tag@example.co.uk",
    "C:\\Users\\name\\file.txt /usr/local/bin/../lib ~/.config $HOME `cmd` $(cmd) ${var:-default}",
    "for(;;){if(!a&&b||c)a^=b<<=2;}//***//**/",
    "\U0001F600\U0001F601\U0001F602 \U0001F468\u200d\U0001F469\u200d\U0001F467\u200d\U0001F466 \U0001F3F3\ufe0f\u200d\U0001F308",
    "\U0001F44B\U0001F3FD \U0001F1E9\U0001F1EA\U0001F1EB\U0001F1F7 \u2764\ufe0f \u0031\ufe0f\u20e3 \U0001FAE0",
    "\u4f60\u597d\uff0c\u4e16\u754c\uff01\u8fd9\u662f\u4e00\u4e2a\u6d4b\u8bd5\u3002",
    "\u3053\u3093\u306b\u3061\u306f\u4e16\u754c\u3002\u30ab\u30bf\u30ab\u30ca \uff76\uff80\uff76\uff85 \u309b\u3099",
    "\uc548\ub155\ud558\uc138\uc694 \uc138\uacc4 \u1112\u1161\u11ab\u1100\u1173\u11af",
    "\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645 \u0627\u0644\u0633\u0651\u064e\u0644\u064e\u0627\u0645\u064f",
    "\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd \u05d1\u05b0\u05bc\u05e8\u05b5\u05d0\u05e9\u05b4\u05c1\u05d9\u05ea",
    "\u0928\u092e\u0938\u094d\u0924\u0947 \u0926\u0941\u0928\u093f\u092f\u093e \u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35\u0e0a\u0e32\u0e27\u0e42\u0e25\u0e01",
    "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440! \u0395\u03bb\u03bb\u03b7\u03bd\u03b9\u03ba\u03ac \u10d2\u10d0\u10db\u10d0\u10e0\u10ef\u10dd\u10d1\u10d0",
    "cafe\u0301 na\u0308ive \u00e9\u0301 e\u0323\u0302 e\u0302\u0323 o\u0328\u0304 \u1e69 s\u0307\u0323 s\u0323\u0307",
    "\u212b \u2126 \u00c5 A\u030a \ufb01 \u2460 \u0344 \u0958 \u2adc \U0001D15E \ufb1d",
    "a\u0300\u0301\u0302\u0303\u0304\u0305\u0306\u0307\u0308 Z\u0351\u036b\u0343\u036a\u0302\u036b\u033d\u034f\u0334\u0319",
    "\u0301starts with a mark; \u200d joiner \u200c \u2060",
    "e\u200d\u0301 x\u0338= \u226e <\u0338",
    "<|endoftext|>",
    "a<|endoftext|>b",
    "<s>",
    "<s>hello</s>",
    "<s> hello </s> world <unk> x",
    "text <s> middle </s>",
    "<unk><unk>",
    "<s><s>",
    "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n",
    "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHello<|eot_id|>",
    "<|bos|><|user|>I want to book a table.<|end|><|assistant|>",
    " <|im_start|> <|im_end|>  <|eot_id|>\n\n",
    "<|im_start|<|im_start|>|> <|IM_START|> <|im_start |> <|endoftext|",
    "<tool_call>\n{\"name\": \"f\"}\n</tool_call><|fim_prefix|>x<|fim_suffix|>",
    "<|reserved_special_token_0|><|reserved_special_token_100|><|reserved_special_token_1|>0|>",
    "<|repo_name|><repo_name><reponame><file_sep><jupyter_code><empty_output>",
    "<0x41><0x0A> \u2581\u2581x \u0120word \u010a",
    "[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nWhy? [/INST]",
    "\u2581",
    "\u2581leading mark",
    "\x00\x01\x02\x1f\x7f\u0080\u009f",
    "null\x00inside",
    "\ufffd\ufffe\uffff\U0010ffff \ue000 \U000e0041 \u0378",
    "\u0600\u0601 \u06dd \u2066bidi\u2069 \u202eright\u202c",
    "\ud7ff\ue000\ufdd0 \U0001F9D1\u200d\U0001F680 \u2602 \u00ad soft\u00adhyphen",
    "mixed\u0435\u0442\u4e2d\u0639\u05d0\uc5441\u0967a_b-c",
    "snake_case camelCase PascalCase SCREAMING_CASE kebab-case x1y2z3",
    "...!!!???;;;:::,,, ~~~ ``` *** ### $$$ %%% ^^^ &&& ((( ))) [[[ ]]] {{{ }}}",
    "No space,after;comma.And.dots...then  two   three    four     five",
    "   \u3000\u3000  indented\n\u3000\u3000\u6bb5\u843d",
    "\u00bfQu\u00e9 tal? \u00a1Ol\u00e9! \u00df\u00e6\u00f8\u00e5 \u0141\u00f3d\u017a \u011f\u0131\u015f",
    "supercalifragilisticexpialidocious antidisestablishmentarianism pneumonoultramicroscopicsilicovolcanoconiosis",
]

WORDS = (
    "the of and to in is you that it he was for on are as with his they at be this have from or one had by word but "
    "not what all were we when your can said there use an each which she do how their if will up other about out many "
    "then them these so some her would make like him into time has look two more write go see number no way could "
    "people my than first water been call who oil its now find long down day did get come made may part tokenizer "
    "quantization attention embedding Paris Berlin Tokyo O'Neill e.g. i.e. U.S.A. HTTP JSON UTF-8 résumé naïve "
    "übergröße señor façade coöperate Straße Æsop œuvre don't won't it's we're I'd y'all rock'n'roll"
).split()
SCRIPTS = [
    (0x0041, 0x007A), (0x00C0, 0x017F), (0x0250, 0x02AF), (0x0300, 0x036F), (0x0370, 0x03FF), (0x0400, 0x04FF),
    (0x0531, 0x058A), (0x0591, 0x05EA), (0x0620, 0x065F), (0x0660, 0x0669), (0x0904, 0x094D), (0x0985, 0x09B9),
    (0x0E01, 0x0E4F), (0x10A0, 0x10FF), (0x1100, 0x11FF), (0x1E00, 0x1EFF), (0x2010, 0x205E), (0x20A0, 0x20BF),
    (0x2190, 0x21FF), (0x2200, 0x22FF), (0x2500, 0x257F), (0x3041, 0x30FF), (0x4E00, 0x9FA5), (0xAC00, 0xD7A3),
    (0xFF01, 0xFF5E), (0x1D400, 0x1D4FF), (0x1F300, 0x1F5FF), (0x1F600, 0x1F64F), (0x20000, 0x200FF),
]
SPACES = [" ", "  ", "    ", "\t", "\n", "\r\n", "\n\n", " \n", "\u00a0", "\u3000", "\t\t", "\n    "]
SPECIALS = ["<s>", "</s>", "<unk>", "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|eot_id|>", "<|user|>", "<|end|>",
            "<|begin_of_text|>", "<|bos|>", "<|", "|>", "<tool_call>", "<|fim_middle|>"]
CODE = ["(", ")", "{", "}", "[", "]", ";", "->", "==", "!=", "<=", "&&", "||", "//", "/*", "*/", "::", "++", "+=", "#",
        "0x1F", "1.5e-3", "i", "self", "return", "const", "std", "nullptr", "lambda", "\"str\"", "'c'", "\\n", "\t", "    "]


def random_line(rng):
    kind = rng.randrange(9)
    if kind == 0:
        return " ".join(rng.choice(WORDS) for _ in range(rng.randint(1, 25))) + rng.choice([".", "!", "?", "", "\n"])
    if kind == 1:
        low, high = rng.choice(SCRIPTS)
        return "".join(chr(rng.randint(low, high)) if rng.random() < 0.85 else rng.choice(SPACES)
                       for _ in range(rng.randint(1, 30)))
    if kind == 2:
        parts = []
        for _ in range(rng.randint(2, 14)):
            low, high = rng.choice(SCRIPTS)
            parts.append("".join(chr(rng.randint(low, high)) for _ in range(rng.randint(1, 4))))
        return rng.choice(SPACES).join(parts)
    if kind == 3:
        return "".join(rng.choice(CODE) + rng.choice(["", " "]) for _ in range(rng.randint(3, 35)))
    if kind == 4:
        return "".join(rng.choice(SPACES) if rng.random() < 0.6 else rng.choice(WORDS) for _ in range(rng.randint(2, 25)))
    if kind == 5:
        return "".join(rng.choice([str(rng.randrange(10 ** rng.randint(1, 12))), ".", ",", "-", " ", "%", "$"])
                       for _ in range(rng.randint(2, 20)))
    if kind == 6:
        return "".join(rng.choice([rng.choice(SPECIALS), rng.choice(WORDS), rng.choice(SPACES)])
                       for _ in range(rng.randint(2, 12)))
    if kind == 7:
        base = "".join(rng.choice("aeiouAEOncs\u0438\u0437") + "".join(chr(rng.randint(0x300, 0x345))
                       for _ in range(rng.choice([0, 1, 1, 2, 3]))) for _ in range(rng.randint(1, 18)))
        return base + rng.choice(["", " x", "\n"])
    faces = [0x1F600 + rng.randrange(0x45) for _ in range(rng.randint(1, 6))]
    joined = rng.choice(["\u200d", "", " ", "\ufe0f", "\U0001F3FE"]).join(chr(face) for face in faces)
    return rng.choice(WORDS) + rng.choice(["", " "]) + joined + rng.choice(WORDS)


def make_lines():
    rng = random.Random(20260)
    lines = list(HAND_WRITTEN)
    lines.append(" ".join(rng.choice(WORDS) for _ in range(350)))
    lines.append("".join(rng.choice("abcdefghij") for _ in range(700)))
    while len(lines) < LINES:
        lines.append(random_line(rng))
    return lines


class Fast:
    """A tokenizer of the tokenizers library."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()

    def encode(self, line, parse_special):
        self.tokenizer.encode_special_tokens = not parse_special
        return self.tokenizer.encode(line, add_special_tokens=False).ids

    def decode(self, ids):
        return self.tokenizer.decode(ids, skip_special_tokens=False)


class SentencePiece:
    """A SentencePiece model; text between special tokens is encoded by itself.

    Only the first part gets a space in front unless legacy is set, where every part does."""

    SPECIAL = ["<s>", "</s>", "<unk>"]

    def __init__(self, path, legacy):
        with open(path, "rb") as file:
            proto = file.read()
        self.model = sentencepiece.SentencePieceProcessor(model_proto=proto)
        # A message that comes again is merged with the first: normalizer_spec { add_dummy_prefix: false }.
        self.bare = sentencepiece.SentencePieceProcessor(model_proto=proto + b"\x1a\x02\x18\x00")
        self.legacy = legacy

    def encode(self, line, parse_special):
        if not parse_special:
            return self.model.encode(line)
        ids = []
        for number, part in enumerate(re.split("(<s>|</s>|<unk>)", line)):
            if part in self.SPECIAL:
                ids.append(self.model.piece_to_id(part))
            elif part:
                ids += (self.model if self.legacy or number == 0 else self.bare).encode(part)
        return ids

    def decode(self, ids):
        raw = b""
        for token in ids:
            piece = self.model.id_to_piece(token)
            raw += bytes([int(piece[3:5], 16)]) if self.model.is_byte(token) else piece.replace("\u2581", " ").encode()
        text = raw.decode()
        return text[1:] if text.startswith(" ") else text


class BareTikToken(TikTokenConverter):
    @staticmethod
    def load_tiktoken_bpe(tiktoken_url):
        with open(tiktoken_url, "rb") as file:
            return {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in file if line.strip())}


def added_tokens(config):
    with open(config, encoding="utf-8") as file:
        entries = json.load(file)["added_tokens_decoder"]
    return [AddedToken(e["content"], single_word=e["single_word"], lstrip=e["lstrip"], rstrip=e["rstrip"],
                       normalized=e["normalized"], special=e["special"]) for _, e in sorted(entries.items(), key=lambda e: int(e[0]))]


def make_tokenizers(shared):
    def at(*parts):
        return os.path.join(shared, *parts)

    yield "gpt2", Fast(GPT2Tokenizer(vocab=at("tokenizers/gpt2/encoder.json"), merges=at("tokenizers/gpt2/vocab.bpe"))._tokenizer)
    yield "llama2-json", Fast(Tokenizer.from_file(at("tokenizers/llama2/tokenizer.json")))
    yield "llama2-model", SentencePiece(at("tokenizers/llama2/tokenizer.model"), legacy=False)
    names = [token.content for token in added_tokens(at("tokenizers/llama3/tokenizer_config.json"))]
    yield "llama3", Fast(BareTikToken(at("tokenizers/llama3/tokenizer.model"), extra_special_tokens=names).converted())
    for name, config in (("qwen2", "tokenizer_config.json"), ("qwen3", "qwen3_tokenizer_config.json")):
        qwen = Qwen2Tokenizer(vocab=at("tokenizers/qwen2/vocab.json"), merges=at("tokenizers/qwen2/merges.txt"))._tokenizer
        tokens = added_tokens(at("tokenizers/qwen2", config))
        qwen.add_tokens(tokens)
        yield name, Fast(qwen)
    yield "smollm2", Fast(Tokenizer.from_file(at("tokenizers/smollm2/tokenizer.json")))
    yield "tessera-tiny", Fast(Tokenizer.from_file(at("models/tessera-tiny/tokenizer.json")))
    yield "stories260k", SentencePiece(at("models/stories260k/tokenizer.model"), legacy=True)


VARIANT_LINES = [
    "", " ", "hello world", " hello  world ", "the cat, the hat; the bat.", "a1b22c333 4444 v2.0", "x  y   z    ",
    "line\nline\r\n  indented\n\n", "can't won't it's", "CamelCase snake_case", "caf\u00e9 \u4e16\u754c \U0001F600!",
    "<tag>", "a<tag>b", "a <tag> b", "a  <tag>  b", "<tag><tag>", "<tag> <tag>", "word<tag>", "<tag>word", "<word>", "x<word>y",
    "x <word> y", "<word> <word>", "\u00e9<word>\u00e9", "-<word>-", "<left> a", "a <left> b", "a \n<left>b", " <left>", "<right> a",
    "a <right>  b", "a<right>\n b<right> <left>c", "<spec>", "a<spec>b <spec> c", "<tag", "tag>", "<ta<tag>g>", "<longer>",
    "<longer tag>", "<longer tag>>", "the <longer tag> of", "\u2581", "\u2581a \u2581b", "a\u2581b", "  ", "\t\t", "\u00a0x\u3000y",
    "12\u00bd\u0663\u2167x", "zzz\u0416zz \u0416\u0416", "\u0416", "\U0001F468\u200d\U0001F469", "the the the the", "....", "a.b.c", ".",
    "hello" * 30, " " * 50 + "x", "theof" * 25 + " the",
]
CORPUS = [" ".join(WORDS[i:] + WORDS[:i]) + " hello world the cat the hat 12 22 333 v2.0\n  indented" for i in range(0, 120, 3)]
BYTE_DECODER = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
TEXT_DECODER = {"type": "Sequence", "decoders": [
    {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
    {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}


def byte_level(prefix=False, regex=False):
    return {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": True, "use_regex": regex}


def added(content, **flags):
    entry = {"content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    entry.update(flags)
    return entry


ADDED = [added("<tag>"), added("<word>", single_word=True), added("<left>", lstrip=True), added("<right>", rstrip=True),
         added("<spec>", special=True), added("<longer"), added("<longer tag>", special=True)]


def split(pattern, behavior, invert=False):
    return {"type": "Split", "pattern": pattern, "behavior": behavior, "invert": invert}


def sequence(*steps):
    return {"type": "Sequence", "pretokenizers": list(steps)}


def metaspace(scheme, cut):
    return {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": scheme, "split": cut}


def byte_variants():
    for behavior in ("Isolated", "Removed", "Contiguous", "MergedWithPrevious", "MergedWithNext"):
        for invert in (False, True):
            for pattern in ({"Regex": "\\s+|\\w"}, {"String": "e"}, {"Regex": "(?=[aeiou])"}, {"Regex": "[aeiou]*"}):
                yield {"pre_tokenizer": sequence(split(pattern, behavior, invert), byte_level()), "added_tokens": ADDED}
    for individual in (False, True):
        yield {"pre_tokenizer": sequence({"type": "Digits", "individual_digits": individual}, byte_level(regex=True)), "added_tokens": ADDED}
    for prefix in (False, True):
        for regex in (False, True):
            yield {"pre_tokenizer": byte_level(prefix, regex), "added_tokens": ADDED}
    yield {"pre_tokenizer": sequence(sequence(split({"Regex": "\\p{N}{1,3}"}, "Isolated")), split({"Regex": "[^\\W\\d]+|\\S"}, "Isolated"), byte_level())}
    yield {"pre_tokenizer": byte_level(), "normalizer": {"type": "NFC"}, "added_tokens": [added("e\u0301 \u4e16", normalized=True), added("hat", normalized=True, single_word=True)]}
    yield {"pre_tokenizer": byte_level(regex=True), "model": {"ignore_merges": True}, "added_tokens": ADDED}
    every = [dict(token, lstrip=True, rstrip=True) for token in ADDED]
    yield {"pre_tokenizer": byte_level(regex=True), "added_tokens": every}
    yield {"pre_tokenizer": byte_level(True, True), "added_tokens": [dict(token, normalized=True) for token in ADDED],
           "normalizer": {"type": "Sequence", "normalizers": [{"type": "Replace", "pattern": {"String": "the"}, "content": "<tag>"}, {"type": "NFC"}]}}


def text_variants():
    spaces = [{"type": "Prepend", "prepend": "\u2581"}, {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}]
    marked = {"type": "Sequence", "normalizers": spaces}
    for unknown in ({"byte_fallback": True}, {"byte_fallback": False}, {"byte_fallback": False, "fuse_unk": True}, {"byte_fallback": False, "unk_token": None}):
        yield {"normalizer": marked, "model": unknown, "added_tokens": ADDED}
        for scheme in ("always", "first", "never"):
            for cut in (False, True):
                yield {"pre_tokenizer": metaspace(scheme, cut), "model": unknown, "added_tokens": ADDED}
    yield {"normalizer": spaces[1], "pre_tokenizer": split({"String": "\u2581"}, "MergedWithPrevious"), "added_tokens": ADDED}
    yield {"normalizer": marked, "added_tokens": [dict(token, normalized=True) for token in ADDED]}


def train(pre_tokenizer, alphabet, size, specials, replace):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, special_tokens=specials, show_progress=False)
    tokenizer.train_from_iterator([line.replace(" ", replace) for line in CORPUS], trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return {"vocab": model["vocab"], "merges": [list(merge) for merge in model["merges"]]}


def write_variants(path):
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    bases = {
        "bytes": train(pre_tokenizers.ByteLevel(add_prefix_space=False), pre_tokenizers.ByteLevel.alphabet(), 420, [], " "),
        "text": train(pre_tokenizers.Split("\u2581", "merged_with_next"), list("\u2581abcdefghijklmnopqrstuvwxyz.,!<>12"), 460, ["<unk>"] + byte_tokens, "\u2581"),
    }
    settings = {
        "bytes": {"decoder": BYTE_DECODER, "model": {"unk_token": None, "fuse_unk": False, "byte_fallback": False}},
        "text": {"decoder": TEXT_DECODER, "model": {"unk_token": "<unk>", "fuse_unk": False, "byte_fallback": True}},
    }
    variants = []
    for base, made in (("bytes", byte_variants()), ("text", text_variants())):
        for variant in made:
            document = {"version": "1.0", "truncation": None, "padding": None, "normalizer": None, "pre_tokenizer": None,
                        "post_processor": None, "added_tokens": []}
            document.update(settings[base], **variant)
            document["model"] = dict({"type": "BPE", "dropout": None, "ignore_merges": False}, **settings[base]["model"])
            document["model"].update(variant.get("model", {}))
            count = len(bases[base]["vocab"])
            document["added_tokens"] = [dict(token, id=count + i) for i, token in enumerate(document["added_tokens"])]
            full = dict(document, model=dict(document["model"], **bases[base]))
            tokenizer = Fast(Tokenizer.from_str(json.dumps(full)))
            special = [tokenizer.encode(line, True) for line in VARIANT_LINES]
            plain = {str(i): ids for i, ids in enumerate(tokenizer.encode(line, False) for line in VARIANT_LINES) if ids != special[i]}
            decoded = [tokenizer.decode(ids) for ids in special]
            variants.append({"base": base, "tokenizer": document, "special": special, "plain": plain,
                             "decoded": {str(i): text for i, text in enumerate(decoded) if text != VARIANT_LINES[i]}})
    with open(path, "w", encoding="utf-8") as file:
        json.dump({"lines": VARIANT_LINES, "bases": bases, "variants": variants}, file, ensure_ascii=True, separators=(",", ":"))
        file.write("\n")
    print(f"{path}: {len(variants)} variants, {os.path.getsize(path)} bytes")


def main():
    shared = sys.argv[1]
    write_variants(os.path.join(os.path.dirname(os.path.abspath(__file__)), "tokenizer_variants.json"))
    lines = make_lines()
    golden = {"lines": lines, "tokenizers": {}}
    for name, tokenizer in make_tokenizers(shared):
        special = [tokenizer.encode(line, True) for line in lines]
        plain = {}
        decoded = {}
        for number, line in enumerate(lines):
            ids = tokenizer.encode(line, False)
            if ids != special[number]:
                plain[str(number)] = ids
            text = tokenizer.decode(special[number])
            if text != line:
                decoded[str(number)] = text
        golden["tokenizers"][name] = {"special": special, "plain": plain, "decoded": decoded}
        print(f"{name}: {sum(map(len, special))} ids, {len(plain)} lines differ when plain, {len(decoded)} decode otherwise")
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "tokenizer_golden.json")
    with open(path, "w", encoding="utf-8") as file:
        json.dump(golden, file, ensure_ascii=True, separators=(",", ":"))
        file.write("\n")
    print(f"{path}: {os.path.getsize(path)} bytes")


if __name__ == "__main__":
    main()
