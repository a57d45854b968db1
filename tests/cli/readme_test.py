"""Runs every command that README.md shows, in order, in a folder of its own: what a newcomer types must work."""

import os
import pathlib
import re
import shlex
import shutil
import subprocess
import tempfile
import unittest

import gguf_bytes
import packed_test
import pytorch_bytes
import tessera
from fake_hub import Hub
from terminal import Terminal

ROOT = tessera.ROOT
TIME_LIMIT = 900

# Packed folders, each a golden case.
PACKED = {"gptq": "gptq-4-act-order", "awq": "awq-gemm", "bitsandbytes": "bnb-nf4-nested",
          "compressed-tensors": "ct-pack-4-asymmetric", "fp8": "fp8-block", "hqq": "hqq-4"}

# What the README leaves to the reader, or what would take minutes, and what stands for it here.
SUBSTITUTES = [
    ("path/to/checkpoint", "checkpoint"),
    ("path/to/model.gguf", "model.gguf"),
    ("path/to/pytorch", "pytorch"),
    *((f"path/to/{kind}", case) for kind, case in PACKED.items()),
    ("--shape llama-3.2-1b --tests pp512,tg128", "--shape smollm2-135m --tests pp16,tg2 --repetitions 1"),
]
# These run in the repository itself. `make test` would run this very test again and `make bench` takes minutes, so
# make only says what it would do.
MAKE_COMMANDS = {
    "make run": ["make", "run"],
    "make test": ["make", "--dry-run", "test"],
    "make bench": ["make", "--dry-run", "bench"],
}


def shown_commands():
    """The commands of all ```sh blocks, continued lines joined, then those in the last column of tables."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = []
    for block in re.findall(r"^```sh\n(.*?)^```$", text, re.M | re.S):
        for line in block.replace("\\\n", " ").splitlines():
            if line.strip() and not line.lstrip().startswith("#"):
                commands.append(" ".join(line.split()))
    return commands + re.findall(r"^\|.*\| `(build/tessera [^`]+)` \|$", text, re.M)


class ReadmeTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="tessera-readme-"))
        (cls.folder / "build").mkdir()
        (cls.folder / "build/tessera").symlink_to(tessera.BINARY)
        shutil.copytree(tessera.CHECKPOINT, cls.folder / "checkpoint")
        (cls.folder / "pytorch").mkdir()
        pytorch_bytes.convert(tessera.CHECKPOINT, cls.folder / "pytorch")
        for case in PACKED.values():
            packed_test.packed_folder(cls.folder, case)
        gguf = gguf_bytes.convert(tessera.CHECKPOINT)
        (cls.folder / "model.gguf").write_bytes(gguf)
        cls.hub = Hub({"bartowski/SmolLM2-135M-Instruct-GGUF": {"SmolLM2-135M-Instruct-Q4_K_M.gguf": gguf}})
        (cls.folder / "my-text.txt").write_text("I want to book a table for two. What time would you like it?\n" * 20)

    @classmethod
    def tearDownClass(cls):
        cls.hub.close()
        shutil.rmtree(cls.folder)

    def run_shown(self, shown):
        if shown in MAKE_COMMANDS:
            self.run_make(MAKE_COMMANDS[shown])
        elif shown == "build/tessera":
            self.chat()
        else:
            self.run_in_shell(shown)

    def run_make(self, words):
        if tessera.BINARY != ROOT / "build/tessera" and "--dry-run" not in words:
            words = [words[0], "--dry-run", *words[1:]]
        # A make that runs the tests must not pass its job server and flags on.
        outer = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")
        environment = {name: value for name, value in os.environ.items() if name not in outer}
        # No test waits for a download: nobody listens there.
        environment |= {"XDG_CACHE_HOME": str(self.folder / "cache"), "PIP_INDEX_URL": "http://127.0.0.1:1/simple"}
        done = subprocess.run(words, cwd=ROOT, text=True, capture_output=True, timeout=TIME_LIMIT, env=environment)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn("build/tessera" if "test" not in words else "tests/run_all.py", done.stdout)
        if words == ["make", "run"] and (ROOT / "models/smollm2-135m-instruct.gguf").exists():
            self.check_answer(done.stdout)

    def check_answer(self, output):
        """The README shows what the fetched model answers."""
        text = (ROOT / "README.md").read_text(encoding="utf-8")
        question = (ROOT / "prompts/first-question.txt").read_text().strip()
        shown = re.search(re.escape(f"*{question}*") + r":\n\n```\n(.*?)^```$", text, re.M | re.S)[1]
        shown, output = " ".join(shown.split()), " ".join(output.split())
        first_sentence = shown[:shown.index(".") + 1]
        self.assertIn(first_sentence, output)
        # Sums are rounded differently by other kernels than those of the machine that the README was written on; how a long
        # answer ends depends on that.
        flags = set(re.search(r"^flags\s*:(.*)$|\Z", pathlib.Path("/proc/cpuinfo").read_text(), re.M)[0].split())
        if {"avx512_vnni", "avx512_bf16", "avx512vbmi"} <= flags:
            self.assertTrue(output.endswith(shown), output)

    def chat(self):
        """The README promises an answer, /help and /bye."""
        with Terminal(env=tessera.environment(XDG_STATE_HOME=str(self.folder))) as terminal:
            terminal.wait_prompt()
            terminal.enter("I want to book a table for two.")
            terminal.wait_for(r"first token \d+ ms")
            terminal.wait_prompt()
            terminal.enter("/help")
            terminal.wait_for("/undo")
            terminal.wait_prompt()
            terminal.enter("/bye")
            self.assertEqual(terminal.exit_code(), 0)

    def run_in_shell(self, shown):
        command = shown
        for text, substitute in SUBSTITUTES:
            command = command.replace(text, substitute)
        self.assertTrue(re.search(r"(^|\| )build/tessera( |$)", command), f"no rule for {command!r}")
        done = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], cwd=self.folder, text=True,
                              capture_output=True, timeout=TIME_LIMIT, stdin=subprocess.DEVNULL,
                              env=tessera.environment(HF_ENDPOINT=self.hub.endpoint, HF_HOME=str(self.folder / "hub"),
                                                      no_proxy="127.0.0.1"))
        self.assertEqual(done.returncode, 0, f"{shlex.quote(command)}\n{done.stdout}{done.stderr}")
        target = re.search(r" -o (\S+)", command)
        if target:
            self.assertGreater((self.folder / target[1]).stat().st_size, 4096)
        elif any(case in command for case in PACKED.values()):  # weights at random may answer with nothing
            self.assertIn(" tokens", done.stderr)
        else:
            self.assertTrue(done.stdout.strip(), f"{command} printed nothing")

    def test_the_readme_shows_what_this_test_expects(self):
        commands = shown_commands()
        for expected in ("build/tessera", *MAKE_COMMANDS):
            self.assertIn(expected, commands)
        for text, _ in SUBSTITUTES:
            self.assertTrue(any(text in command for command in commands), f"nothing in the README says {text!r}")


def add_tests():
    for number, shown in enumerate(shown_commands()):
        name = re.sub(r"[^a-z0-9]+", "_", shown.lower()).strip("_")[:60]
        setattr(ReadmeTest, f"test_command_{number:02}_{name}", lambda self, shown=shown: self.run_shown(shown))


add_tests()

if __name__ == "__main__":
    unittest.main()
