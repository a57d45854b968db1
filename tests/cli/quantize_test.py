"""quantize with the full recipe: flags, resumption after Ctrl-C, and what the file then holds."""

import os
import re
import signal
import subprocess
import time
import unittest

import tessera

TEXT = "".join(f"<|bos|><|user|>I want to book a table for {n} in San Jose.<|end|><|assistant|>What time would you "
               f"like to eat?<|end|><|user|>At {n} o'clock, please.<|end|><|eos|>\n" for n in range(2, 12))


class QuantizeTest(unittest.TestCase):
    def text(self):
        path = tessera.folder() / "calibration.txt"
        path.write_text(TEXT)
        return path

    def good(self, *arguments, **more):
        done = tessera.run(*arguments, **more)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done

    def refused(self, message, *flags, code=2):
        target = tessera.folder() / "never.tess"
        done = tessera.run("quantize", tessera.CHECKPOINT, "-o", target, *flags)
        self.assertEqual((done.returncode, done.stdout), (code, ""), done.stderr)
        self.assertEqual(len(done.stderr.strip().splitlines()), 1, done.stderr)
        self.assertIn(message, done.stderr)
        self.assertFalse(target.exists())
        self.assertFalse((tessera.folder() / "never.tess.calibration").exists())

    def test_recipe_makes_a_file_that_answers(self):
        folder = tessera.folder() / "recipe"
        folder.mkdir()
        path = folder / "qoq.tess"
        done = self.good("quantize", tessera.CHECKPOINT, "-o", path, "--calibration", self.text(), "--lines",
                         "--parse-special", "--kv", "4", "--threads", "2", "--verbose")
        # The tied head stays one with the embedding.
        self.assertRegex(done.stdout, r"(?m)^embedding +w8a8 +1 +1048576 ")
        self.assertNotRegex(done.stdout, r"(?m)^head ")
        self.assertRegex(done.stdout, r"(?m)^\d+\.\d s, \d+ s per billion parameters$")
        self.assertRegex(done.stderr, r"(?m)^layer 5: keys: alpha [01]\.\d\d$")
        self.assertRegex(done.stderr, r"(?m)^layer 0: down: output error [\d.]+ %, rounded as it is [\d.]+ %$")
        self.assertEqual(os.listdir(folder), ["qoq.tess"])
        shown = self.good("inspect", path, "--verify").stdout
        self.assertRegex(shown, r"calibration +[0-9a-f]{16}\n")
        self.assertRegex(shown, r"KV cache +4 bits")
        self.assertIn("every hash and scale is right", shown)
        answer = self.good("-m", path, "-p", tessera.PROMPT, "--temp", "0", "--max-tokens", "12")
        self.assertTrue(answer.stdout.strip())

    def test_table_scheme_makes_a_file_that_answers(self):
        folder = tessera.folder() / "table"
        folder.mkdir()
        path = folder / "lut.tess"
        done = self.good("quantize", tessera.CHECKPOINT, "-o", path, "--scheme", "lut3-g64", "--calibration",
                         self.text(), "--lines", "--parse-special", "--threads", "2", "--verbose", "--awq")
        self.assertRegex(done.stdout, r"(?m)^down +lut3-g64 +6 +1179648 .* 3\.\d+ ")
        self.assertRegex(done.stderr, r"(?m)^layer 5: ffn inputs: alpha [01]\.\d$")
        errors = re.findall(r"(?m)^layer \d: \w+: output error ([\d.]+) %, rounded as it is ([\d.]+) %$", done.stderr)
        self.assertEqual(len(errors), 6 * 7)
        self.assertLess(sum(float(found) for found, _ in errors), 0.8 * sum(float(plain) for _, plain in errors))
        self.assertEqual(os.listdir(folder), ["lut.tess"])
        shown = self.good("inspect", path, "--verify").stdout
        self.assertRegex(shown, r"calibration +[0-9a-f]{16}\n")
        self.assertIn("every hash and scale is right", shown)
        answer = self.good("-m", path, "-p", tessera.PROMPT, "--temp", "0", "--max-tokens", "12")
        self.assertTrue(answer.stdout.strip())

    def test_table_schemes_without_a_text(self):
        def error(name, *flags):
            path = tessera.folder() / f"{name}.tess"
            done = self.good("quantize", tessera.CHECKPOINT, "-o", path, *flags)
            self.assertIn("every hash and scale is right", self.good("inspect", path, "--verify").stdout)
            return float(re.search(r"(?m)^down .* ([\d.]+)%$", done.stdout)[1])

        scheme = ["--scheme", "lut2-g128-a8"]
        plain = error("plain", *scheme, "--table", "nf", "--no-scale-search")
        searched = error("searched", *scheme, "--table", "nf")
        clusters = error("clusters", *scheme)
        self.assertLess(searched, plain)
        self.assertLess(clusters, searched)
        self.assertLess(error("uniform", "--scheme", "int4-g64"),
                        error("uniform-plain", "--scheme", "int4-g64", "--no-scale-search"))

    def test_rotation_alone_needs_no_text(self):
        path = tessera.folder() / "rotated.tess"
        steps = ["--no-reorder", "--no-smooth-attention", "--no-smooth-outputs", "--no-clip", "--no-feedback"]
        self.good("quantize", tessera.CHECKPOINT, "-o", path, "--recipe", "qoq", *steps)
        self.assertIn("every hash and scale is right", self.good("inspect", path, "--verify").stdout)
        self.refused("--lines: needs --calibration", "--recipe", "qoq", "--lines", *steps)

    def test_interrupted_run_goes_on(self):
        for scheme in ("w4a8-g128", "lut4-g64-a8"):
            with self.subTest(scheme=scheme):
                self.interrupt(scheme)

    def interrupt(self, scheme):
        text = tessera.folder() / "short.txt"
        text.write_text("".join(TEXT.splitlines(keepends=True)[:3]))
        flags = ["--calibration", str(text), "--lines", "--parse-special", "--threads", "1", "--scheme", scheme]
        whole = tessera.folder() / f"whole-{scheme}.tess"
        start = time.monotonic()
        self.good("quantize", tessera.CHECKPOINT, "-o", whole, *flags)
        seconds = time.monotonic() - start

        folder = tessera.folder() / f"interrupted-{scheme}"
        folder.mkdir()
        path = folder / "again.tess"
        command = [str(tessera.BINARY), "quantize", str(tessera.CHECKPOINT), "-o", str(path), *flags]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                   env=tessera.environment())
        parts = folder / "again.tess.calibration"
        while process.poll() is None and not (parts / "layer-0.part").exists():
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=tessera.TIME_LIMIT)
        if process.returncode == 0:
            self.skipTest(f"the run ended within {seconds:.1f} s, before it could be interrupted")
        self.assertEqual(process.returncode, 130)
        self.assertIn(f"finished layers are kept in {parts}: the same command goes on from there", errors)
        self.assertFalse(path.exists())
        self.assertEqual(os.listdir(folder), [parts.name])
        done = self.good(*command[1:])
        self.assertRegex(done.stdout, r"s per billion parameters, \d+ % of the work taken over")
        self.assertEqual(os.listdir(folder), [path.name])
        # The files differ only in the command that each of them holds.
        self.assertEqual(self.tensors(path), self.tensors(whole))

    def tensors(self, path):
        """The bytes of all tensors."""
        self.assertIn("every hash and scale is right", self.good("inspect", path, "--verify").stdout)
        listed = self.good("inspect", path, "--tensors").stdout
        return path.read_bytes()[int(re.search(r"(?m)^token_embedding .* (\d+) +\d+$", listed)[1]):]

    def test_wrong_flags(self):
        text = self.text()
        self.refused("--calibration: the text that --recipe qoq needs is missing", "--recipe", "qoq")
        self.refused("--calibration: has no meaning with --recipe rtn", "--recipe", "rtn", "--calibration", text)
        self.refused("--no-clip: has no meaning with --recipe rtn", "--no-clip")
        self.refused("--lines: has no meaning with --recipe rtn", "--lines")
        self.refused("--awq: has no meaning with --scheme w4a8", "--scheme", "w4a8", "--awq")
        self.refused("--table: has no meaning with --scheme int4-g64", "--scheme", "int4-g64", "--table", "kmeans")
        self.refused("--no-clip: has no meaning with --scheme lut4-g64", "--scheme", "lut4-g64", "--no-clip")
        self.refused("--no-train-scales: has no meaning with --recipe rtn", "--scheme", "lut4-g64", "--no-train-scales")
        self.refused("--rotate and --no-rotate: expected one of them, found both", "--scheme", "lut4-g64",
                     "--calibration", text, "--rotate", "--no-rotate")
        self.refused("--scheme: expected ", "--scheme", "lut5-g64")
        self.refused("--recipe: expected qoq or rtn, found 'gptq'", "--recipe", "gptq")
        self.refused("--attention-alpha: expected a number from 0 to 1, found '2'", "--calibration", text,
                     "--attention-alpha", "2")
        self.refused("--attention-alpha: has no meaning with --no-smooth-attention", "--calibration", text,
                     "--attention-alpha", "0.5", "--no-smooth-attention")
        self.refused("--output-alpha: has no meaning with --no-smooth-outputs", "--calibration", text,
                     "--output-alpha", "0.5", "--no-smooth-outputs")
        self.refused("--calibration-windows: expected a whole number from 1", "--calibration", text,
                     "--calibration-windows", "0")
        self.refused("unknown option --no-rotat, did you mean --no-rotate?", "--calibration", text, "--no-rotat")

    def test_unusable_texts(self):
        empty = tessera.folder() / "empty.txt"
        empty.write_text("")
        self.refused("calibration text: expected at least one token, found none", "--calibration", empty, code=1)
        self.refused("no-such-file.txt", "--calibration", tessera.folder() / "no-such-file.txt", code=1)
        self.refused("calibration window: expected at most the model's context of 1024, found 4096",
                     "--calibration", self.text(), "--calibration-window", "4096", code=1)


if __name__ == "__main__":
    unittest.main()
