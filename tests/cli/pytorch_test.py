"""Checkpoint folders whose weights are in pytorch_model.bin."""

import json
import pathlib
import shutil
import tempfile
import unittest

import pytorch_bytes
import tessera

MODELS = tessera.ROOT / "tests/golden/models"


class PytorchTest(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="pytorch-", dir=tessera.folder()))
        self.addCleanup(shutil.rmtree, self.folder)

    def quantized(self, kind, make):
        """The .tess file of a folder that make fills: all are called alike, so that files are too."""
        home = self.folder / kind
        (home / "model").mkdir(parents=True)
        make(home / "model")
        done = tessera.run("quantize", "model", "-o", "model.tess", "--scheme", "w8a8", cwd=home)
        self.assertEqual(done.returncode, 0, done.stderr)
        return (home / "model.tess").read_bytes()

    def test_the_same_file_as_from_safetensors(self):
        for name in ("llama-linear-f32", "qwen2-biased-f16", "mistral-bf16"):
            with self.subTest(name=name):
                source = MODELS / name
                expected = self.quantized(name, lambda to: shutil.copytree(source, to, dirs_exist_ok=True))
                single = self.quantized(name + "-single", lambda to: pytorch_bytes.convert(source, to))
                shards = self.quantized(name + "-shards", lambda to: pytorch_bytes.convert(source, to, 3))
                self.assertEqual(single, expected)
                self.assertEqual(shards, expected)

    def refused(self, change, expected):
        home = pathlib.Path(tempfile.mkdtemp(dir=self.folder))
        pytorch_bytes.convert(MODELS / "qwen2-biased-f16", home, 2)
        change(home)
        done = tessera.run("quantize", home, "-o", self.folder / "out.tess")
        self.assertEqual(done.returncode, 1)
        self.assertIn(expected, done.stderr)
        self.assertEqual(done.stderr.count("\n"), 1)
        self.assertFalse((self.folder / "out.tess").exists())

    def test_refusals(self):
        shard, index = "pytorch_model-00001-of-00002.bin", "pytorch_model.bin.index.json"

        def elsewhere(home):
            text = (home / index).read_text().replace(shard, "../" + shard)
            (home / index).write_text(text)

        def moved(home):
            document = json.loads((home / index).read_text())
            document["weight_map"]["extra"] = shard
            (home / index).write_text(json.dumps(document))

        def hostile(home):
            # As many bytes as what they replace, so that the archive stays whole.
            content = (home / shard).read_bytes()
            call, other = b"ccollections\nOrderedDict\n)R(", b"cposix\nsystem\nX\x08\0\0\0rm -rf ~("
            self.assertEqual((content.count(call), len(call)), (1, len(other)))
            (home / shard).write_bytes(content.replace(call, other))

        self.refused(lambda home: (home / shard).unlink(), "pytorch_model.bin.index.json names it")
        self.refused(elsewhere, "the name of a file in the same folder")
        self.refused(moved, "extra: missing, but the index says it is here")
        self.refused(hostile, "only names that tensors need, found posix.system")
        self.refused(lambda home: (home / shard).write_bytes((home / shard).read_bytes()[:-100]), "cut off")
        self.refused(lambda home: (home / shard).write_bytes(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j"), "since version 1.6")


if __name__ == "__main__":
    unittest.main()
