"""quantize, inspect, tokenize and perplexity on real files."""

import json
import math
import os
import re
import shutil
import signal
import subprocess
import time
import unittest

import tessera
from terminal import Terminal


def begun_model():
    """A checkpoint whose texts begin with the begin token."""
    folder = tessera.folder() / "begun"
    if not folder.exists():
        shutil.copytree(tessera.CHECKPOINT, folder)
        config = json.loads((folder / "tokenizer_config.json").read_text())
        (folder / "tokenizer_config.json").write_text(json.dumps({**config, "add_bos_token": True}))
    return folder


class VerbsTest(unittest.TestCase):
    def good(self, *arguments, **more):
        done = tessera.run(*arguments, **more)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def test_quantize_reports_and_leaves_nothing_behind(self):
        folder = tessera.folder() / "quantized"
        folder.mkdir()
        sizes = {}
        for scheme in ("f32", "bf16", "f16", "w8a8", "w4a8", "w4a8-g128"):
            path = folder / f"{scheme}.tess"
            text = self.good("quantize", tessera.CHECKPOINT, "-o", path, "--scheme", scheme, "--threads", "2")
            for kind in ("embedding", "q", "k", "v", "o", "gate", "up", "down", "norm", "all"):
                self.assertRegex(text, rf"(?m)^{kind} +.*\d+\.\d+")
            self.assertIn(str(path), text)
            sizes[scheme] = path.stat().st_size
            self.assertIn("every hash and scale is right", self.good("inspect", path, "--verify"))
            answer = self.good("-m", path, "-p", tessera.PROMPT, "--temp", "0", "--max-tokens", "12")
            self.assertTrue(answer.strip(), scheme)
        self.assertEqual(sorted(os.listdir(folder)), sorted(f"{scheme}.tess" for scheme in sizes))
        self.assertLess(sizes["w4a8-g128"], sizes["w8a8"])
        self.assertLess(sizes["w8a8"], sizes["bf16"])
        self.assertLess(sizes["bf16"], sizes["f32"])
        kept = folder / "kept.tess"
        self.good("quantize", tessera.CHECKPOINT, "-o", kept, "--head", "keep", "--kv", "4")
        text = self.good("inspect", kept)
        self.assertRegex(text, r"scheme +w4a8-g128, head bf16")
        self.assertRegex(text, r"KV cache +4 bits")

    def test_quantize_replaces_whole_files_only(self):
        path = tessera.folder() / "kept.tess"
        path.write_bytes(b"precious")
        broken = tessera.folder() / "broken-checkpoint"
        broken.mkdir()
        (broken / "config.json").write_text("{}")
        done = tessera.run("quantize", broken, "-o", path)
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertEqual(path.read_bytes(), b"precious")
        process = subprocess.Popen([str(tessera.BINARY), "quantize", str(tessera.CHECKPOINT), "-o", str(path)],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=tessera.environment())
        partial = lambda: [name for name in os.listdir(path.parent) if "partial" in name]
        while process.poll() is None and not partial():
            time.sleep(0.001)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=tessera.TIME_LIMIT)
        self.assertIn(process.returncode, (0, 130))
        if process.returncode == 0 or path.read_bytes() != b"precious":  # the signal came after the file was in place
            self.good("inspect", path, "--verify")
        self.assertFalse(partial())

    def test_inspect(self):
        text = self.good("inspect", tessera.model())
        for line in ("name +tessera-tiny", "family +llama", "context +1024", "scheme +w4a8-g128, head w8a8",
                     "tokenizer +byte-bpe", r"stop tokens +\[1,6\]",
                     r"replies end +at token 1 \(settings, tokenizer\); 6 \(settings, chat template, known name\)\n",
                     "tensors +\\d+", "weights +5770496 in "):
            self.assertRegex(text, rf"(?m)^{line}")
        tensors = self.good("inspect", tessera.model(), "--tensors")
        self.assertRegex(tensors, r"(?m)^layers\.5\.down +w4a8-g128 +256×768 +\d+ +\d+$")
        dot = self.good("inspect", tessera.model(), "--graph", "dot")
        self.assertTrue(dot.startswith("digraph"))
        self.assertTrue(dot.rstrip().endswith("}"))

    def test_inspect_verify_finds_damage(self):
        data = bytearray(tessera.model().read_bytes())
        tensors = self.good("inspect", tessera.model(), "--tensors")
        offset = int(re.search(r"(?m)^layers\.3\.gate .* (\d+) +\d+$", tensors)[1])
        data[offset + 100] ^= 0x10
        path = tessera.folder() / "damaged.tess"
        path.write_bytes(data)
        done = tessera.run("inspect", path, "--verify")
        self.assertEqual(done.returncode, 1)
        self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
        self.assertIn("layers.3.gate", done.stderr)

    def test_a_begin_token_that_is_spelled_is_not_put_twice(self):
        for text, count in (("Hi", 1), ("<|bos|>Hi", 1), ("Hi<|bos|>", 2)):
            ids = json.loads(tessera.run("tokenize", begun_model(), "--bos", "--parse-special", "-p", text).stdout)
            self.assertEqual(ids.count(0), count, text)

    def test_tokenize(self):
        golden = json.loads((tessera.ROOT / "tests/golden/tessera-tiny/golden.json").read_text())
        for case in golden["tokenizer"]:
            for source in (tessera.model(), tessera.CHECKPOINT):
                ids = self.good("tokenize", source, "--parse-special", f"--prompt={case['text']}")
                self.assertEqual(json.loads(ids), case["ids"])
        for text in ("Hello, world!", "tabs\tand\nlines\n", "grüße 🐈 かな", "", "<|user|>"):
            ids = self.good("tokenize", tessera.model(), "-p", text)
            self.assertRegex(ids, r"^\[(\d+(,\d+)*)?\]\n$")
            self.assertEqual(self.good("tokenize", tessera.model(), "--decode", ids), text + "\n")
        plain = json.loads(self.good("tokenize", tessera.model(), "-p", "<|user|>"))
        special = json.loads(self.good("tokenize", tessera.model(), "-p", "<|user|>", "--parse-special"))
        self.assertGreater(len(plain), 1)
        self.assertEqual(len(special), 1)
        self.assertEqual(json.loads(self.good("tokenize", tessera.model(), "-p", "x", "--bos"))[0], 0)
        self.assertEqual(self.good("tokenize", tessera.model(), stdin="Hello, world!\n"),
                         self.good("tokenize", tessera.model(), "-p", "Hello, world!"))
        self.assertEqual(self.good("tokenize", tessera.model(), "--decode", "3 1090,6"), "<|user|>hi<|end|>\n")

    def test_tokenize_conversations(self):
        messages = [{"role": "system", "content": "Be <|end|> brief."},
                    {"role": "user", "content": [{"type": "text", "text": "Hi"}, {"type": "text", "text": " there"}]}]
        text = "<|bos|><|system|>Be <|end|> brief.<|end|><|user|>Hi there<|end|>"
        path = tessera.folder() / "messages.json"
        for document, expected in ((messages, text + "<|assistant|>"), ({"messages": messages}, text + "<|assistant|>"),
                                   (messages + [{"role": "assistant", "content": "Yo"}],
                                    text + "<|assistant|>Yo<|end|>")):
            path.write_text(json.dumps(document))
            for source in (tessera.model(), tessera.CHECKPOINT):
                done = tessera.run("tokenize", source, "--messages", path)
                self.assertEqual(done.returncode, 0, done.stderr)
                shown, ids = done.stdout.rstrip("\n").rsplit("\n", 1)
                self.assertEqual(shown, expected)
                self.assertEqual(tessera.run("tokenize", source, "--decode", ids).stdout, expected + "\n")
                # What messages spell is text; what the template spells is a token.
                end = json.loads(tessera.run("tokenize", source, "--parse-special", "-p", "<|end|>").stdout)[0]
                self.assertEqual(json.loads(ids).count(end), expected.count("<|end|>") - 1)
        path.write_text(json.dumps(messages[1:]))
        by_text = tessera.run("tokenize", tessera.model(), "--chat", "-p", "Hi there")
        self.assertEqual(tessera.run("tokenize", tessera.model(), "--messages", path).stdout, by_text.stdout)
        for document, fault in (([], "at least one message"), ([{"role": "user"}], "[0].content: missing"),
                                ({"a": 1}, "messages: missing"), ([{"role": 1, "content": ""}], "[0].role"),
                                ([{"role": "user", "content": [{"type": "image"}]}], "[0].content[0].type")):
            path.write_text(json.dumps(document))
            done = tessera.run("tokenize", tessera.model(), "--messages", path)
            self.assertEqual((done.returncode, done.stdout), (1, ""))
            self.assertIn(fault, done.stderr)
        for flags in (("--chat", "--bos"), ("--system", "x"), ("--messages", path, "-p", "x"), ("--chat", "--parse-special")):
            self.assertEqual(tessera.run("tokenize", tessera.model(), "-p", "x", *flags).returncode, 2)

    def test_decoded_text_cannot_steer_a_terminal(self):
        text = "a\x1b[31mb\x07\tc"
        ids = self.good("tokenize", tessera.model(), "-p", text)
        self.assertEqual(self.good("tokenize", tessera.model(), "--decode", ids), text + "\n")
        with Terminal("tokenize", tessera.model(), "--decode", ids) as terminal:
            self.assertEqual(terminal.exit_code(), 0)
            self.assertIn("a[31mb\tc", terminal.shown)
            self.assertNotIn("\x1b", terminal.shown)
            self.assertNotIn("\x07", terminal.shown)

    def figures(self, *arguments, **more):
        text = self.good("perplexity", tessera.model(), "--threads", "1", *arguments, **more)
        found = re.fullmatch(r"(.*)\nnats/token ([\d.]+) ± ([\d.]+)\nperplexity ([\d.]+) ± ([\d.]+)\n", text)
        self.assertIsNotNone(found, text)
        nats, perplexity = float(found[2]), float(found[4])
        self.assertAlmostEqual(perplexity, math.exp(nats), delta=1e-3 * perplexity)
        self.assertAlmostEqual(float(found[5]), perplexity * float(found[3]), delta=1e-3 + 1e-3 * perplexity)
        return found[1], nats

    def test_perplexity(self):
        line = "I want to book a table for two in San Jose. What time would you like to eat?\n"
        text = tessera.folder() / "text.txt"
        text.write_text(line * 20)
        count = len(json.loads(self.good("tokenize", tessera.model(), "-p", line * 20)))
        how, nats = self.figures("--text", text)
        self.assertEqual(how, f"1 window of {count + 1} tokens, not overlapping, each begun with the begin token; "
                              f"{count} of {count} text tokens scored")
        self.assertTrue(0 < nats < 5)
        self.assertEqual(self.figures(stdin=line * 20), (how, nats))

        how, _ = self.figures("--text", text, "--window", "33")
        full = count // 32
        self.assertIn(f"{full} windows of 33 tokens, not overlapping", how)
        self.assertIn(f"{full * 32} of {count} text tokens scored", how)
        if count % 32:
            self.assertIn(f"{count % 32} at the end left out", how)

        how, overlapping = self.figures("--text", text, "--window", "65", "--stride", "16")
        self.assertIn("16 tokens apart, each token scored once", how)
        self.assertIn(f"{64 + (count - 64) // 16 * 16} of {count} text tokens scored", how)
        _, separate = self.figures("--text", text, "--window", "17")
        self.assertLess(overlapping, separate, "more context predicts better")

        how, lines = self.figures("--text", text, "--lines")
        self.assertIn("20 lines, each a text of its own", how)
        _, alone = self.figures(stdin=line.rstrip("\n"))
        self.assertAlmostEqual(lines, alone, places=4)

    def test_perplexity_of_special_tokens(self):
        dialogue = "<|bos|><|user|>I want to book a table.<|end|><|assistant|>For how many people?<|end|><|eos|>"
        _, meant = self.figures("--lines", "--parse-special", stdin=dialogue)
        _, spelled = self.figures("--lines", stdin=dialogue)
        self.assertLess(meant, spelled)
        reference = self.good("perplexity", tessera.model(), "--lines", "--parse-special", "--backend", "reference",
                              stdin=dialogue)
        self.assertAlmostEqual(meant, float(re.search(r"nats/token ([\d.]+)", reference)[1]), delta=2e-2)

    def test_perplexity_of_too_little_text(self):
        done = tessera.run("perplexity", tessera.model(), stdin="")
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertIn("expected a text of at least 2 tokens, found 0", done.stderr)


if __name__ == "__main__":
    unittest.main()
