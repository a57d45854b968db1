"""Wrong command lines: exit code 2, one line that names the flag and what it takes, nothing on stdout."""

import json
import os
import re
import subprocess
import unittest

import tessera

# arguments, a part of the line on stderr
WRONG = [
    (["--temp", "hot"], "--temp: expected a number from 0 to 10, found 'hot'"),
    (["--temp", "-1"], "--temp: expected a number from 0 to 10, found '-1'"),
    (["--temp", "nan"], "--temp: expected a number"),
    (["--temp", "1e999"], "--temp: expected a number"),
    (["--temp", "0.5x"], "--temp: expected a number"),
    (["--temp", " 1"], "--temp: expected a number"),
    (["--temp", ""], "--temp: expected a number"),
    (["--temp"], "temp"),
    (["--top-k", "-1"], "--top-k: expected a whole number from 0 to 1000000, found '-1'"),
    (["--top-k", "1.5"], "--top-k: expected a whole number"),
    (["--top-k", "99999999999999999999999"], "--top-k: expected a whole number"),
    (["--top-p", "0"], "--top-p: expected a number from 0.0001 to 1, found '0'"),
    (["--top-p", "1.01"], "--top-p: expected a number"),
    (["--min-p", "2"], "--min-p: expected a number from 0 to 1"),
    (["--repeat-penalty", "0"], "--repeat-penalty: expected a number from 0.01 to 10"),
    (["--presence", "101"], "--presence: expected a number from -100 to 100"),
    (["--frequency", "inf"], "--frequency: expected a number from -100 to 100"),
    (["--seed", "-3"], "--seed: expected a whole number of at least 0, found '-3'"),
    (["--max-tokens", "0"], "--max-tokens: expected a whole number from 1 to"),
    (["--stop", ""], "--stop: expected a text"),
    (["--logit-bias", "5"], "--logit-bias: expected ID+X"),
    (["--logit-bias", "+5"], "--logit-bias: expected ID+X"),
    (["--logit-bias", "4096+1"], "--logit-bias: token id: expected a whole number from 0 to 4095, found '4096'"),
    (["--logit-bias", "5+much"], "--logit-bias: amount: expected a number from 0 to 1000, found 'much'"),
    (["--logit-bias", "5+inf"], "--logit-bias: amount: expected"),
    (["--ctx", "-1"], "--ctx: expected a whole number from 0 to"),
    (["--max-tokens", "-2"], "--max-tokens: expected a whole number from 1 to"),
    (["--repeat-last-n", "-2"], "--repeat-last-n: expected a whole number from 0 to"),
    (["--memory-check", "no"], "--memory-check: expected on or off, found 'no'"),
    (["--threads", "-2"], "--threads: expected a whole number from 1 to 1024"),
    (["--threads", "0"], "--threads: expected a whole number from 1 to 1024"),
    (["--threads", "two"], "--threads: expected a whole number"),
    (["--batch", "65537"], "--batch: expected a whole number from 1 to 65536"),
    (["--kv", "5"], "--kv: expected 4, 8 or 16, found '5'"),
    (["--kv-first-layers", "x"], "--kv-first-layers: expected a whole number"),
    (["--backend", "tpu"], "--backend: expected cpu, cuda or reference, found 'tpu'"),
    (["-ngl", "many"], "--gpu-layers: expected a whole number from 0 to 10000, found 'many'"),
    (["-ngl=-1"], "--gpu-layers: expected a whole number"),
    (["--gpu-layers", "4", "--backend", "reference"], "--gpu-layers: needs --backend cuda, found reference"),
    (["--isa", "neon"], "--isa: expected auto, avx512, avx2 or portable, found 'neon'"),
    (["--overflow", "wrap"], "--overflow: expected stop or drop-oldest, found 'wrap'"),
    (["--raw", "--system", "x"], "--system: needs the chat template"),
    (["--parse-special"], "--parse-special: needs --raw"),
    (["-f", "x"], "-p and -f: expected one of them, found both"),
    (["--tests", "pp1"], "--tests: needs --bench"),
    (["--shape", "llama-3-8b"], "--shape: needs --bench"),
    (["--topk", "4"], "unknown option --topk, did you mean --top-k?"),
    (["--max-token", "4"], "unknown option --max-token, did you mean --max-tokens?"),
    (["--zzzzzzzzzzzz"], "unknown option --zzzzzzzzzzzz\n"),
    (["-z"], "unknown option -z\n"),
    (["-q", "8"], "unknown option -q\n"),
    (["-t8"], "unknown option -t8\n"),
    (["-temp", "1"], "unknown option -temp, did you mean --temp?\n"),
    (["-fa"], "unknown option -fa: attention is always computed in pieces, leave it out\n"),
    (["-fa=on"], "unknown option -fa: attention"),
    (["--threads-batch=4"], "unknown option --threads-batch: --threads counts for prompts and answers\n"),
    (["--top-k-most", "4"], "unknown option --top-k-most, did you mean --top-k?\n"),
    (["--kv-unified"], "unknown option --kv-unified\n"),
    (["--hlep"], "unknown option --hlep, did you mean --help?\n"),
    (["--keeps", "2"], "unknown option --keeps\n"),
    (["--operands", "x"], "unknown option --operands\n"),
    (["--raw=maybe"], "--raw: takes no value, found 'maybe'"),
    (["--seed"], "--seed: N is missing"),
    (["--max-tokens", "some"], "--max-tokens: expected a whole number"),
    (["more words\nand lines"], r"unexpected 'more words\nand lines'"),
]

