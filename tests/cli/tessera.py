"""Runs the executable under test and builds the model file that the tests start from."""

import atexit
import os
import pathlib
import shutil
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BINARY = pathlib.Path(os.environ.get("TESSERA_BINARY", ROOT / "build/tessera")).resolve()
CHECKPOINT = ROOT / "models/tessera-tiny"
TIME_LIMIT = 300
PROMPT = "I want to book a table for two in San Jose."

_folder = None
_model = None


def folder():
    """A folder for this run of the tests, removed at the end."""
    global _folder
    if _folder is None:
        _folder = pathlib.Path(tempfile.mkdtemp(prefix="tessera-cli-"))
        atexit.register(shutil.rmtree, _folder, ignore_errors=True)
    return _folder


def environment(**more):
    """The caller's, with a home of its own and nothing that changes what is printed."""
    names = {name: value for name, value in os.environ.items()
             if name not in ("NO_COLOR", "XDG_STATE_HOME", "XDG_CACHE_HOME", "TESSERA_CACHE_SIZE", "LC_ALL", "LC_CTYPE", "LANG")}
    return {**names, "HOME": str(folder()), "TERM": "xterm", "LANG": "C.UTF-8", **more}


def run(*arguments, stdin=None, env=None, text=True, cwd=None):
    """Runs the executable to its end. stdin None: nothing to read."""
    return subprocess.run([str(BINARY), *map(str, arguments)], input=stdin,
                          stdin=subprocess.DEVNULL if stdin is None else None, capture_output=True, text=text,
                          env=env or environment(), timeout=TIME_LIMIT, cwd=cwd)


def model():
    """The embedded model's checkpoint as a .tess file, made once by the executable itself."""
    global _model
    if _model is None:
        path = folder() / "valid.tess"
        done = run("quantize", CHECKPOINT, "-o", path)
        assert done.returncode == 0, done.stderr
        _model = path
    return _model
