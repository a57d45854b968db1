"""The instruments: KL divergence, comparisons, costs of layers, their forms of output and their plot."""

import csv
import io
import json
import re
import shutil
import struct
import unittest
import xml.etree.ElementTree

import tessera

GOLDEN = json.loads((tessera.ROOT / "tests/golden/divergence.json").read_text())
SCHEMES = ("bf16", "w8a8", "w4a8-g128", "w4a8")
SVG = "{http://www.w3.org/2000/svg}"


def changed_checkpoint(name, change):
    """A copy of the embedded model's checkpoint after change(folder)."""
    folder = tessera.folder() / name
    shutil.copytree(tessera.CHECKPOINT, folder)
    change(folder)
    return folder


def zero_tensor(path, name):
    """Sets one tensor of a safetensors file to zero, where it lies."""
    data = bytearray(path.read_bytes())
    (header_bytes,) = struct.unpack_from("<Q", data)
    begin, end = json.loads(data[8:8 + header_bytes])[name]["data_offsets"]
    start = 8 + header_bytes
    data[start + begin:start + end] = bytes(end - begin)
    path.write_bytes(data)


def markdown_rows(text):
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[:1] + lines[2:]]


class PerplexityTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tessera.folder() / "instruments"
        cls.folder.mkdir()
        for scheme in SCHEMES:
            cls.quantize(tessera.CHECKPOINT, cls.folder / f"{scheme}.tess", "--scheme", scheme)
        cls.text = cls.folder / "dialogues.txt"
        cls.text.write_text("\n".join(GOLDEN["lines"]) + "\n")

    @staticmethod
    def quantize(source, target, *more):
        done = tessera.run("quantize", source, "-o", target, *more)
        assert done.returncode == 0, done.stderr
        return target

    def file(self, scheme):
        return self.folder / f"{scheme}.tess"

    def perplexity(self, *arguments, text=None):
        done = tessera.run("perplexity", *arguments, "--text", text or self.text, "--lines", "--parse-special")
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def refused(self, code, fragment, *arguments):
        done = tessera.run("perplexity", *arguments, "--text", self.text, "--lines", "--parse-special")
        self.assertEqual((done.returncode, done.stdout), (code, ""), done.stderr)
        self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
        self.assertIn(fragment, done.stderr)

    def test_divergence_agrees_with_another_implementation(self):
        def zero(folder):
            zero_tensor(folder / "model.safetensors", GOLDEN["zeroed"])
        exact = self.quantize(tessera.CHECKPOINT, self.folder / "exact.tess", "--scheme", "f32")
        zeroed = self.quantize(changed_checkpoint("zeroed", zero), self.folder / "zeroed.tess", "--scheme", "f32")
        report = json.loads(self.perplexity(zeroed, "--kl", exact, "--kv", "16", "--output", "json"))
        (result,) = report["results"]
        self.assertEqual(result["tokens"], GOLDEN["tokens"])
        self.assertGreater(GOLDEN["mean_kl"], 0.01)
        for name in ("mean_kl", "mean_kl_error", "median_kl", "kl_99", "max_kl", "nats", "nats_error", "ratio",
                     "ratio_error"):
            # What remains is the 16-bit KV cache and single precision.
            self.assertAlmostEqual(result[name] / GOLDEN[name], 1, delta=5e-3, msg=name)
        self.assertAlmostEqual(result["top1_agreement"], GOLDEN["top1_agreement"], delta=2.5 / GOLDEN["tokens"])
        self.assertAlmostEqual(report["reference"]["nats"], GOLDEN["reference_nats"], delta=1e-4)

    def test_a_context_without_room_for_a_window(self):
        def shorten(folder):
            path = folder / "config.json"
            path.write_text(json.dumps({**json.loads(path.read_text()), "max_position_embeddings": 1}))
        short = self.quantize(changed_checkpoint("short", shorten), self.folder / "short.tess")
        for more in ((), ("--lines",), ("--window", "2"), ("--kl", self.file("w4a8"))):
            done = tessera.run("perplexity", short, "--text", self.text, *more)
            self.assertEqual((done.returncode, done.stdout), (1, ""), done.stderr)
            self.assertRegex(done.stderr, r"^tessera: [^\n]*short\.tess: expected a model whose context holds at least 2 "
                                          r"tokens, found 1\n$")

    def test_a_file_does_not_differ_from_itself(self):
        for scheme in ("bf16", "w4a8"):
            text = self.perplexity(self.file(scheme), "--kl", self.file(scheme), "--kv", "16")
            self.assertIn("KL divergence mean 0, median 0, 99 % 0, maximum 0 nats/token\n", text)
            self.assertIn("same top token 100.00 ± 0.00 %\n", text)
            self.assertIn("ratio 1.00000 ± 0.00000\n", text)
        text = self.perplexity(self.file("bf16"), "--kl", self.file("bf16"), "--kv", "4", "--reference-kv", "4")
        self.assertIn("KL divergence mean 0, ", text)
        text = self.perplexity(self.file("bf16"), "--kl", self.file("bf16"), "--kv", "4", "--kv-first-layers", "6")
        self.assertIn("KL divergence mean 0, ", text)
        four = json.loads(self.perplexity(self.file("bf16"), "--kl", self.file("bf16"), "--kv", "4", "--output", "json"))
        three = json.loads(self.perplexity(self.file("bf16"), "--kl", self.file("bf16"), "--kv", "4",
                                           "--kv-first-layers", "3", "--output", "json"))
        self.assertGreater(four["results"][0]["mean_kl"], three["results"][0]["mean_kl"])
        self.assertGreater(three["results"][0]["mean_kl"], 0)
        self.assertEqual(three["results"][0]["kv_first_layers"], 3)

    def test_comparison(self):
        plot = self.folder / "quality.svg"
        arguments = ["--compare", *map(self.file, SCHEMES), "--kv", "16,4"]
        report = json.loads(self.perplexity(*arguments, "--output", "json", "--plot", plot))
        self.assertEqual(report["text"]["scored_tokens"], GOLDEN["tokens"])
        self.assertEqual((report["reference"]["name"], report["reference"]["kv"]), ("bf16", 16))
        self.assertNotIn("mean_kl", report["reference"])
        results = report["results"]
        # The reference itself has its own row already.
        self.assertEqual([(result["name"], result["kv"]) for result in results],
                         [("bf16", 4)] + [(scheme, kv) for scheme in SCHEMES[1:] for kv in (16, 4)])
        by_name = {(result["name"], result["kv"]): result for result in results}
        at16 = [by_name[scheme, 16]["mean_kl"] for scheme in SCHEMES[1:]]
        self.assertTrue(0 < at16[0] < at16[1] < at16[2], at16)
        self.assertLess(10 * at16[0], at16[2])
        bits = [by_name[scheme, 16]["bits_per_weight"] for scheme in SCHEMES[1:]]
        self.assertTrue(8.5 > bits[0] > bits[1] > bits[2] > 4, bits)
        for scheme in SCHEMES[1:]:
            self.assertEqual(by_name[scheme, 16]["file_bytes"], self.file(scheme).stat().st_size)
            self.assertLess(by_name[scheme, 16]["mean_kl"], by_name[scheme, 4]["mean_kl"])
        for result in results:
            self.assertAlmostEqual(result["ratio"], result["perplexity"] / report["reference"]["perplexity"], places=9)
            self.assertTrue(result["median_kl"] < result["mean_kl"] < result["kl_99"] < result["max_kl"])
            self.assertTrue(0.5 < result["top1_agreement"] < 1)

        # The same figures one file at a time, and in every form.
        alone = json.loads(self.perplexity(self.file("w4a8"), "--kl", self.file("bf16"), "--kv", "4", "--output", "json"))
        self.assertEqual(alone["results"][0], by_name["w4a8", 4])
        self.assertEqual(alone["reference"], report["reference"])
        rows = list(csv.DictReader(io.StringIO(self.perplexity(*arguments, "--output", "csv"))))
        self.assertEqual([row["reference"] for row in rows], ["true"] + ["false"] * 7)
        for row, result in zip(rows, [report["reference"], *results]):
            self.assertEqual((row["name"], int(row["kv"]), row["scheme"]), (result["name"], result["kv"], result["scheme"]))
            for name in ("perplexity", "nats_error", "bits_per_weight", "mean_kl", "kl_99", "top1_agreement", "ratio"):
                self.assertEqual(float(row[name]) if row[name] else None, result.get(name))
        titles, *table = markdown_rows(self.perplexity(*arguments, "--output", "md"))
        self.assertEqual(titles[:3] + titles[6:], ["model", "scheme", "KV", "mean KL", "median", "99 %", "top-1 %", "ratio"])
        self.assertEqual(table[0][6:], ["reference", "", "", "", ""])
        text = self.perplexity(*arguments)
        for cells, result in zip(table[1:], results):
            self.assertEqual((cells[0], int(cells[2])), (result["name"], result["kv"]))
            self.assertAlmostEqual(float(cells[6].split()[0]), result["mean_kl"], delta=6e-4 * result["mean_kl"])
            self.assertAlmostEqual(float(cells[9]), 100 * result["top1_agreement"], places=2)
            self.assertRegex(text, r"(?m)^" + r" +".join(map(re.escape, cells)) + r"$")

        root = xml.etree.ElementTree.parse(plot).getroot()
        self.assertEqual(root.tag, SVG + "svg")
        words = [text.text for text in root.iter(SVG + "text")]
        for scheme in SCHEMES:
            self.assertEqual(words.count(scheme), 2, words)  # a label in each diagram
        # Circles are KV 16: a legend, four in the upper diagram and three in the lower, where the reference is not.
        self.assertEqual(len(root.findall(SVG + "circle")), 1 + 4 + 3)
        self.assertEqual(len(root.findall(SVG + "polygon")), 1 + 4 + 4)

    def test_comparison_with_a_reference_of_its_own(self):
        report = json.loads(self.perplexity("--compare", self.file("w8a8"), self.file("w4a8"), "--kl", self.file("bf16"),
                                            "--reference-kv", "8", "--output", "json"))
        self.assertEqual((report["reference"]["name"], report["reference"]["kv"]), ("bf16", 8))
        self.assertEqual([result["name"] for result in report["results"]], ["w8a8", "w4a8"])
        self.assertEqual([result["kv"] for result in report["results"]], [8, 8])  # what the files recommend
        twice = self.perplexity("--compare", self.file("bf16"), self.file("w8a8"), self.file("w8a8"))
        self.assertEqual(len(re.findall(r"(?m)^w8a8 ", twice)), 1)
        there = self.folder / "there"
        there.mkdir()
        shutil.copy(self.file("w8a8"), there / "w8a8.tess")
        text = self.perplexity("--compare", self.file("bf16"), self.file("w8a8"), there / "w8a8.tess")
        self.assertIn(f"{there}/w8a8.tess ", text)

    def test_threads_change_nothing(self):
        arguments = ["--compare", self.file("bf16"), self.file("w4a8-g128"), "--kv", "8"]
        self.assertEqual(self.perplexity(*arguments, "--threads", "1"), self.perplexity(*arguments, "--threads", "2"))

    def test_layers(self):
        short = self.folder / "short.txt"
        short.write_text("\n".join(GOLDEN["lines"][:6]))
        arguments = [self.file("w4a8"), "--kl", self.file("bf16")]
        report = json.loads(self.perplexity("--layers", *arguments, "--output", "json", text=short))
        parts = report["layers"]
        self.assertEqual({part["name"] for part in parts},
                         {*(f"layers.{layer}" for layer in range(6)), "embedding and head"})
        self.assertAlmostEqual(sum(part["share"] for part in parts), 1)
        self.assertEqual(parts, sorted(parts, key=lambda part: -part["mean_kl"]))
        whole = json.loads(self.perplexity(*arguments, "--kv", "16", "--output", "json", text=short))
        self.assertEqual(report["results"], whole["results"])
        for part in parts:
            self.assertTrue(0 < part["mean_kl"] < report["results"][0]["mean_kl"])
        self.assertEqual(sum(part["weight_bytes"] for part in parts), report["results"][0]["weight_bytes"])
        by_name = {part["name"]: part for part in parts}
        self.assertEqual((by_name["embedding and head"]["scheme"], by_name["layers.0"]["scheme"]), ("w8a8", "w4a8"))

        rows = list(csv.DictReader(io.StringIO(self.perplexity("--layers", *arguments, "--output", "csv", text=short))))
        self.assertEqual([row["name"] for row in rows], [part["name"] for part in parts] + ["all"])
        self.assertEqual([float(row["mean_kl"]) for row in rows[:-1]], [part["mean_kl"] for part in parts])
        _, *table = markdown_rows(self.perplexity("--layers", *arguments, "--output", "md", text=short))
        text = self.perplexity("--layers", *arguments, text=short)
        for cells in table[:-1]:
            self.assertRegex(text, r"(?m)^" + r" +".join(map(re.escape, cells)) + r"$")

        finer = json.loads(self.perplexity("--matrices", *arguments, "--output", "json", text=short))["layers"]
        self.assertEqual(len(finer), 6 * 4 + 1)
        self.assertIn("layers.5.gate_up", {part["name"] for part in finer})
        self.assertAlmostEqual({part["name"]: part for part in finer}["embedding and head"]["mean_kl"],
                               by_name["embedding and head"]["mean_kl"])

    def test_what_cannot_be_compared(self):
        def swap_pieces(folder):
            tokenizer = json.loads((folder / "tokenizer.json").read_text())
            vocabulary = tokenizer["model"]["vocab"]
            (first, a), (second, b) = [(piece, number) for piece, number in vocabulary.items() if number in (3000, 3001)]
            vocabulary[first], vocabulary[second] = b, a
            (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
        other = self.quantize(changed_checkpoint("swapped", swap_pieces), self.folder / "swapped.tess")
        self.refused(1, "cannot be compared: token 3000 is ", self.file("w8a8"), "--kl", other)
        self.refused(1, "/nowhere/x.tess", self.file("w8a8"), "--kl", "/nowhere/x.tess")
        self.refused(2, "--compare: expected another file or KV precision beside the reference", "--compare",
                     self.file("bf16"), "--kv", "16")

    def test_models_with_other_vocabularies(self):
        small = tessera.ROOT.parent / "shared/models/stories260k"
        if not small.is_dir():
            self.skipTest(f"{small} is not there")
        stories = self.quantize(small, self.folder / "stories.tess")
        self.refused(1, "cannot be compared: their vocabularies have 4096 and 512 tokens", "--compare",
                     self.file("w8a8"), stories)
        self.refused(1, "cannot be compared: their vocabularies have 512 and 4096 tokens", self.file("w8a8"), "--kl",
                     stories, "--layers")

    def test_an_unwritable_plot_is_said(self):
        done = tessera.run("perplexity", self.file("w8a8"), "--kl", self.file("bf16"), "--text", self.text,
                           "--plot", "/nowhere/q.svg")
        self.assertEqual((done.returncode, done.stdout), (1, ""), "before anything is measured")
        self.assertIn("/nowhere/q.svg", done.stderr)


if __name__ == "__main__":
    unittest.main()