WRONG_ELSEWHERE = [
    (["quantise"], "unknown command 'quantise', did you mean quantize?"),
    (["Tell me a story"], "unknown command 'Tell me a story'; a prompt is given with -p"),
    (["-p", ""], "the prompt is empty"),
    (["-p", " \n\t"], "the prompt is empty"),
    (["-f", "/dev/null"], "the prompt is empty"),
    (["-e", "-p", "-"], "--escape: needs a text with -p, --system or --stop"),
    (["-e"], "--escape: needs a text with -p, --system or --stop"),
    (["-e", "-p", r"\n\t"], "the prompt is empty"),
    (["tokenize", "MODEL", "-e"], "--escape: needs a text with -p"),
    (["quantize", "somewhere", "-o", "x", "-fa"], "unknown option -fa\n"),
    ([], "the prompt is empty"),  # stdin is no terminal and has nothing
    (["quantize"], "usage: tessera quantize SOURCE -o FILE"),
    (["quantize", "somewhere"], "-o: the .tess file to write is missing"),
    (["quantize", "somewhere", "-o", "x", "--scheme", "w3"], "--scheme: expected keep, keep-a8, f32, f16, bf16, w8a8, w4a8, w4a8-g128,"),
    (["quantize", "somewhere", "-o", "x", "--scheme", "u8"], "--scheme: expected"),
    (["quantize", "somewhere", "-o", "x", "--head", "w4a8"], "--head: expected w8a8 or keep, found 'w4a8'"),
    (["quantize", "somewhere", "-o", "x", "--temp", "1"], "unknown option --temp"),
    (["perplexity"], "usage: tessera perplexity FILE"),
    (["perplexity", "x", "--window", "1"], "--window: expected a whole number from 2 to"),
    (["perplexity", "x", "--lines", "--stride", "4"], "--stride: has no meaning with --lines"),
    (["perplexity", "MODEL", "--window", "2048"], "--window: expected at most the model's context of 1024, found 2048"),
    (["perplexity", "MODEL", "--window", "64", "--stride", "64"], "--stride: expected at most the 63 text tokens"),
    (["perplexity", "x", "y"], "unexpected 'y'; several files need --compare"),
    (["perplexity", "x", "--kv", "16,8"], "--kv: several precisions need --compare"),
    (["perplexity", "--compare", "x", "--kv", "16,"], "--kv: expected 4, 8 or 16, found ''"),
    (["perplexity", "--compare", "x", "--kv", "16,5"], "--kv: expected 4, 8 or 16, found '5'"),
    (["perplexity", "x", "--reference-kv", "3"], "--reference-kv: expected 4, 8 or 16, found '3'"),
    (["perplexity", "x", "--reference-kv", "8"], "--reference-kv: needs --kl or --compare"),
    (["perplexity", "x", "--layers"], "--layers: needs --kl"),
    (["perplexity", "x", "--layers", "--kl", "y", "--compare"], "--layers and --compare: expected one of them"),
    (["perplexity", "x", "--layers", "--kl", "y", "--kv", "4"], "--layers: judges weights"),
    (["perplexity", "x", "--matrices", "--kl", "y", "--plot", "z"], "--plot: needs --compare, or --kl without --layers"),
    (["perplexity", "x", "--plot", "z"], "--plot: needs --compare"),
    (["perplexity", "x", "--output", "table"], "--output: expected text, json, csv or md, found 'table'"),
    (["inspect"], "usage: tessera inspect FILE"),
    (["inspect", "--operands", "x"], "unknown option --operands"),
    (["inspect", "x", "y"], "unexpected 'y'"),
    (["inspect", "x", "--graph", "svg"], "--graph: expected dot, found 'svg'"),
    (["inspect", "x", "--graph", "dot", "--verify"], "--graph: prints only the graph"),
    (["tokenize"], "usage: tessera tokenize FILE|DIR"),
    (["tokenize", "MODEL", "--decode", "[1,4096]"], "--decode: token id: expected a whole number from 0 to 4095"),
    (["tokenize", "MODEL", "--decode", "[1,2"], "--decode: expected ids such as [1,2,3]"),
    (["tokenize", "MODEL", "--decode", "1", "-p", "x"], "--decode: takes the place of -p"),
    (["completions"], "usage: tessera completions bash|zsh|fish"),
    (["completions", "tcsh"], "completions: expected bash, zsh or fish, found 'tcsh'"),
    (["--bench", "--tests", "pp0"], "--tests: 'pp0': expected a whole number from 1 to"),
    (["--bench", "--tests", "pp128,,tg1"], "--tests: expected ppN, tgN, tgN@dDEPTH, attn@dDEPTH, batchN or mmN"),
    (["--bench", "--tests", "tg8@4096"], "--tests: 'tg8@4096': expected a whole number"),
    (["--bench", "--tests", "quick"], "--tests: expected ppN"),
    (["--bench", "--repetitions", "0"], "--repetitions: expected a whole number from 1 to 1000"),
    (["--bench", "--output", "xml"], "--output: expected table, json, csv or md, found 'xml'"),
    (["--bench", "--shape", "llama-9"], "--shape: expected one of gpt2, "),
    (["--bench", "--shape", "llama-3-8b", "-m", "x"], "-m and --shape: expected one of them"),
    (["--bench", "--scheme", "w8a8"], "--scheme: needs --shape"),
    *((["--bench", *words], f"{words[0]}: has no meaning with --bench") for words in (
        ["--prompt", "x"], ["--file", "x"], ["--system", "x"], ["--raw"], ["--parse-special"], ["--overflow", "stop"],
        ["--temp", "1"], ["--seed", "1"], ["--stop", "x"], ["--max-tokens", "1"], ["--ignore-eos"], ["--no-stats"])),
    (["--bench", "--shape", "smollm2-135m", "--no-mmap"], "--no-mmap: has no meaning with --shape"),
    (["-p", "x", "--backend", "reference", "--isa", "avx2"], "--isa: has no meaning with --backend reference"),
    (["-p", "x", "--backend", "reference", "--numa", "off"], "--numa: has no meaning with --backend reference"),
    (["-p", "x", "--no-mmap"], "--no-mmap: needs -m"),
    (["quantize", "somewhere", "-o", "x", "--verbose"], "--verbose: says what a recipe chose"),
]


