"""tessera pull and -hf against a hub on the loopback."""

import concurrent.futures
import os
import pathlib
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import unittest

import gguf_bytes
import tessera
from fake_hub import Fault, Hub, commit, git_hash, sha256

FILE = "models--owner--quants"
PROMPT = ("-p", tessera.PROMPT, "--temp", "0", "--max-tokens", "8", "--no-stats")


def noise(size):
    return random.randbytes(size)


class PullTest(unittest.TestCase):
    def setUp(self):
        self.home = pathlib.Path(tempfile.mkdtemp(prefix="pull-", dir=tessera.folder()))
        self.small, self.large = noise(1000), noise(3_000_000)
        self.hub = Hub({
            "owner/quants": {"README.md": b"about", "quants-Q8_0.gguf": noise(2000), "quants-Q4_K_M.gguf": self.large,
                             "quants-IQ4_XS.gguf": self.small, "mmproj-quants-Q4_0.gguf": b"pictures"},
            "owner/split": {f"BF16/split-{i:05}-of-00003.gguf": noise(500 + i) for i in (1, 2, 3)},
            "owner/folder": {"config.json": b"{}", "tokenizer.json": b'{"a": 1}', "model.safetensors": noise(5000),
                             "README.md": b"about", "onnx/model.onnx": noise(10)},
            "owner/parts": {"config.json": b"{}", "tokenizer.model": noise(50), "a.safetensors": noise(100),
                            "b.safetensors": noise(200),
                            "model.safetensors.index.json": b'{"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}'},
            "owner/nothing": {"README.md": b"about"},
        })
        self.addCleanup(self.hub.close)
        self.addCleanup(shutil.rmtree, self.home, ignore_errors=True)

    def environment(self, **more):
        names = {name: value for name, value in tessera.environment().items()
                 if not name.startswith(("HF_", "HUGGING")) and not name.lower().endswith("_proxy")}
        return {**names, "HF_ENDPOINT": self.hub.endpoint, "HF_HOME": str(self.home), **more}

    def run_tessera(self, *arguments, **more):
        return tessera.run(*arguments, env=self.environment(**more))

    def pulled(self, name, **more):
        done = self.run_tessera("pull", name, **more)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stdout.count("\n"), 1)
        return pathlib.Path(done.stdout[:-1])

    def refused(self, name, *expected, code=1, **more):
        done = self.run_tessera("pull", name, **more)
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        self.assertEqual(done.stdout, "")
        line = done.stderr.splitlines()[-1]
        for text in expected:
            self.assertIn(text, line)
        return line

    def repository(self, name=FILE):
        return self.home / "hub" / name

    def blobs(self, name=FILE):
        return sorted(path.name for path in (self.repository(name) / "blobs").iterdir())

    def asked(self, part):
        return [request for request in self.hub.requests if part in request[1]]

    def test_a_quant_lies_in_the_layout_of_huggingface_hub(self):
        path = self.pulled("owner/quants:q4_k_m")
        self.assertEqual(path, self.repository() / "snapshots" / commit("owner/quants") / "quants-Q4_K_M.gguf")
        self.assertEqual(path.read_bytes(), self.large)
        self.assertEqual(os.readlink(path), f"../../blobs/{sha256(self.large)}")
        self.assertEqual((self.repository() / "refs/main").read_text(), commit("owner/quants"))
        self.assertEqual(self.blobs(), [sha256(self.large)])

    def test_huggingface_hub_and_tessera_share_downloads(self):
        try:
            import huggingface_hub
        except ImportError:
            self.skipTest("huggingface_hub is not installed")
        path = self.pulled("owner/folder")
        code = ("import sys, huggingface_hub as h; print(h.hf_hub_download('owner/folder', 'model.safetensors', "
                "local_files_only=True)); print(h.snapshot_download('owner/folder', local_files_only=True))")
        offline = self.environment(HF_HUB_OFFLINE="1")
        done = subprocess.run([sys.executable, "-c", code], env=offline, text=True, capture_output=True)
        self.assertEqual(done.stdout.split(), [str(path / "model.safetensors"), str(path)], done.stderr)
        code = "import huggingface_hub as h; print(h.hf_hub_download('owner/quants', 'quants-Q8_0.gguf'))"
        done = subprocess.run([sys.executable, "-c", code], env=self.environment(), text=True, capture_output=True)
        self.assertEqual(str(self.pulled("owner/quants:Q8_0", HF_HUB_OFFLINE="1")), done.stdout.strip(), done.stderr)

    def test_which_file(self):
        for name, file in (("owner/quants", "quants-Q4_K_M.gguf"), ("owner/quants:IQ4_XS", "quants-IQ4_XS.gguf"),
                           ("owner/quants:quants-Q8_0.gguf", "quants-Q8_0.gguf"), ("owner/quants:README.md", "README.md"),
                           ("owner/split", "BF16/split-00001-of-00003.gguf"),
                           ("owner/split:bf16@refs/pr/1", "BF16/split-00001-of-00003.gguf"),
                           ("owner/split:split-00002-of-00003.gguf", "BF16/split-00001-of-00003.gguf"),
                           (f"{self.hub.endpoint}/owner/quants:Q8_0@v2", "quants-Q8_0.gguf")):
            with self.subTest(name=name):
                repository = "owner/split" if "split" in name else "owner/quants"
                snapshot = self.repository("models--" + repository.replace("/", "--")) / "snapshots" / commit(repository)
                self.assertEqual(self.pulled(name), snapshot / file)
        self.assertEqual(len(self.blobs("models--owner--split")), 3)
        self.assertEqual((self.repository("models--owner--split") / "refs/refs/pr/1").read_text(), commit("owner/split"))

    def test_a_folder_and_its_parts(self):
        path = self.pulled("owner/folder")
        self.assertEqual(sorted(each.name for each in path.iterdir()),
                         ["config.json", "model.safetensors", "tokenizer.json"])
        self.assertIn(git_hash(b"{}"), self.blobs("models--owner--folder"))
        path = self.pulled("owner/parts")
        self.assertEqual(len(list(path.iterdir())), 5)
        for file, content in self.hub.repositories["owner/parts"].items():
            self.assertEqual((path / file).read_bytes(), content)

    def test_what_is_there_is_not_downloaded_again(self):
        self.pulled("owner/folder")
        count = len(self.asked("/resolve/"))
        self.pulled("owner/folder")
        self.pulled("owner/folder@v2")
        self.assertEqual(len(self.asked("/resolve/")), count)

    def test_a_cut_connection_goes_on_where_it_ended(self):
        self.hub.faults = [Fault(sha256(self.large), cut=1_500_000)]
        done = self.run_tessera("pull", "owner/quants")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("trying again", done.stderr)
        ranges = [headers.get("Range") for _, _, headers in self.asked(sha256(self.large))]
        self.assertEqual(ranges, [None, "bytes=1500000-"])

    def test_an_earlier_run_is_taken_up(self):
        partial = self.repository() / f"blobs/{sha256(self.large)}.incomplete"
        partial.parent.mkdir(parents=True)
        for present, ranges in ((self.large[:1000], ["bytes=1000-"]), (self.large, []), (self.large + b"x", [None]),
                                (noise(1000), ["bytes=1000-", None])):
            with self.subTest(present=len(present)):
                self.hub.requests.clear()
                partial.write_bytes(present)
                self.assertEqual(self.pulled("owner/quants").read_bytes(), self.large)
                self.assertEqual([each[2].get("Range") for each in self.asked(sha256(self.large))], ranges)
                self.assertEqual(self.blobs(), [sha256(self.large)])
                (self.repository() / "blobs" / sha256(self.large)).unlink()

    def test_a_server_without_ranges(self):
        self.hub.ranges = False
        self.hub.faults = [Fault(sha256(self.large), cut=1_500_000)]
        self.assertEqual(self.pulled("owner/quants").read_bytes(), self.large)

    def test_the_token_stays_with_the_hub(self):
        (self.home / "token").write_text("hf_from_file\n")
        for more, token in (({}, "Bearer hf_from_file"), ({"HF_TOKEN": "hf_given"}, "Bearer hf_given"),
                            ({"HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"}, None)):
            shutil.rmtree(self.home / "hub", ignore_errors=True)
            self.hub.requests.clear()
            self.pulled("owner/quants", **more)
            servers = {server for server, _, _ in self.hub.requests}
            self.assertEqual(servers, {"hub", "cdn"})
            for server, _, headers in self.hub.requests:
                self.assertEqual(headers.get("Authorization"), token if server == "hub" else None)

    def test_wrong_contents_are_removed(self):
        self.hub.hashes["quants-Q4_K_M.gguf"] = "0" * 64
        self.refused("owner/quants", "quants-Q4_K_M.gguf", "expected the SHA-256 " + "0" * 64, sha256(self.large), "removed")
        self.assertEqual(self.blobs(), [])
        self.hub.hashes["config.json"] = "1" * 40
        self.refused("owner/folder", "config.json: expected contents 1111", git_hash(b"{}"))

    def test_wrong_sizes(self):
        self.hub.sizes["quants-Q4_K_M.gguf"] = 3_000_001
        self.refused("owner/quants", "expected 3000001 bytes, the server sends 3000000")
        self.hub.sizes["quants-Q4_K_M.gguf"] = 2_999_999
        self.refused("owner/quants", "expected 2999999 bytes, the server sends 3000000")
        self.hub.sizes["quants-Q4_K_M.gguf"] = 1 << 45
        self.refused("owner/quants", "are needed", "free in", "HF_HUB_CACHE")
        self.assertEqual(self.blobs(), [])

    def test_refusals(self):
        quants = "/api/models/owner/quants"
        for fault, expected, more in (
                (Fault(quants, 401, {"X-Error-Code": "GatedRepo"}), ("gated: accept its conditions at " + self.hub.endpoint
                                                                    + "/owner/quants, then set HF_TOKEN",), {}),
                (Fault(quants, 403, {"X-Error-Code": "GatedRepo"}), ("with the account of HF_TOKEN",), {"HF_TOKEN": "hf_x"}),
                (Fault(quants, 403, {"X-Error-Message": "no way"}), ("refuses access", "no way"), {}),
                (Fault(quants, 401), ("not found at", "or private", "set HF_TOKEN"), {}),
                (Fault(quants, 401), ("whether HF_TOKEN is valid",), {"HF_TOKEN": "hf_x"}),
                (Fault(quants, 418), ("status 418",), {}),
                (Fault(quants, 429, {"Retry-After": "3600"}), ("429", "60 minutes"), {}),
                (Fault("/resolve/", 404, {"X-Error-Code": "EntryNotFound"}), ("quants-Q4_K_M.gguf was not found",), {})):
            with self.subTest(expected=expected):
                self.hub.faults = [fault]
                self.refused("owner/quants", *expected, **more)
        self.refused("owner/quantz", "owner/quantz: not found", "near names: owner/quants")
        self.refused("owner/quants@v9", "revision v9 was not found")
        self.refused("owner/quants:Q5_K_M", "no GGUF file of Q5_K_M; it has quants-IQ4_XS.gguf, quants-Q4_K_M.gguf")
        self.refused("owner/quants:other.gguf", "no file other.gguf; it has quants-IQ4_XS.gguf")
        self.refused("owner/nothing", "holds neither GGUF files nor a checkpoint", "README.md")
        for name in ("quants", "owner/", "../quants", "owner/a/b", "owner/quants:../x", "owner/qu ants", "owner/quants@"):
            self.refused(name, "expected a model as owner/name", code=2)

    def test_a_busy_hub_is_asked_again(self):
        self.hub.faults = [Fault("/revision/", 429, {"Retry-After": "1"}), Fault("/tree/", 503),
                           Fault(sha256(self.large), 500, times=1)]
        done = self.run_tessera("pull", "owner/quants")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("too many requests (status 429): trying again in 1 s", done.stderr)
        self.assertIn("status 503", done.stderr)
        self.assertIn("status 500", done.stderr)

    def test_without_a_connection(self):
        closed = {"HF_ENDPOINT": "http://127.0.0.1:1"}
        self.refused("owner/quants", "not in", "http://127.0.0.1:1 cannot be reached", **closed)
        self.refused("owner/quants", "HF_HUB_OFFLINE", HF_HUB_OFFLINE="1")
        path = self.pulled("owner/quants")
        self.assertEqual(self.pulled("owner/quants", HF_HUB_OFFLINE="1"), path)
        done = self.run_tessera("pull", "owner/quants", **closed)
        self.assertEqual(done.stdout, f"{path}\n")
        self.assertIn("using what was downloaded before", done.stderr)
        (path.parent.parent.parent / "blobs" / sha256(self.large)).unlink()
        self.refused("owner/quants", "not in", HF_HUB_OFFLINE="1")

    def test_hostile_answers(self):
        good = {"type": "file", "path": "a.gguf", "size": 1, "oid": "0" * 40}
        for change in ({"path": "../../a.gguf"}, {"path": "/etc/a.gguf"}, {"path": "a/../../b.gguf"}, {"path": ""},
                       {"path": "a//b.gguf"}, {"path": "a\u0000.gguf"}, {"path": "x" * 300 + ".gguf"}, {"path": 7},
                       {"size": -1}, {"size": 1 << 62}, {"size": "1"}, {"oid": "../../../x"}, {"oid": "0" * 39},
                       {"lfs": {"oid": "0" * 40, "size": 1}}, {"lfs": []}, {"type": None}):
            with self.subTest(change=change):
                self.hub.listed["owner/quants"] = [{**good, **change}]
                self.refused("owner/quants", "owner/quants: the hub's list of files")
        self.hub.listed["owner/quants"] = [good, good]
        self.refused("owner/quants", "twice")
        for body, expected in ((b"[" * 5000, "list of files"), (b"<html>", "malformed"), (b"{}", "expected an array")):
            self.hub.faults = [Fault("/tree/", 200, body=body)]
            self.refused("owner/quants", expected)
        self.hub.faults = [Fault("/tree/", 200, body=b" " * ((32 << 20) + 1))]
        self.refused("owner/quants", "more than")
        for sha in ("../../x", "0" * 41, 5):
            self.hub.faults = [Fault("/revision/", 200, body=b'{"sha": %s}' % (b"5" if sha == 5 else f'"{sha}"'.encode()))]
            self.refused("owner/quants", "sha")
        self.assertFalse((self.home / "hub").exists())

    def test_hostile_redirects(self):
        for target in ("file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://127.0.0.1:1/"):
            self.hub.redirects_to = target
            self.refused("owner/quants", "expected http:// or https://")
        self.hub.redirects_to = "/owner/quants/resolve/main/quants-Q4_K_M.gguf"
        self.refused("owner/quants", "more than 10 redirects")
        self.hub.redirects_to = None
        self.hub.faults = [Fault(sha256(self.large), 206, {"Content-Range": "bytes 5-9/10"}, b"12345")]
        self.refused("owner/quants", "asked for bytes from 0, the server sends 'bytes 5-9/10'")
        index = b'{"weight_map": {"x": "../../../../etc/passwd"}}'
        self.hub.repositories["owner/parts"]["model.safetensors.index.json"] = index
        self.refused("owner/parts", "weight_map.x")
        self.hub.repositories["owner/parts"]["model.safetensors.index.json"] = b'{"weight_map": {"x": "c.safetensors"}}'
        self.refused("owner/parts", "c.safetensors is missing")

    def test_pages_of_a_list(self):
        self.hub.page = 2
        self.pulled("owner/quants:Q8_0")
        self.assertEqual(len(self.asked("/tree/")), 3)
        self.hub.faults = [Fault("/tree/", 200, {"Link": '<http://127.0.0.1:1/next>; rel="next"'}, b"[]")]
        self.refused("owner/quants", "goes on at 'http://127.0.0.1:1/next'")

    def test_a_file_that_cannot_be_written(self):
        def limit():
            resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))

        done = subprocess.run([str(tessera.BINARY), "pull", "owner/quants"], env=self.environment(), text=True,
                              capture_output=True, preexec_fn=limit, timeout=60)
        self.assertEqual(done.returncode, 1)
        self.assertIn("cannot be written: File too large", done.stderr)
        self.assertEqual(self.pulled("owner/quants").read_bytes(), self.large)
        self.assertIn("bytes=1000000-", [each[2].get("Range") for each in self.hub.requests])

    def test_several_at_once(self):
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            for path in pool.map(self.pulled, ["owner/quants"] * 3):
                self.assertEqual(path.read_bytes(), self.large)
        self.assertEqual(len(self.asked(sha256(self.large))), 1)
        self.assertEqual(self.blobs(), [sha256(self.large)])

    def test_hf_runs_a_model_of_the_hub(self):
        model = tessera.model().read_bytes()
        self.hub.repositories["owner/tess"] = {"tiny.tess": model}
        wanted = tessera.run("-m", tessera.model(), *PROMPT).stdout
        for flags in (("-hf", "owner/tess:tiny.tess"), ("--hf-repo=owner/tess", "--hf-file", "tiny.tess"),
                      ("-hfr", "owner/tess", "-hff=tiny.tess")):
            done = self.run_tessera(*flags, *PROMPT)
            self.assertEqual((done.returncode, done.stdout), (0, wanted), done.stderr)
        self.assertEqual(len(self.asked("/revision/")), 1)  # later runs ask nobody
        done = self.run_tessera(*flags, *PROMPT, HF_ENDPOINT="http://127.0.0.1:1")
        self.assertEqual(done.stdout, wanted)
        for flags, expected in ((("-hf", "owner/tess", "-m", "x"), "-m and -hf"), (("--hf-file", "x"), "needs -hf"),
                                (("-hf", "tess"), "expected a model as owner/name"),
                                (("-hf",), "NAME is missing"), (("-hf", "owner/tess", "-hff", "../x"), "--hf-file")):
            done = self.run_tessera(*flags, *(PROMPT if len(flags) > 1 else ()))
            self.assertEqual(done.returncode, 2, done.stderr)
            self.assertIn(expected, done.stderr)
        self.assertEqual(self.run_tessera("-h").returncode, 0)

    def test_a_gguf_file_from_the_hub(self):
        self.hub.repositories["owner/tiny"] = {"tiny-F16.gguf": gguf_bytes.convert(tessera.CHECKPOINT)}
        path = self.pulled("owner/tiny")
        target = self.home / "tiny.tess"
        done = self.run_tessera("quantize", path, "-o", target)
        self.assertEqual(done.returncode, 0, done.stderr)


if __name__ == "__main__":
    unittest.main()
