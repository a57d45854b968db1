"""quantize with GGUF files: what comes out is what comes out of the folder, and what is broken is refused."""

import os
import pathlib
import struct
import unittest

import gguf_bytes
import tessera
from tess_bytes import TessBytes

GREEDY = ("--temp", "0", "--max-tokens", "24", "--no-stats")


class GgufTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.content = gguf_bytes.convert(tessera.CHECKPOINT)
        cls.folder = tessera.folder() / "gguf"
        cls.folder.mkdir(exist_ok=True)
        cls.source = cls.folder / "tiny.gguf"
        cls.source.write_bytes(cls.content)

    def quantized(self, source, name, *flags):
        target = self.folder / name
        done = tessera.run("quantize", source, "-o", target, *flags)
        self.assertEqual(done.returncode, 0, done.stderr)
        return target

    def test_weights_are_those_of_the_folder(self):
        for flags in ((), ("--scheme", "bf16")):
            with self.subTest(flags):
                ours = TessBytes(self.quantized(self.source, "ours.tess", *flags).read_bytes())
                theirs = TessBytes(self.quantized(tessera.CHECKPOINT, "theirs.tess", *flags).read_bytes())
                weights = [[(entry["name"], entry["scheme"], entry["shape"], entry["xxh64"])
                            for entry in file.header["tensors"]] for file in (ours, theirs)]
                self.assertEqual(*weights)
                self.assertEqual(ours.header["model"] | {"name": "tessera-tiny"}, theirs.header["model"])
                self.assertEqual(ours.header["model"]["name"], "tiny")
                self.assertEqual(ours.header["chat"], theirs.header["chat"])

    def test_answers_are_those_of_the_folder(self):
        ours = self.quantized(self.source, "answer.tess")
        answers = [tessera.run("-m", model, "-p", tessera.PROMPT, *GREEDY) for model in (ours, tessera.model())]
        self.assertEqual(answers[0].returncode, 0, answers[0].stderr)
        self.assertEqual(answers[0].stdout, answers[1].stdout)
        self.assertTrue(answers[0].stdout.strip())

    def test_calibration_reads_it_too(self):
        sample = self.folder / "text.txt"
        sample.write_text("I want to book a table for two. What time would you like it?\n" * 20)
        target = self.quantized(self.source, "calibrated.tess", "--calibration", sample, "--calibration-windows", "2",
                                "--calibration-window", "32", "--threads", "2")
        self.assertIn("every hash and scale is right", tessera.run("inspect", target, "--verify").stdout)

    def test_codes_are_kept(self):
        kinds = {f"blk.0.attn_{part}.weight": gguf_bytes.Q4_0 for part in "qkv"}
        kinds |= {"blk.0.attn_output.weight": gguf_bytes.Q4_1, "blk.0.ffn_down.weight": gguf_bytes.Q5_1,
                  "blk.1.attn_v.weight": gguf_bytes.Q8_0}
        source = self.folder / "mixed.gguf"
        source.write_bytes(gguf_bytes.convert(tessera.CHECKPOINT, kinds=kinds))
        target = self.folder / "mixed.tess"
        for flags, scheme in (((), "keep"), (("--scheme", "keep"), "keep"), (("--scheme", "keep-a8"), "keep-a8")):
            with self.subTest(flags):
                done = tessera.run("quantize", source, "-o", target, *flags)
                self.assertEqual(done.returncode, 0, done.stderr)
                end = "-a8" if scheme == "keep-a8" else ""
                four = "int4-g32" if end else "lut4-g32"
                self.assertRegex(done.stdout, rf"(?m)^q +{four}{end} +Q4_0 +kept +1 .* exact$")
                self.assertRegex(done.stdout, rf"(?m)^o +int4m-g32{end} +Q4_1 +kept +1 .* exact$")
                self.assertRegex(done.stdout, r"(?m)^o +bf16 +BF16 +kept +5 .* exact$")
                self.assertRegex(done.stdout, rf"(?m)^down +int8-g32{end} +Q5_1 +converted +1 .* 0\.\d+%$")
                self.assertRegex(done.stdout, rf"(?m)^v +int8-g32{end} +Q8_0 +kept +1 .* exact$")
                # Beside v, which is in codes, and so that the three take one type.
                self.assertRegex(done.stdout, rf"(?m)^q +int8-g32{end} +BF16 +converted +1 .* 0\.\d+%$")
                self.assertRegex(done.stdout, r"(?m)^embedding +bf16 +BF16 +kept +1 .* exact$")
                shown = tessera.run("inspect", target, "--verify")
                self.assertRegex(shown.stdout, rf"scheme +{scheme}, head bf16\n")
                self.assertIn("every hash and scale is right", shown.stdout)
                answer = tessera.run("-m", target, "-p", tessera.PROMPT, *GREEDY)
                self.assertEqual(answer.returncode, 0, answer.stderr)
                self.assertTrue(answer.stdout.strip())

    def test_ways_of_rounding_and_kept_codes_exclude_each_other(self):
        source = self.folder / "one.gguf"
        kinds = {"blk.0.attn_output.weight": gguf_bytes.Q8_0}
        source.write_bytes(gguf_bytes.convert(tessera.CHECKPOINT, kinds=kinds))
        target = self.folder / "one.tess"
        for flags in (("--recipe", "rtn"), ("--calibration", "-"), ("--no-scale-search",), ("--awq",)):
            with self.subTest(flags):
                done = tessera.run("quantize", source, "-o", target, "--scheme", "keep", *flags)
                self.assertEqual((done.returncode, done.stdout), (2, ""), done.stderr)
                self.assertIn(f"{flags[0]}: has no meaning with --scheme keep", done.stderr)
                self.assertFalse(target.exists())
        rounded = self.quantized(source, "rounded.tess", "--recipe", "rtn")
        self.assertRegex(tessera.run("inspect", rounded).stdout, r"scheme +w4a8-g128, head w8a8\n")
        head = self.quantized(source, "head.tess", "--head", "w8a8")
        self.assertRegex(tessera.run("inspect", head).stdout, r"scheme +keep, head w8a8\n")

    def test_broken_files_are_refused(self):
        content = self.content
        version = struct.pack("<I", 1)
        cases = {"cut": (content[:1000], "expected"),
                 "cut-data": (content[:-1], "found data of"),
                 "version": (content[:4] + version + content[8:], "version: expected 2 or 3, found 1"),
                 "architecture": (content.replace(b"llama", b"lmama", 1), 'found "lmama"'),
                 "empty": (b"", "magic")}
        for name, (broken, fragment) in cases.items():
            with self.subTest(name):
                source, target = self.folder / f"{name}.gguf", self.folder / f"{name}.tess"
                source.write_bytes(broken)
                done = tessera.run("quantize", source, "-o", target)
                self.assertEqual((done.returncode, done.stdout), (1, ""), done.stderr)
                self.assertEqual(len(done.stderr.strip().splitlines()), 1, done.stderr)
                self.assertIn(f"{name}.gguf", done.stderr)
                self.assertIn(fragment, done.stderr)
                self.assertFalse(target.exists())

    def test_real_model_answers(self):
        models = os.environ.get("TESSERA_REAL_MODELS")
        source = pathlib.Path(models or "") / "smollm2-135m-instruct.gguf"
        if models is None or not source.exists():
            self.skipTest("no smollm2-135m-instruct.gguf in $TESSERA_REAL_MODELS")
        questions = (("keep", ("What is the capital of France?",)),
                     ("w8a8", ("What is the capital of France?",)), ("w8a8", ("The capital of France is", "--raw")),
                     ("w4a8-g128", ("What is the capital of France?",)))
        for scheme, question in questions:
            with self.subTest(scheme=scheme, question=question):
                target = self.folder / f"smollm2-{scheme}.tess"
                if not target.exists():
                    self.quantized(source, target.name, "--scheme", scheme)
                done = tessera.run("-m", target, "-p", *question, *GREEDY)
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertIn("Paris", done.stdout)


if __name__ == "__main__":
    unittest.main()
