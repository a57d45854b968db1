"""The tree is as the documents say: files that they name exist, and includes between folders go one way."""

import pathlib
import re
import unittest

import tessera

ROOT = tessera.ROOT
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "docs/architecture.md")
ROOMS = ("main.cpp", "commands", "engine", "graph", "backends", "gguf-like-format", "tools")
# What each part of the tree may include beside itself; a longer path goes before a shorter one.
MAY_INCLUDE = {
    "gguf-like-format": (),
    "graph": ("gguf-like-format",),
    "engine/codec": ("gguf-like-format",),
    "backends/reference": ("backends", "graph", "gguf-like-format", "engine/codec"),
    "backends": ("graph", "gguf-like-format"),
    "engine": ("backends", "graph", "gguf-like-format"),
    "commands": ("engine", "backends", "graph", "gguf-like-format"),
    "main.cpp": ("commands",),
}


def sources():
    for room in ROOMS:
        path = ROOT / room
        for file in [path] if path.is_file() else sorted(path.rglob("*")):
            if file.suffix in (".cpp", ".h", ".cu"):
                yield file.relative_to(ROOT).as_posix()


def includes():
    """Pairs of files of the tree, of which the first includes the second."""
    known = set(sources())
    for file in known:
        for included in re.findall(r'^#include "([^"]+)"', (ROOT / file).read_text(encoding="utf-8"), re.M):
            if included in known:
                yield file, included


def folder(file):
    return str(pathlib.PurePosixPath(file).parent)


class TreeTest(unittest.TestCase):
    def test_named_files_exist(self):
        for document in DOCUMENTS:
            text = (ROOT / document).read_text(encoding="utf-8")
            text = re.sub(r"^```sh\n.*?^```$", "", text, flags=re.M | re.S)  # commands have a test of their own
            named = set(re.findall(r"`([\w.-]+(?:/[\w.*-]+)+/?)`", text))
            self.assertTrue(named or document == "README.md", document)
            for name in sorted(named):
                if name.split("/")[0] in ROOMS + ("docs", "tests", "cmake", "prompts", "models"):
                    with self.subTest(document=document, name=name):
                        self.assertTrue(list(ROOT.glob(name.rstrip("/"))), f"{document} names {name}, which is not there")

    def test_the_picture_of_the_tree_has_every_folder(self):
        text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
        picture = re.search(r"^## Rooms\n+```\n(.*?)^```", text, re.M | re.S)[1]
        shown, path = set(), []
        for line in picture.splitlines():
            entry = re.match(r"( *)([\w./*-]+)(?:  |$)", line)
            if entry:
                path = path[:len(entry[1]) // 2] + [entry[2].rstrip("/")]
                shown.add("/".join(path))
        for name in shown:
            with self.subTest(name=name):
                self.assertTrue(list(ROOT.glob(name)), "in the picture and not in the tree")
        leaves = {name for name in shown if not any(other.startswith(name + "/") for other in shown)}
        for parent in sorted({folder(file) for file in sources()} - {"."}):
            with self.subTest(folder=parent):
                inside = parent in shown or any(parent.startswith(name + "/") for name in leaves)
                self.assertTrue(inside, f"{parent} is not in the picture")

    def test_includes_between_folders_go_one_way(self):
        below = {}
        for file, included in includes():
            if folder(file) != folder(included):
                below.setdefault(folder(file), {}).setdefault(folder(included), f"{file} -> {included}")
        finished, path = set(), []

        def visit(name):
            if name in path:
                circle = path[path.index(name):] + [name]
                self.fail("a circle of folders: " +
                          ", ".join(below[a][b] for a, b in zip(circle, circle[1:])))
            if name in finished:
                return
            path.append(name)
            for other in sorted(below.get(name, {})):
                visit(other)
            path.pop()
            finished.add(name)

        for name in sorted(below):
            visit(name)

    def test_parts_include_only_what_lies_below_them(self):
        def part(file):
            return next((name for name in MAY_INCLUDE if file == name or file.startswith(name + "/")), None)

        for file, included in includes():
            room, other = part(file), part(included)
            if room is None or room == other:
                continue
            allowed = MAY_INCLUDE[room] + (room.split("/")[0],) * (room == "engine")
            with self.subTest(file=file):
                self.assertTrue(any(included.startswith(name + "/") for name in allowed),
                                f"{file} includes {included}")


if __name__ == "__main__":
    unittest.main()
