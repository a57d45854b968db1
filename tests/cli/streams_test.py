"""Standard streams that are closed, full or read by nobody."""

import os
import subprocess
import unittest

import tessera

GREEDY = ("--temp", "0", "--max-tokens", "4", "--threads", "1")


def run(arguments, redirection="", **more):
    """Runs the executable with its streams redirected as the shell understands it."""
    command = ["sh", "-c", f'exec "$0" "$@" {redirection}', str(tessera.BINARY), *map(str, arguments)]
    return subprocess.run(command, **{"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE,
                                      "stderr": subprocess.PIPE, **more},
                          text=True, env=tessera.environment(), timeout=tessera.TIME_LIMIT)


class StreamsTest(unittest.TestCase):
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

    def test_no_file_takes_the_place_of_a_closed_stderr(self):
        # Read as a prompt, the descriptor is /dev/null, which is empty (2), and not one that is still to be had (1).
        self.assertEqual(run(["-f", "/proc/self/fd/2"], "2>&-").returncode, 2)


if __name__ == "__main__":
    unittest.main()
