#!/usr/bin/env python3
"""Runs every command-line test against the binary in $TESSERA_BINARY (build/tessera without it).

Arguments are parts of test names: only those that contain one of them run, one after another. Without arguments files
of tests run side by side, one for each core. The last line is "N passed, N failed", with ", N skipped" where something
could not be tested here.
"""

import concurrent.futures
import os
import pathlib
import re
import subprocess
import sys
import time
import unittest

HERE = pathlib.Path(__file__).resolve().parent
LONGEST = ("quantize_test", "perplexity_test", "readme_test")


class Result(unittest.TextTestResult):
    """Prints a line per test with the time it took."""

    def startTest(self, test):
        self.started = time.monotonic()
        super().startTest(test)

    def stopTest(self, test):
        self.stream.writeln(f"    {time.monotonic() - self.started:.1f} s")
        super().stopTest(test)


def chosen(suite, parts):
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from chosen(test, parts)
        elif not parts or any(part in test.id() for part in parts):
            yield test


def run_file(path):
    """Runs the tests of one file in a process of its own; returns the exit code and what it printed."""
    done = subprocess.run([sys.executable, "-u", __file__, f"{path.stem}."], stdin=subprocess.DEVNULL, text=True,
                          errors="replace", stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return done.returncode, done.stdout


def run_files():
    # The long ones first, so that the cores end together.
    files = sorted(HERE.glob("*_test.py"), key=lambda path: (path.stem not in LONGEST, path.stem))
    totals = [0, 0, 0]
    code = 0
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for future in concurrent.futures.as_completed([pool.submit(run_file, path) for path in files]):
            ended, output = future.result()
            lines = output.rstrip("\n").split("\n")
            summary = re.fullmatch(r"(\d+) passed, (\d+) failed(?:, (\d+) skipped)?", lines[-1])
            print("\n".join(lines[:-1] if summary else lines), flush=True)
            found = [int(count or 0) for count in summary.groups()] if summary else [0, 1, 0]
            totals = [total + count for total, count in zip(totals, found)]
            code = code or ended
    skipped = f", {totals[2]} skipped" if totals[2] else ""
    print(f"{totals[0]} passed, {totals[1]} failed{skipped}")
    return 1 if code or totals[1] or not totals[0] else 0


def main():
    if len(sys.argv) == 1:
        return run_files()
    sys.path.insert(0, str(HERE))
    found = unittest.defaultTestLoader.discover(str(HERE), pattern="*_test.py", top_level_dir=str(HERE))
    suite = unittest.TestSuite(chosen(found, sys.argv[1:]))
    result = unittest.TextTestRunner(stream=sys.stdout, verbosity=2, resultclass=Result).run(suite)
    for test, reason in result.skipped:
        print(f"skipped: {test}: {reason}")
    failed = len({test.id() for test, _ in result.failures + result.errors})
    skipped = f", {len(result.skipped)} skipped" if result.skipped else ""
    print(f"{result.testsRun - failed - len(result.skipped)} passed, {failed} failed{skipped}")
    return 1 if failed or result.testsRun == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
