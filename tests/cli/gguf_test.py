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
        questions = (("w8a8", ("What is the capital of France?",)), ("w8a8", ("The capital of France is", "--raw")),
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