class FlagsTest(unittest.TestCase):
    def refused(self, arguments, fragment):
        done = tessera.run(*arguments)
        self.assertEqual(done.returncode, 2, (arguments, done.stderr))
        self.assertEqual(done.stdout, "", arguments)
        self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
        self.assertTrue(done.stderr.startswith("tessera: "), done.stderr)
        self.assertIn(fragment, done.stderr)

    def test_wrong_flags_of_a_run(self):
        for arguments, fragment in WRONG:
            with self.subTest(arguments=arguments):
                self.refused(["-p", "x", *arguments], fragment)

    def test_wrong_flags_elsewhere(self):
        for arguments, fragment in WRONG_ELSEWHERE:
            with self.subTest(arguments=arguments):
                self.refused([tessera.model() if word == "MODEL" else word for word in arguments], fragment)

    def test_values_within_a_word(self):
        """A letter's value may follow it at once, as one follows = after a name: whatever it holds, however long."""
        def ids(*arguments):
            done = tessera.run("tokenize", tessera.model(), *arguments)
            self.assertEqual((done.returncode, done.stderr), (0, ""), arguments[0][:20])
            return json.loads(done.stdout)
        for text in ("hi", "a\nb", "a=b", "-", "--raw", "a" * 40000, "two words " * 4000):
            expected = ids("-f", self.file_of(text))
            if text != "-":
                self.assertEqual(ids("-p", text), expected)
                self.assertEqual(ids("-p" + text), expected)
                self.assertEqual(ids("--prompt=" + text), expected)
            self.assertEqual(ids("-p==" + text), ids("-f", self.file_of("=" + text)), "one = belongs to the option")
        self.assertEqual(ids("-p=hi"), ids("-p", "hi"))
        self.assertEqual(tessera.run("--" + "q" * 40000).returncode, 2)
        self.assertEqual(tessera.run("a" * 40000).returncode, 2)
        for arguments in (["inspect", "a" * 40000], ["-p", "x", "-m" + "a" * 40000], ["-f" + "a" * 40000]):
            done = tessera.run(*arguments)
            self.assertEqual((done.returncode, done.stdout), (1, ""))
            self.assertTrue(done.stderr.endswith(": File name too long\n"), done.stderr[-80:])

    @staticmethod
    def file_of(text):
        path = tessera.folder() / "prompt.txt"
        path.write_text(text)
        return path

    def test_other_spellings(self):
        """What llama.cpp calls an option."""
        ask = ["-p", tessera.PROMPT, "--verbose", "--no-stats"]
        usual = tessera.run(*ask, "--temp", "0.5", "--presence", "0.1", "--frequency", "0.2", "--seed", "7",
                            "--max-tokens", "9", "--ctx", "96", "--batch", "16", "--threads", "1",
                            "--system", "Be brief.")
        self.assertEqual(usual.returncode, 0, usual.stderr)
        self.assertIn("max-tokens: 9\n", usual.stderr)
        without_memory = re.compile("[^;]*available\n")
        for other in ("--temperature 0.5 --presence-penalty 0.1 --frequency-penalty 0.2 -s 7 -n 9 -c 96 -b 16 -t 1 -sys",
                      "--temperature=0.5 --presence-penalty=0.1 --frequency-penalty=0.2 -s=7 --n-predict=9 "
                      "--ctx-size=96 --batch-size=16 -t=1 --system-prompt"):
            done = tessera.run(*ask, *other.split(), "Be brief.")
            self.assertEqual((done.returncode, done.stdout), (0, usual.stdout), done.stderr)
            self.assertEqual(without_memory.sub("", done.stderr), without_memory.sub("", usual.stderr))

    def test_options_of_llama_cpp(self):
        """The tables of the last section of docs/command-line.md: what is taken, and what is refused in which words."""
        text = (tessera.ROOT / "docs/command-line.md").read_text().partition("## Coming from llama.cpp")[2]
        tables = re.findall(r"(?m)^\|---\|---\|\n((?:\|.*\n)+)", text)
        self.assertEqual(len(tables), 2)
        rows = [re.findall(r"(?m)^\| (.*?) \| (.*) \|$", table) for table in tables]
        values = {"FILE": "x", "NAME": "x", "TEXT": "x", "N": "1", "T": "0.5", "F": "1.5", "P": "0.5", "X": "0.5",
                  "MODE": "local", "ID+X": "5+1"}
        for first, _ in rows[0]:
            words = [word.split() for word in re.findall("`([^`]*)`", first)]
            value = [values[word] for word in words[-1][1:]]
            for name, *_ in words:
                done = tessera.run(name, *value, "--version")
                self.assertEqual((done.returncode, done.stderr), (0, ""), name)
        for first, instead in rows[1]:
            for name in re.findall("`([^`]*)`", first):
                done = tessera.run("-p", "x", name, "1", "--version")
                self.assertEqual((done.returncode, done.stdout), (2, ""), name)
                self.assertEqual(done.stderr, f"tessera: unknown option {name}: {instead.replace('`', '')}\n")

    def test_values_of_llama_cpp(self):
        """-1 and 0 where llama.cpp's users write them for what is the default here."""
        ask = ["-p", tessera.PROMPT, "--temp", "0", "--no-stats", "--verbose"]
        usual = tessera.run(*ask)
        self.assertEqual(usual.returncode, 0, usual.stderr)
        done = tessera.run(*ask, "-n", "-1", "-c", "0", "-t", "-1", "-s", "-1")
        self.assertEqual((done.returncode, done.stdout), (0, usual.stdout), done.stderr)
        self.assertIn("max-tokens: none\n", done.stderr)
        seeds = set()
        for _ in range(2):
            done = tessera.run("-p", tessera.PROMPT, "-s", "-1", "-n", "4")
            self.assertEqual(done.returncode, 0)
            (seed,) = re.findall(r"(?m)^seed: (\d+)$", done.stderr)
            seeds.add(seed)
            self.assertEqual(tessera.run("-p", tessera.PROMPT, "-s", seed, "-n", "4").stdout, done.stdout)
        self.assertEqual(len(seeds), 2)
        self.assertNotIn("seed", tessera.run("-p", tessera.PROMPT, "-s", "4", "-n", "4").stderr)

    def test_repeat_last_n(self):
        def answer(*more):
            done = tessera.run("-p", "Tell me a story.", "--raw", "--temp", "0", "--ignore-eos", "-n", "100",
                               "--repeat-penalty", "1.5", *more)
            self.assertEqual(done.returncode, 0, done.stderr)
            return done.stdout
        self.assertEqual(answer(), answer("--repeat-last-n", "64"))
        self.assertEqual(answer("--repeat-last-n", "0"), answer("--repeat-penalty", "1"))
        self.assertEqual(answer("--repeat-last-n", "-1"), answer("--repeat-last-n", "1024"))
        self.assertEqual(len({answer("--repeat-last-n", count) for count in (0, 4, 64, -1)}), 4)

    def test_escapes(self):
        def ids(*arguments):
            done = tessera.run("tokenize", tessera.model(), *arguments)
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            return json.loads(done.stdout)
        for spelled, meant in ((r"a\nb\rc\td", "a\nb\rc\td"), (r"\'\"\\n", "'\"\\n"), (r"\x41\x7a\xC3\xBC", "Az\u00fc"),
                               (r"\q\x4\x\xg1\x-1\0", r"\q\x4\x\xg1\x-1\0"), ("end\\", "end\\"), (r"\x414", "A4")):
            self.assertEqual(ids("-e", "-p", spelled), ids("-f", self.file_of(meant + "\n")), spelled)
            self.assertEqual(ids("-p", spelled), ids("-f", self.file_of(spelled + "\n")), spelled)
        ask = ["--temp", "0", "-n", "20", "--no-stats"]
        plain = tessera.run(*ask, "-p", "Find me\na hotel", "--system", "Be\tbrief.", "--stop", "Z").stdout
        self.assertEqual(tessera.run(*ask, "-e", "-p", r"Find me\na hotel", "--system", r"Be\tbrief.", "--stop",
                                     r"\x5a").stdout, plain)
        self.assertNotEqual(plain, "\n")

    def test_help(self):
        for verb in ((), ("quantize",), ("perplexity",), ("inspect",), ("tokenize",), ("completions",)):
            done = tessera.run(*verb, "--help")
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            self.assertTrue(done.stdout.startswith("Usage: tessera"))
            self.assertEqual(tessera.run(*verb, "-h").stdout, done.stdout)
        text = tessera.run("--help").stdout
        for group in ("Model", "Prompt", "Sampling", "Running", "Benchmark", "General"):
            self.assertRegex(text, f"(?m)^{group}$")
        for flag in ("temp top-k top-p min-p repeat-penalty repeat-last-n presence frequency seed stop logit-bias max-tokens "
                     "ignore-eos backend gpu-layers isa threads ctx kv kv-first-layers batch no-mmap mlock memory-check "
                     "escape list-devices verbose raw overflow "
                     "no-stats bench output tests shape plot").split():
            self.assertEqual(len(re.findall(rf"(?m)^  (?:-.,|   ) --{flag}(?![\w-]).*  \S", text)), 1, flag)
        self.assertRegex(text, r"--top-k N .*\[the model's, or 40\]")

    def test_version_and_devices(self):
        self.assertRegex(tessera.run("--version").stdout, r"^tessera \d+\.\d+\.\d+\n$")
        devices = tessera.run("--list-devices")
        self.assertEqual(devices.returncode, 0)
        self.assertRegex(devices.stdout, r"(?m)^cpu: .*threads")
        self.assertRegex(devices.stdout, r"(?m)^reference: ")
        cuda = re.search(r"(?m)^cuda: (.*)$", devices.stdout)
        self.assertTrue(cuda, devices.stdout)
        if cuda[1].startswith("not "):  # the build or the machine has none: one line, and nothing else breaks
            refused = tessera.run("-p", "x", "--backend", "cuda")
            self.assertEqual((refused.returncode, refused.stdout), (1, ""))
            self.assertRegex(refused.stderr, r"^[^\n]*backend cuda: [^\n]+\n$")

    def test_no_layers_on_a_gpu(self):
        ask = ["-p", tessera.PROMPT, "--temp", "0", "--max-tokens", "8"]
        plain = tessera.run(*ask)
        self.assertEqual(plain.returncode, 0, plain.stderr)
        for flags in (["-ngl", "0"], ["-ngl=0"], ["--gpu-layers", "0", "--backend", "cpu"]):
            done = tessera.run(*ask, *flags)
            self.assertEqual((done.returncode, done.stdout), (0, plain.stdout), done.stderr)

    def test_files_that_are_not_there(self):
        for arguments, name in ((["-m", "/nowhere/x.tess", "-p", "x"], "/nowhere/x.tess"),
                                (["-f", "/nowhere/prompt"], "/nowhere/prompt"), (["-f", "/"], "/: "),
                                (["inspect", "/nowhere/x"], "/nowhere/x"),
                                (["quantize", "/nowhere/c", "-o", "/tmp/x.tess"], "/nowhere/c"),
                                (["quantize", str(tessera.CHECKPOINT), "-o", "/nowhere/x.tess"], "/nowhere/x.tess"),
                                (["tokenize", "/nowhere/x", "-p", "x"], "/nowhere/x"),
                                (["perplexity", str(tessera.model()), "--text", "/nowhere/t"], "/nowhere/t")):
            done = tessera.run(*arguments)
            self.assertEqual((done.returncode, done.stdout), (1, ""), arguments)
            self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
            self.assertIn(name, done.stderr)

    def test_stdin_that_is_closed(self):
        done = subprocess.run(["sh", "-c", '"$0" <&-', str(tessera.BINARY)], capture_output=True, text=True,
                              env=tessera.environment(), timeout=tessera.TIME_LIMIT)
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertIn("tessera: stdin: cannot be read", done.stderr)

    def test_completions(self):
        for shell, mark in (("bash", "complete -o filenames -F _tessera tessera"), ("zsh", "#compdef tessera"),
                            ("fish", "complete -c tessera")):
            done = tessera.run("completions", shell)
            self.assertEqual(done.returncode, 0)
            self.assertIn(mark, done.stdout)
            self.assertIn("drop-oldest", done.stdout)
            if subprocess.run(["sh", "-c", f"command -v {shell}"], capture_output=True).returncode == 0:
                checked = subprocess.run([shell, "-n"], input=done.stdout, capture_output=True, text=True)
                self.assertEqual((checked.returncode, checked.stderr), (0, ""), shell)

    def test_bash_completes(self):
        script = tessera.folder() / "tessera.bash"
        script.write_text(tessera.run("completions", "bash").stdout)

        def complete(*words):
            lines = f'source {script}\nCOMP_WORDS=({" ".join(map(repr, words))})\nCOMP_CWORD={len(words) - 1}\n' \
                    '_tessera\nprintf "%s\\n" "${COMPREPLY[@]}"\n'
            return subprocess.run(["bash", "--norc"], input=lines, capture_output=True, text=True).stdout.split()
        self.assertEqual(complete("tessera", "quan"), ["quantize"])
        self.assertEqual(complete("tessera", "--min"), ["--min-p"])
        self.assertEqual(complete("tessera", "--kv", ""), ["4", "8", "16"])
        self.assertEqual(complete("tessera", "quantize", "x", "--head", "k"), ["keep"])
        self.assertEqual(complete("tessera", "completions", "f"), ["fish"])


if __name__ == "__main__":
    unittest.main()
