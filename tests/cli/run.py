#!/usr/bin/env python3
"""Runs every command-line test against the binary in $TESSERA_BINARY (build/tessera without it).

Arguments are parts of test names: only those that contain one of them run. The last line is "N passed, N failed",
with ", N skipped" where something could not be tested here.
"""

import pathlib
import sys
import time
import unittest

HERE = pathlib.Path(__file__).resolve().parent


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


def main():
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
