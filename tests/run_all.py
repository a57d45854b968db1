#!/usr/bin/env python3
"""Runs the tests of a build folder and ends with one line that sums them up: "N passed, N failed[, N skipped]".

Unit and golden tests run through ctest and are counted by doctest test case, command-line tests by test method, fuzz
targets one each. A line "skipped: ..." in any output counts as skipped and is repeated at the end, so that nothing is
left out silently. Exit code 1 when anything failed.
"""

import argparse
import concurrent.futures
import os
import pathlib
import re
import subprocess
import sys
import time
import xml.etree.ElementTree

ROOT = pathlib.Path(__file__).resolve().parent.parent
CORPUS = ROOT / "tests/fuzz/corpus"
DOCTEST_SUMMARY = re.compile(r"^\[doctest\] test cases: +\d+ \| +(\d+) passed \| +(\d+) failed \| +(\d+) skipped", re.M)
LAST_LINE = re.compile(r"^(\d+) passed, (\d+) failed(?:, (\d+) skipped)?$")
SKIPPED = re.compile(r"^skipped: .*$", re.M)


class Totals:
    def __init__(self):
        self.passed = self.failed = self.skipped = 0
        self.faults, self.notes = [], []

    def add(self, passed, failed, skipped=0, fault=None):
        self.passed += passed
        self.failed += failed
        self.skipped += skipped
        if fault:
            self.faults.append(fault)

    def note_skips(self, output):
        for line in SKIPPED.findall(output):
            self.skipped += 1
            if line.strip() not in self.notes:
                self.notes.append(line.strip())

    def line(self):
        skipped = f", {self.skipped} skipped" if self.skipped else ""
        return f"{self.passed} passed, {self.failed} failed{skipped}"


def run_unit(build, only, totals):
    report = build / "ctest.xml"
    report.unlink(missing_ok=True)
    command = ["ctest", "--test-dir", str(build), "--output-on-failure", "--no-tests=error", "--timeout", "1200",
               "-j", str(os.cpu_count()), "--output-junit", str(report.resolve()),
               "--test-output-size-passed", "1000000", "--test-output-size-failed", "1000000"]
    if only:
        command += ["-R", only]
    code = subprocess.run(command).returncode
    if not report.exists():
        totals.add(0, 1, fault="ctest wrote no report")
        return
    failed_before = totals.failed
    for case in xml.etree.ElementTree.parse(report).getroot().iter("testcase"):
        output = case.findtext("system-out") or ""
        totals.note_skips(output)
        summary = DOCTEST_SUMMARY.search(output)
        good = case.get("status") == "run"
        if summary and (good or int(summary[2]) > 0):
            fault = f"{case.get('name')}: {summary[2]} test cases failed" if int(summary[2]) else None
            totals.add(int(summary[1]), int(summary[2]), int(summary[3]), fault)
        elif good:
            totals.add(1, 0)
        else:
            totals.add(0, 1, fault=f"{case.get('name')}: did not run to its end")
    if code != 0 and totals.failed == failed_before:
        totals.add(0, 1, fault=f"ctest ended with {code}")


def run_cli(build, totals):
    environment = dict(os.environ, TESSERA_BINARY=str((build / "tessera").resolve()))
    process = subprocess.Popen([sys.executable, "-u", str(ROOT / "tests/cli/run.py")], env=environment, text=True,
                               errors="replace", stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    last, output = "", []
    for line in process.stdout:
        print(line, end="", flush=True)
        output.append(line)
        last = line.strip() or last
    code = process.wait()
    summary = LAST_LINE.match(last)
    if not summary:
        totals.add(0, 1, fault="command-line tests did not run to their end")
        return
    failed = int(summary[2])
    fault = f"command-line tests: {failed} failed" if failed else None
    totals.add(int(summary[1]), failed, int(summary[3] or 0), fault)
    if summary[3] is None:
        totals.note_skips("".join(output))
    if code != 0 and failed == 0:
        totals.add(0, 1, fault=f"tests/cli/run.py ended with {code}")


def fuzz_one(target, seconds):
    """Fuzzes one target; what it finds interesting stays in the build folder, faults are kept beside it."""
    name = target.name.removeprefix("fuzz_")
    found = target.parent / "corpus" / name
    found.mkdir(parents=True, exist_ok=True)
    seeds = [folder for folder in (CORPUS / name, CORPUS / target.name) if folder.is_dir()]
    command = [str(target), f"-max_total_time={seconds}", "-timeout=20", "-rss_limit_mb=2048", "-max_len=65536",
               "-print_final_stats=1", f"-artifact_prefix={target.parent}/{name}-", str(found), *map(str, seeds)]
    started = time.monotonic()
    done = subprocess.run(command, text=True, errors="replace", stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return target.name, done.returncode, done.stdout, time.monotonic() - started


def run_fuzz(build, seconds, totals):
    targets = sorted(path for path in build.rglob("fuzz_*")
                     if path.is_file() and os.access(path, os.X_OK) and path.suffix == "")
    if not targets:
        totals.add(0, 1, fault=f"no fuzz targets in {build}")
        return
    with concurrent.futures.ThreadPoolExecutor(min(len(targets), os.cpu_count() or 1)) as pool:
        for name, code, output, took in pool.map(lambda target: fuzz_one(target, seconds), targets):
            runs = re.search(r"stat::number_of_executed_units: (\d+)", output)
            print(f"{name}: {'ok' if code == 0 else 'FAILED'}, {runs[1] if runs else 0} inputs in {took:.0f} s",
                  flush=True)
            if code == 0 and not (runs and int(runs[1]) > 0):
                code = 1
            if code != 0:
                print(output[-8000:], flush=True)
            totals.add(code == 0, code != 0, fault=f"{name} failed" if code else None)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build", help="build folder")
    parser.add_argument("--parts", default="unit,cli", help="any of unit,cli,fuzz")
    parser.add_argument("--only", help="regular expression: which unit and golden tests")
    parser.add_argument("--fuzz-build", type=pathlib.Path, default=ROOT / "build-fuzz")
    parser.add_argument("--fuzz-seconds", type=int, default=60)
    parser.add_argument("--skip", action="append", default=[], help="a line to report as skipped")
    parser.add_argument("--totals", type=pathlib.Path, help="file to append 'passed failed skipped' to")
    arguments = parser.parse_args()
    totals = Totals()
    parts = arguments.parts.split(",")
    if "unit" in parts:
        run_unit(arguments.build, arguments.only, totals)
    if "cli" in parts:
        run_cli(arguments.build, totals)
    if "fuzz" in parts:
        run_fuzz(arguments.fuzz_build, arguments.fuzz_seconds, totals)
    for line in arguments.skip:
        totals.note_skips(f"skipped: {line}")
    for line in totals.notes + totals.faults:
        print(line)
    if arguments.totals:
        with arguments.totals.open("a") as file:
            file.write(f"{totals.passed} {totals.failed} {totals.skipped}\n")
    print(totals.line(), flush=True)
    sys.exit(1 if totals.failed or not totals.passed else 0)


if __name__ == "__main__":
    main()
