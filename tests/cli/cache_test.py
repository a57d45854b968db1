"""First use of GGUF files and checkpoint folders: converted once, found again, never the wrong model, nothing left."""

import os
import pathlib
import re
import resource
import shutil
import signal
import struct
import subprocess
import tempfile
import time
import unittest

import gguf_bytes
import tessera
from terminal import Terminal

ASK = ("-p", tessera.PROMPT, "--temp", "0", "--max-tokens", "8", "--no-stats")
CONVERTING = "converting "
IN_MEMORY = " is converted in memory, and again every time: "


class CacheTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.content = gguf_bytes.convert(tessera.CHECKPOINT)
        cls.large = tessera.folder() / "large.gguf"
        cls.large.write_bytes(gguf_bytes.convert(tessera.CHECKPOINT, wider=8))

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="tessera-cache-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.source = self.folder / "tiny.gguf"
        self.write(self.source, self.content)
        self.cache = self.folder / "cache/tessera"
        self.env = tessera.environment(XDG_CACHE_HOME=str(self.folder / "cache"))

    def write(self, path, content):
        path.write_bytes(content)

    def run_in(self, *arguments, env=None, **more):
        return subprocess.run([str(tessera.BINARY), *map(str, arguments)], stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, env=env or self.env, timeout=tessera.TIME_LIMIT, **more)

    def good(self, *arguments, **more):
        done = self.run_in(*arguments, **more)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done

    def ask(self, source, *flags, **more):
        """The answer, and what stderr said before the memory plan."""
        done = self.good("-m", source, *ASK, *flags, **more)
        self.assertTrue(done.stdout.strip())
        return done.stdout, [line for line in done.stderr.splitlines() if not line.startswith("memory: ")]

    def start(self, source):
        return subprocess.Popen([str(tessera.BINARY), "-m", str(source), *ASK, "--threads", "1"],
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=self.env)

    def models(self):
        return sorted((self.cache / "models").iterdir())

    def context_of(self, source):
        return int(re.search(r"(?m)^context +(\d+)$", self.good("inspect", source).stdout)[1])

    def with_context(self, context):
        """The same model with another length of context."""
        key = gguf_bytes.text("llama.context_length")
        place = self.content.index(key) + len(key) + 4
        return self.content[:place] + struct.pack("<I", context) + self.content[place + 4:]

    def stopped_in_conversion(self, source):
        """A process that stands still in the middle of converting."""
        for _ in range(20):
            process = self.start(source)
            while process.poll() is None:
                if any(path.name.endswith(".partial") for path in (self.cache / "models").glob("*")):
                    process.send_signal(signal.SIGSTOP)
                    while open(f"/proc/{process.pid}/stat").read().rsplit(") ", 1)[1][0] not in "TZ":
                        time.sleep(0.001)
                    break
            if process.poll() is None and any(path.name.endswith(".partial") for path in self.models()):
                return process
            process.send_signal(signal.SIGCONT)  # it was faster than this test
            process.communicate()
            self.good("cache", "clear")
        self.fail("no process could be stopped while it converted")

    def line_of(self, process, text):
        """Reads stderr up to a line that holds the text."""
        seen = b""
        while True:
            line = process.stderr.readline()
            if text in line.decode():
                return
            self.assertTrue(line, seen)
            seen += line

    def test_second_use_finds_what_the_first_made(self):
        first, said = self.ask(self.source)
        self.assertEqual(said, [f"converting tiny.gguf once, into {self.cache}"])
        made = self.models()
        self.assertEqual([path.suffix for path in made], [".tess"])
        stamp = made[0].stat()
        for _ in range(2):
            self.assertEqual(self.ask(self.source), (first, []))
        self.assertEqual((self.models(), made[0].stat().st_ino), (made, stamp.st_ino))
        self.assertEqual((self.cache.stat().st_mode & 0o777, self.cache.parent.stat().st_mode & 0o777), (0o700, 0o700))

    def test_everything_that_takes_a_model_takes_a_checkpoint(self):
        text = self.folder / "text.txt"
        text.write_text("I want to book a table for two. What time would you like it?\n" * 4)
        for number, source in enumerate((self.source, tessera.CHECKPOINT, f"{tessera.CHECKPOINT}/")):
            inspected = self.good("inspect", source, "--verify")
            self.assertEqual(CONVERTING in inspected.stderr, number < 2, inspected.stderr)
            self.assertIn("scheme         bf16, head bf16", inspected.stdout)
            self.assertIn("every hash and scale is right", inspected.stdout)
            ids = self.good("tokenize", source, "-p", "Book a table.")
            self.assertEqual(ids.stdout, tessera.run("tokenize", tessera.model(), "-p", "Book a table.").stdout)
        bench = self.good("-m", self.source, "--bench", "--tests", "pp8", "--repetitions", "1", "--output", "csv")
        self.assertNotIn(CONVERTING, bench.stderr)
        perplexity = self.good("perplexity", self.source, "--text", text, "--output", "csv")
        self.assertIn(str(self.source), perplexity.stdout)
        with Terminal("-m", str(self.source), env=self.env) as terminal:
            terminal.wait_prompt()
            terminal.enter("I want to book a table for two.")
            terminal.wait_for(r"first token \d+ ms")
            terminal.wait_prompt()
            terminal.enter("/bye")
            self.assertEqual(terminal.exit_code(), 0)

    def test_tokenize_converts_nothing(self):
        self.good("tokenize", self.source, "-p", "x")
        self.assertFalse(self.cache.exists())

    def test_a_changed_file_gives_the_new_model(self):
        self.assertEqual(self.context_of(self.source), 1024)
        times = self.source.stat()
        for context in (512, 768, 256):  # same size, same file, same time of the last write as far as that can be set
            with open(self.source, "r+b") as file:
                file.write(self.with_context(context))
            os.utime(self.source, ns=(times.st_atime_ns, times.st_mtime_ns))
            self.assertEqual(self.context_of(self.source), context)
        self.write(self.source, self.content)
        done = self.good("inspect", self.source)
        self.assertNotIn(CONVERTING, done.stderr)  # known by its content
        self.assertEqual(self.context_of(self.source), 1024)

    def test_a_changed_folder_gives_the_new_model(self):
        source = self.folder / "checkpoint"
        shutil.copytree(tessera.CHECKPOINT, source)
        self.ask(source)
        self.assertEqual(self.ask(source)[1], [])
        (source / "my-model.tess").write_text("no part of it")
        self.assertEqual(self.ask(source)[1], [])
        config = source / "config.json"
        config.write_text(config.read_text().replace("1024", "512"))
        self.assertEqual(self.context_of(source), 512)
        (source / "chat_template.jinja").write_text("{{ messages[0].content }}")  # a file that was not there before
        self.assertIn("chat template  25 bytes", self.good("inspect", source).stdout)

    def test_moved_and_copied_files_are_found_by_content(self):
        answer, _ = self.ask(self.source)
        moved = self.folder / "elsewhere" / "other-name.gguf"
        moved.parent.mkdir()
        os.rename(self.source, moved)
        self.assertEqual(self.ask(moved), (answer, []))
        copy = self.folder / "copy.gguf"
        shutil.copy(moved, copy)
        link = self.folder / "link.gguf"
        link.symlink_to(copy)
        for source in (copy, link):
            self.assertEqual(self.ask(source), (answer, []))
        os.chdir(self.folder)
        self.addCleanup(os.chdir, tessera.ROOT)
        self.assertEqual(self.ask("copy.gguf"), (answer, []))
        self.assertEqual(len(self.models()), 1)
        listed = self.good("cache", "list").stdout
        for source in (moved, copy, link):
            self.assertIn(str(source), listed)

    def test_a_damaged_model_is_made_anew(self):
        answer, _ = self.ask(self.source)
        model = self.models()[0]
        whole = model.read_bytes()
        damages = {"cut": whole[:5000], "empty": b"", "header": whole[:70] + b"#" + whole[71:],
                   "weights": whole[:-5000] + bytes([whole[-5000] ^ 1]) + whole[-4999:]}
        for name, damaged in damages.items():
            with self.subTest(name):
                model.write_bytes(damaged)
                again, said = self.ask(self.source)
                self.assertEqual(again, answer)
                self.assertEqual(said[0], f"the converted tiny.gguf in {self.cache} is damaged: it is made anew")
                self.assertEqual(model.read_bytes(), whole)
        model.write_bytes(whole)  # not damaged after all
        self.assertEqual(self.ask(self.source), (answer, []))

    def test_damaged_records_cost_only_time(self):
        answer, _ = self.ask(self.source)
        record = next((self.cache / "sources").iterdir())
        text = record.read_text()
        for broken in ("", "{", "{}", text.replace('"version": 1', '"version": 2'), text[:-20],
                       re.sub('"model": "[^"]*', '"model": "../../escape', text), re.sub(r"\d{15,}", "-5", text)):
            record.write_text(broken)
            self.assertEqual(self.ask(self.source), (answer, []))
        record.write_bytes(b"\xff" * 100)
        self.assertEqual(self.ask(self.source), (answer, []))

    def test_two_processes_do_the_work_once(self):
        first = self.stopped_in_conversion(self.large)
        second = self.start(self.large)
        self.line_of(second, "another process is converting large.gguf: waiting for it")
        first.send_signal(signal.SIGCONT)
        answers = [process.communicate(timeout=tessera.TIME_LIMIT) for process in (first, second)]
        self.assertEqual([first.returncode, second.returncode], [0, 0], answers)
        self.assertEqual(answers[0][0], answers[1][0])
        self.assertNotIn(CONVERTING.encode(), answers[1][1])
        self.assertEqual(len(self.models()), 1)

    def test_when_the_first_process_dies_the_second_goes_on(self):
        first = self.stopped_in_conversion(self.large)
        second = self.start(self.large)
        self.line_of(second, "another process is converting large.gguf: waiting for it")
        first.kill()
        first.communicate()
        output, error = second.communicate(timeout=tessera.TIME_LIMIT)
        self.assertEqual(second.returncode, 0, error)
        self.assertIn(b"converting large.gguf once", error)
        self.assertTrue(output.strip())
        self.assertEqual([path.suffix for path in self.models()], [".tess"])  # and nothing of the first

    def test_what_killed_conversions_left_is_removed(self):
        killed = self.stopped_in_conversion(self.large)
        killed.kill()
        killed.communicate()
        self.assertEqual([path.suffix for path in self.models()], [".partial"])
        self.ask(self.source)  # another model
        self.assertEqual([path.suffix for path in self.models()], [".tess"])
        killed = self.stopped_in_conversion(self.large)
        killed.kill()
        killed.communicate()
        freed = self.good("cache", "clear").stdout
        self.assertRegex(freed, r"^\d+ models? removed, \d[\d.]+ MB freed\n$")
        self.assertEqual(self.models(), [])

    def test_ctrl_c_leaves_nothing(self):
        process = self.stopped_in_conversion(self.large)
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGCONT)
        output, error = process.communicate(timeout=tessera.TIME_LIMIT)
        self.assertEqual((process.returncode, output), (130, b""), error)
        self.assertEqual(self.models() + list((self.cache / "sources").iterdir()), [])

    def assert_from_memory(self, reason, *flags, source=None, **more):
        """The same answer as from the cache, and one line that says why there is none."""
        answer, said = self.ask(source or self.source, *flags, **more)
        usual = tessera.environment(XDG_CACHE_HOME=str(self.folder / "usual"))
        self.assertEqual(answer, self.ask(source or self.source, env=usual)[0])
        self.assertEqual(len(said), 1, said)
        self.assertRegex(said[0], f"{IN_MEMORY}.*{reason}")

    def test_no_cache_folder(self):
        for name, home in (("none", {}), ("empty", {"HOME": "", "XDG_CACHE_HOME": ""}),
                           ("relative", {"HOME": "home", "XDG_CACHE_HOME": "cache"})):
            with self.subTest(name):
                env = {key: value for key, value in self.env.items() if key not in ("HOME", "XDG_CACHE_HOME")} | home
                self.assert_from_memory("neither XDG_CACHE_HOME nor HOME is set", env=env)
                listed = self.run_in("cache", "list", env=env)
                self.assertEqual((listed.returncode, listed.stdout), (1, ""))
        env = {**self.env, "HOME": str(self.folder / "home"), "XDG_CACHE_HOME": "relative"}
        os.mkdir(self.folder / "home")
        self.ask(self.source, env=env)
        self.assertTrue((self.folder / "home/.cache/tessera/models").is_dir())

    def test_a_folder_that_cannot_be_made(self):
        blocked = self.folder / "blocked"
        blocked.write_text("a file")
        self.assert_from_memory("cannot be created: Not a directory", env={**self.env, "XDG_CACHE_HOME": str(blocked)})

    def mount(self, options):
        """A file system of its own for the cache, where that is allowed."""
        place = self.folder / "cache"
        place.mkdir()
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], capture_output=True, text=True)
        if mounted.returncode != 0:
            self.skipTest(f"no file system can be mounted: {mounted.stderr.strip()}")
        self.addCleanup(subprocess.run, ["umount", "-l", place], check=True)
        return place

    def test_a_full_disk(self):
        self.mount("size=4m,mode=700")
        self.assert_from_memory("has room for")
        self.assertEqual(self.models(), [])

    def test_a_file_that_outgrows_its_limit(self):
        def limit():
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
        self.assert_from_memory("File too large", preexec_fn=limit)
        self.assertEqual(self.models(), [])

    def test_a_read_only_cache(self):
        if os.geteuid() != 0:
            answer, _ = self.ask(self.source)
            for path in (self.cache / "models", self.cache / "sources", self.cache):
                path.chmod(0o500)
                self.addCleanup(path.chmod, 0o700)
        else:
            place = self.mount("size=200m,mode=700")
            answer, _ = self.ask(self.source)
            subprocess.run(["mount", "-o", "remount,ro", place], check=True)
        self.assertEqual(self.ask(self.source), (answer, []))  # what is there is used
        other = self.folder / "other.gguf"
        self.write(other, self.with_context(512))
        self.assert_from_memory("(Read-only file system|Permission denied)", source=other)

    def test_the_size_is_bounded(self):
        sources = []
        for number in range(3):
            sources.append(self.folder / f"model-{number}.gguf")
            self.write(sources[-1], self.with_context(512 + number))
        size = None
        for source in sources[:2]:
            self.ask(source)
            size = size or self.models()[0].stat().st_size
        self.assertEqual(len(self.models()), 2)
        time.sleep(0.02)
        self.ask(sources[0])  # so that the other is the one used longest ago
        self.ask(sources[2], "--cache-size", str(size * 5 // 2))
        listed = self.good("cache", "list").stdout
        self.assertEqual([str(source) in listed for source in sources], [True, False, True], listed)
        self.assertEqual(self.ask(sources[0])[1], [])
        env = {**self.env, "TESSERA_CACHE_SIZE": str(size)}
        self.ask(sources[1], env=env)
        self.assertEqual(len(self.models()), 1)
        self.assertEqual(self.ask(sources[1])[1], [])
        # What is larger than all of the cache may be is not stored, and nothing is removed for it.
        for flags, more in ((("--cache-size", f"{size // 1024 - 1}KiB"), {}), ((), {"env": {**env, "TESSERA_CACHE_SIZE": "1M"}})):
            self.assert_from_memory("it takes [0-9.]+ MB, and --cache-size is [0-9.]+ MB", *flags, source=sources[2], **more)
        self.assert_from_memory("--cache-size is 0", "--cache-size", "0", source=sources[1])
        self.assertEqual(self.ask(sources[1])[1], [])

    def test_a_model_in_use_stays(self):
        other = self.folder / "other.gguf"
        self.write(other, self.with_context(512))
        with Terminal("-m", str(self.source), env=self.env) as terminal:
            terminal.wait_prompt()
            used = self.models()[0]
            self.assert_from_memory("has room for", "--cache-size", str(used.stat().st_size * 3 // 2), source=other)
            self.assertEqual(self.models(), [used])
            cleared = self.good("cache", "clear")
            self.assertEqual((cleared.stdout, cleared.stderr),
                             ("0 models removed, 0 bytes freed\n", "1 model in use: not removed\n"))
            terminal.enter("/bye")
            self.assertEqual(terminal.exit_code(), 0)
        self.ask(other, "--cache-size", str(used.stat().st_size * 3 // 2))
        self.assertFalse(used.exists())

    def test_list_and_clear(self):
        self.assertRegex(self.good("cache", "list").stdout, rf"^0 models in {self.cache}: 0 bytes of at most [\d.]+ GB\n$")
        self.assertEqual(self.good("cache", "clear").stdout, "0 models removed, 0 bytes freed\n")
        self.assertFalse(self.cache.exists())
        other = self.folder / "other.gguf"
        self.write(other, self.with_context(512))
        self.ask(self.source)
        self.ask(other)
        lines = self.good("cache", "list").stdout.splitlines()
        size = self.models()[0].stat().st_size
        self.assertEqual(lines[0].split(), ["source", "scheme", "size", "last", "used"])
        for line, source in zip(lines[1:3], (other, self.source)):  # the one used last first
            self.assertRegex(line, rf"^{re.escape(str(source))} +bf16 +{size / 1e6:.1f} MB +\d{{4}}-\d\d-\d\d \d\d:\d\d$")
        self.assertRegex(lines[3], rf"^2 models in {self.cache}: {2 * size / 1e6:.1f} MB of at most [\d.]+ GB$")
        limited = self.good("cache", "list", env={**self.env, "TESSERA_CACHE_SIZE": "3.5G"}).stdout
        self.assertIn("of at most 3.50 GB", limited)
        self.assertEqual(self.good("cache", "clear", other).stdout, f"1 model removed, {size / 1e6:.1f} MB freed\n")
        missing = self.run_in("cache", "clear", other)
        self.assertEqual((missing.returncode, missing.stderr),
                         (1, f"tessera: {other}: nothing in the cache was made of it\n"))
        self.assertEqual(self.ask(self.source)[1], [])
        self.assertEqual(self.good("cache", "clear", self.models()[0].stem).stdout,
                         f"1 model removed, {size / 1e6:.1f} MB freed\n")
        self.assertEqual(self.models() + list((self.cache / "sources").iterdir()), [])

    def test_wrong_command_lines(self):
        for arguments, fault in (((), "usage: tessera cache list|clear"), (("empty",), "expected list or clear, found 'empty'"),
                                 (("list", "x"), "cache list: unexpected 'x'")):
            done = self.run_in("cache", *arguments)
            self.assertEqual((done.returncode, done.stdout), (2, ""))
            self.assertIn(fault, done.stderr)
        for size in ("", "x", "-1", "1X", "1GBB", "1 G", "nan", "1e30", "20Gi B"):
            done = self.run_in("-m", self.source, "-p", "x", f"--cache-size={size}")
            self.assertEqual((done.returncode, done.stdout), (2, ""), size)
            self.assertIn("--cache-size: expected a size such as 500M, 20G or 1.5TiB", done.stderr)
        done = self.run_in("-m", self.source, "-p", "x", env={**self.env, "TESSERA_CACHE_SIZE": "much"})
        self.assertEqual(done.returncode, 2)
        self.assertIn("TESSERA_CACHE_SIZE: expected a size", done.stderr)
        done = self.run_in("-p", "x", "--cache-size", "1G")
        self.assertEqual(done.returncode, 2)
        self.assertFalse(self.cache.exists())

    def test_broken_sources_leave_nothing(self):
        cases = {"cut.gguf": self.content[:-1], "empty.gguf": b"", "text.gguf": b"no model",
                 "family.gguf": self.content.replace(b"llama", b"lmama", 1)}
        for name, content in cases.items():
            with self.subTest(name):
                source = self.folder / name
                self.write(source, content)
                done = self.run_in("-m", source, "-p", "x")
                self.assertEqual((done.returncode, done.stdout), (1, ""))
                self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
                self.assertIn(name, done.stderr)
        for source in (self.folder / "absent.gguf", self.folder):
            done = self.run_in("-m", source, "-p", "x")
            self.assertEqual((done.returncode, len(done.stderr.splitlines())), (1, 1), done.stderr)
            self.assertIn(str(source), done.stderr)
        self.assertEqual(self.models(), [])

    def test_real_model(self):
        models = os.environ.get("TESSERA_REAL_MODELS")
        source = pathlib.Path(models or "") / "smollm2-135m-instruct.gguf"
        if models is None or not source.exists():
            self.skipTest("no smollm2-135m-instruct.gguf in $TESSERA_REAL_MODELS")
        answers = {self.good("-m", source, "-p", "What is the capital of France?", "--temp", "0", "--max-tokens", "24",
                             "--no-stats").stdout for _ in range(2)}
        self.assertEqual(len(answers), 1)
        self.assertIn("Paris", answers.pop())


if __name__ == "__main__":
    unittest.main()
