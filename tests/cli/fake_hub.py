"""A Hugging Face hub on the loopback, and the server that its large files lie on: as much of both as downloads use."""

import hashlib
import http.server
import json
import re
import threading
import urllib.parse

LARGE = (".gguf", ".safetensors", ".bin", ".model")


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def git_hash(content):
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def commit(name, revision="main"):
    return hashlib.sha1(f"{name} {revision}".encode()).hexdigest()


class Fault:
    """Replaces the next answers to paths that contain `part`. cut: only so many bytes of the body are sent."""

    def __init__(self, part, status=None, headers=None, body=b"", cut=None, times=1):
        self.part, self.status, self.headers, self.body = part, status, headers or {}, body
        self.cut, self.times = cut, times


class Hub:
    """repositories: {"owner/name": {path: content}}. Requests are kept as (server, path, headers)."""

    def __init__(self, repositories, page=1000, ranges=True):
        self.repositories, self.page, self.ranges = repositories, page, ranges
        self.requests, self.faults, self.listed, self.redirects_to = [], [], {}, None
        self.hashes, self.sizes = {}, {}  # what is claimed of a path instead of the truth
        self.lock = threading.Lock()
        self.hub, self.cdn = self.serve("hub"), self.serve("cdn")
        self.endpoint = f"http://127.0.0.1:{self.hub.server_port}"
        self.storage = f"http://127.0.0.1:{self.cdn.server_port}"

    def serve(self, name):
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_GET(self):
                with outer.lock:
                    outer.requests.append((name, self.path, dict(self.headers)))
                    fault = next((each for each in outer.faults if each.part in self.path and each.times > 0), None)
                    if fault:
                        fault.times -= 1
                if fault and fault.status:
                    self.answer(fault.status, fault.body, fault.headers)
                else:
                    status, body, headers = outer.answer(name, self.path, self.headers)
                    self.answer(status, body, headers, fault.cut if fault else None)

            do_HEAD = do_GET

            def answer(self, status, body, headers, cut=None):
                self.send_response(status)
                for key, value in headers.items():
                    self.send_header(key, value)
                if not any(key.lower() in ("content-length", "transfer-encoding") for key in headers):
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body if cut is None else body[:cut])
                if cut is not None:
                    self.close_connection = True

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_):  # whoever hangs up early means to
                pass

        server = Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return server

    def close(self):
        for server in (self.hub, self.cdn):
            server.shutdown()
            server.server_close()

    def answer(self, server, path, headers):
        url = urllib.parse.urlsplit(path)
        place = urllib.parse.unquote(url.path)
        if server == "cdn":
            return self.content(self.stored(place.removeprefix("/")), headers)
        if place == "/api/models":
            wanted = urllib.parse.parse_qs(url.query)["search"][0]
            near = [{"id": name} for name in self.repositories if wanted[:4] in name]
            return 200, json.dumps(near).encode(), {}
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/revision/(.+)", place):
            return self.revision(*found.groups())
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([0-9a-f]{40})", place):
            return self.tree(found[1], url)
        if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", place):
            return self.resolve(*found.groups(), headers)
        return 404, b"Not Found", {}

    def missing(self, code, status=404):
        return status, b"{}", {"X-Error-Code": code, "X-Error-Message": code}

    def revision(self, name, revision):
        if name not in self.repositories:
            return self.missing("RepoNotFound", 401)
        if revision not in ("main", "v2", "refs/pr/1", commit(name)):
            return self.missing("RevisionNotFound")
        return 200, json.dumps({"id": name, "sha": commit(name)}).encode(), {}

    def tree(self, name, url):
        entries = self.listed.get(name) or [{"type": "directory", "path": "folder", "oid": "0" * 40, "size": 0}] + [
            self.entry(name, path) for path in self.repositories[name]]
        first = int(urllib.parse.parse_qs(url.query).get("cursor", ["0"])[0])
        headers = {}
        if first + self.page < len(entries):
            headers["Link"] = (f"<{self.endpoint}{url.path}?recursive=true&cursor={first + self.page}>; "
                               'rel="next"')
        return 200, json.dumps(entries[first:first + self.page]).encode(), headers

    def entry(self, name, path):
        content = self.repositories[name][path]
        size = self.sizes.get(path, len(content))
        entry = {"type": "file", "path": path, "size": size, "oid": self.hashes.get(path, git_hash(content))}
        if path.endswith(LARGE):
            entry["lfs"] = {"oid": self.hashes.get(path, sha256(content)), "size": size, "pointerSize": 134}
        return entry

    def resolve(self, name, revision, path, headers):
        if path not in self.repositories.get(name, {}):
            return self.missing("EntryNotFound")
        content = self.repositories[name][path]
        told = {"X-Repo-Commit": commit(name)}
        if not path.endswith(LARGE):
            return self.content(content, headers, {**told, "ETag": f'"{git_hash(content)}"'})
        told |= {"X-Linked-Etag": f'"{self.hashes.get(path, sha256(content))}"',
                 "X-Linked-Size": str(self.sizes.get(path, len(content)))}
        return 302, b"moved", {**told, "Location": self.redirects_to or f"{self.storage}/{sha256(content)}"}

    def stored(self, key):
        return next(content for files in self.repositories.values() for content in files.values()
                    if sha256(content) == key)

    def content(self, body, headers, more=None):
        told = {"ETag": '"of-another-server"', **(more or {})}
        asked = re.fullmatch(r"bytes=(\d+)-", headers.get("Range", ""))
        if not asked or not self.ranges:
            return 200, body, told
        first = int(asked[1])
        if first >= len(body):
            return 416, b"", {"Content-Range": f"bytes */{len(body)}"}
        return 206, body[first:], {**told, "Content-Range": f"bytes {first}-{len(body) - 1}/{len(body)}"}
