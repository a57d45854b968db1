"""Standard streams that are closed, full or read by nobody, and files that give way while a model is made."""

import os
import resource
import shutil
import signal
import subprocess
import time
import unittest

import tessera

GREEDY = ("--temp", "0", "--max-tokens", "4", "--threads", "1")


def run(arguments, redirection="", **more):
    """Runs the executable with its streams redirected as the shell understands it."""
    command = ["sh", "-c", f'exec "$0" "$@" {redirection}', str(tessera.BINARY), *map(str, arguments)]
    return subprocess.run(command, **{"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE,
                                      "stderr": subprocess.PIPE, **more},
                          text=True, env=tessera.environment(), timeout=tessera.TIME_LIMIT)


class HeldQuantizer:
    """quantize on a copy of the checkpoint, stopped for certain: its first note waits for room in a pipe."""

    def __init__(self, folder, arguments):
        self.weights = folder / "checkpoint/model.safetensors"
        shutil.copytree(tessera.CHECKPOINT, self.weights.parent)
        self.reader, writer = os.pipe()
        os.set_blocking(writer, False)
        try:
            while os.write(writer, b"\n"):
                pass
        except BlockingIOError:
            os.set_blocking(writer, True)
        self.process = subprocess.Popen(
            [str(tessera.BINARY), "quantize", str(self.weights.parent), "-o", str(folder / "model.tess"),
             *map(str, arguments)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=writer,
            env=tessera.environment(), preexec_fn=lambda: signal.signal(signal.SIGQUIT, signal.SIG_DFL))
        os.close(writer)
        deadline = time.monotonic() + tessera.TIME_LIMIT
        while not list(folder.glob(".model.tess.*.partial")):
            assert self.process.poll() is None and time.monotonic() < deadline, "no file was begun"
            time.sleep(0.01)

    def end(self):
        """Lets it go on; returns the exit code and what it had to say."""
        with open(self.reader) as notes:
            text = notes.read()
        return self.process.wait(tessera.TIME_LIMIT), text.lstrip("\n")


class StreamsTest(unittest.TestCase):
    def folder(self, name):
        folder = tessera.folder() / name
        folder.mkdir()
        return folder

    def calibration_text(self, folder):
        path = folder / "text.txt"
        path.write_text(tessera.PROMPT + "\n")
        return ("--calibration", path, "--threads", "1", "--verbose")

    def test_stderr_that_cannot_be_written_stops_nothing(self):
        answer = tessera.run("-p", "hi", *GREEDY)
        self.assertEqual(answer.returncode, 0, answer.stderr)
        cases = ((["-p", "hi", *GREEDY], 0, answer.stdout), (["-p", "hi", *GREEDY, "--no-stats"], 0, answer.stdout),
                 (["-m", "/nowhere/x.tess", "-p", "x"], 1, ""), (["--nonsense"], 2, ""))
        for arguments, code, text in cases:
            ended = {"closed": run(arguments, "2>&-")}
            if os.path.exists("/dev/full"):
                ended["full"] = run(arguments, "2>/dev/full")
            reader, writer = os.pipe()
            os.close(reader)
            ended["read by nobody"] = run(arguments, stderr=writer)
            os.close(writer)
            for how, done in ended.items():
                with self.subTest(stderr=how, arguments=arguments):
                    self.assertEqual((done.returncode, done.stdout), (code, text))

    def test_closed_streams_still_fail_where_they_are_needed(self):
        done = run(["-p", "hi", *GREEDY], ">&-")
        self.assertEqual(done.returncode, 1)
        self.assertTrue(done.stderr.endswith("tessera: stdout: could not be written: Bad file descriptor\n"), done.stderr)
        self.assertEqual(run(["-p", "hi", *GREEDY], "<&-").returncode, 0)
        self.assertEqual(run(["-p", "-"], "<&- >&- 2>&-").returncode, 1)

    def test_a_pipe_that_does_not_block_is_waited_for(self):
        answer = tessera.run("-f", "-", *GREEDY, stdin="hi there").stdout
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        process = subprocess.Popen([str(tessera.BINARY), "-f", "-", *GREEDY], stdin=reader, stdout=subprocess.PIPE,
                                   stderr=subprocess.DEVNULL, text=True, env=tessera.environment())
        os.close(reader)
        for piece in (b"hi ", b"there"):
            time.sleep(0.1)
            os.write(writer, piece)
        os.close(writer)
        self.assertEqual((process.communicate(timeout=tessera.TIME_LIMIT)[0], process.returncode), (answer, 0))

    @unittest.skipUnless(os.path.isdir("/proc/self/fd"), "skipped: no /proc")
    def test_no_file_takes_the_place_of_a_closed_stderr(self):
        # Read as a prompt, the descriptor is /dev/null, which is empty (2), and not one that is still to be had (1).
        self.assertEqual(run(["-f", "/proc/self/fd/2"], "2>&-").returncode, 2)

    def nothing_is_left(self, folder):
        self.assertEqual([str(path) for path in folder.rglob("*") if path.name.startswith(".")], [])
        self.assertFalse((folder / "model.tess").exists())

    def test_weights_that_shrink_leave_no_file_behind(self):
        folder = self.folder("shrinking")
        held = HeldQuantizer(folder, self.calibration_text(folder))
        os.truncate(held.weights, 4096)
        code, text = held.end()
        self.assertEqual(code, 1)
        self.assertTrue(text.endswith(f"model file changed or could not be read: {held.weights}\n"), text)
        self.nothing_is_left(folder)

    def test_sigquit_leaves_no_file_behind(self):
        folder = self.folder("quitting")
        held = HeldQuantizer(folder, self.calibration_text(folder))
        resource.prlimit(held.process.pid, resource.RLIMIT_CORE, (0, 0))
        held.process.send_signal(signal.SIGQUIT)
        self.assertEqual(held.process.wait(tessera.TIME_LIMIT), -signal.SIGQUIT)
        os.close(held.reader)
        self.nothing_is_left(folder)

    def test_a_limit_on_file_sizes_is_an_error(self):
        folder = self.folder("limited")
        done = subprocess.run([str(tessera.BINARY), "quantize", str(tessera.CHECKPOINT), "-o", str(folder / "model.tess")],
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, env=tessera.environment(),
                              preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536)))
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertRegex(done.stderr, r"^tessera: [^\n]*model\.tess: no space for \d+ bytes: File too large\n$")
        self.nothing_is_left(folder)


if __name__ == "__main__":
    unittest.main()
