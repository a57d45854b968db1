"""The benchmark's forms of output, its skipped tests and its plot."""

import csv
import io
import json
import unittest
import xml.etree.ElementTree

import tessera

TESTS = "pp32,tg4,tg4@d64,batch3,pp2048,tg128@d4096"


class BenchTest(unittest.TestCase):
    def bench(self, *arguments):
        done = tessera.run("--bench", "--tests", TESTS, "--repetitions", "2", *arguments)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("pp2048 skipped: needs 2048 tokens of context, the model has 1024", done.stderr)
        return done.stdout

    def test_json_and_plot(self):
        plot = tessera.folder() / "roof.svg"
        report = json.loads(self.bench("--output", "json", "--plot", plot))
        self.assertGreater(report["limits"]["read_gbps"], 0)
        self.assertGreater(report["limits"]["int8_gops"], 0)
        self.assertEqual({name: report["model"][name] for name in ("name", "scheme", "kv")},
                         {"name": "tessera-tiny", "scheme": "w4a8-g128", "kv": 8})
        self.assertGreater(report["model"]["weight_bytes"], 3_000_000)
        self.assertEqual([result["test"] for result in report["results"]], ["pp32", "tg4", "tg4@d64", "batch3"])
        for result in report["results"]:
            self.assertLessEqual(result["low"], result["tokens_per_second"])
            self.assertLessEqual(result["tokens_per_second"], result["high"])
            self.assertGreater(result["low"], 0)
            self.assertGreater(result["share"], 0)
            self.assertIn(result["limit"], ("read_gbps", "int8_gops"))
        by_name = {result["test"]: result for result in report["results"]}
        self.assertEqual(by_name["pp32"]["limit"], "int8_gops")
        self.assertEqual(by_name["tg4"]["limit"], "read_gbps")
        self.assertAlmostEqual(by_name["batch3"]["bytes_per_token"] * 3, by_name["tg4"]["bytes_per_token"], places=3)
        self.assertGreater(by_name["tg4@d64"]["kv_bytes_per_token"], by_name["tg4"]["kv_bytes_per_token"])
        # 2 operations for every weight of the linear layers: all but norms, and the embedding is the head too.
        self.assertEqual(by_name["tg4"]["operations_per_token"], 2 * (5770496 - 13 * 256))
        self.assertEqual([skipped["test"] for skipped in report["skipped"]], ["pp2048", "tg128@d4096"])
        root = xml.etree.ElementTree.parse(plot).getroot()
        self.assertEqual(root.tag, "{http://www.w3.org/2000/svg}svg")
        self.assertEqual(len(root.findall("{http://www.w3.org/2000/svg}circle")), 4)

    def test_other_forms(self):
        rows = list(csv.DictReader(io.StringIO(self.bench("--output", "csv"))))
        self.assertEqual(len(rows), 6)
        self.assertGreater(float(rows[0]["tokens_per_second"]), 0)
        self.assertIn("needs 2048 tokens", rows[4]["skipped"])
        markdown = self.bench("--output", "md")
        self.assertIn("| test | tokens/s |", markdown)
        self.assertIn("| pp2048 | skipped: ", markdown)
        table = self.bench()
        for name in ("pp32", "tg4", "tg4@d64", "batch3"):
            self.assertRegex(table, rf"(?m)^{name} +[\d.]+ +[\d.]+ +[\d.]+ .* % of ")
        self.assertIn("GB/s read", table)

    def test_products(self):
        done = tessera.run("--bench", "--tests", "mm1,mm5", "--output", "json")
        self.assertEqual(done.returncode, 0, done.stderr)
        products = json.loads(done.stdout)["products"]
        self.assertEqual([product["name"] for product in products], ["qkv", "o", "gate_up", "down", "logits"] * 2)
        self.assertEqual([product["tokens"] for product in products], [1] * 5 + [5] * 5)
        self.assertEqual([product["place"] for product in products], [None] * 10)
        for product in products:
            self.assertGreater(product["gbps"], 0)
            self.assertIsNone(product["library_f16_microseconds"])
        self.assertRegex(tessera.run("--bench", "--tests", "mm2").stdout, r"(?m)^mm2 +gate_up +\d+ +\d+ +w4a8-g128 +[\d.]+")
        self.assertEqual(len(tessera.run("--bench", "--tests", "mm2", "--output", "csv").stdout.splitlines()), 6)

    def test_a_plot_that_cannot_be_written_is_found_out_first(self):
        done = tessera.run("--bench", "--tests", "tg1", "--repetitions", "1", "--plot", "/nowhere/roof.svg")
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertRegex(done.stderr, r"^tessera: /nowhere/roof.svg: cannot be written: .*\n$")

    def test_nothing_that_fits(self):
        done = tessera.run("--bench", "--tests", "pp2048", "--repetitions", "1")
        self.assertEqual(done.returncode, 1)
        self.assertIn("tessera: no test could be run", done.stderr)
        done = tessera.run("--bench", "--tests", "pp128", "--ctx", "64")
        self.assertIn("pp128 skipped: needs 128 tokens of context, --ctx gives 64", done.stderr)

    def test_random_weights(self):
        schemes = ["w4a8-g128", "lut3-g64-a8", "int4-g128"]
        done = tessera.run("--bench", "--shape", "smollm2-135m", "--scheme", ",".join(schemes), "--tests", "tg1",
                           "--repetitions", "1", "--output", "json")
        self.assertEqual(done.returncode, 0, done.stderr)
        reports = json.loads(done.stdout)
        self.assertEqual([report["model"]["scheme"] for report in reports], schemes)
        for report in reports:
            self.assertEqual(report["model"]["name"], "smollm2-135m")
            # 134.5M weights in all; the embedding of a tied model is the head and is read like any other.
            self.assertEqual(report["results"][0]["operations_per_token"], 2 * (134515008 - 61 * 576))

    def test_several_schemes_need_a_shape(self):
        for arguments, line in ((("--scheme", "bf16"), "--scheme: needs --shape"),
                                (("--shape", "smollm2-135m", "--scheme", "bf16,lut5"), "found 'lut5'"),
                                (("--shape", "smollm2-135m", "--scheme", "bf16,f16", "--plot", "x.svg"),
                                 "--plot: expected one --scheme")):
            done = tessera.run("--bench", *arguments)
            self.assertEqual(done.returncode, 2)
            self.assertIn(line, done.stderr)


if __name__ == "__main__":
    unittest.main()
