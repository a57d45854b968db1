"""What broken merges and other systems leave behind: weights that overflow, marks in text files."""

import fcntl
import json
import shutil
import struct
import unittest

import tessera

NOT_FINITE = "the model's logits are not finite: the file is damaged or does not fit its graph"


def overflowing_model():
    """A model of finite weights whose products are not."""
    folder = tessera.folder() / "overflowing"
    path = tessera.folder() / "overflowing.tess"
    if path.exists():
        return path
    shutil.copytree(tessera.CHECKPOINT, folder)
    with open(folder / "model.safetensors", "r+b") as file:
        length = struct.unpack("<Q", file.read(8))[0]
        entry = json.loads(file.read(length))["model.layers.0.self_attn.q_proj.weight"]
        value = {"F32": struct.pack("<f", 3e38), "BF16": b"\x61\x7f", "F16": struct.pack("<e", 6e4)}[entry["dtype"]]
        begin, end = entry["data_offsets"]
        file.seek(8 + length + begin)
        file.write(value * ((end - begin) // len(value)))
    done = tessera.run("quantize", folder, "-o", path, "--scheme", "f32")
    assert done.returncode == 0, done.stderr
    return path


class OddInputTest(unittest.TestCase):
    def test_logits_that_are_not_finite_end_everything_that_needs_them(self):
        model = overflowing_model()
        text = tessera.folder() / "overflowing.txt"
        text.write_text("Once upon a time there was a girl")
        for arguments in (
            ("perplexity", model, "--text", text),
            ("-m", model, "-p", "Hello", "--temp", "0", "--max-tokens", "4"),
            ("-m", model, "-p", "Hello", "--temp", "0.8", "--seed", "1", "--max-tokens", "4"),
            ("-m", model, "-p", "Hello", "--temp", "0", "--max-tokens", "4", "--backend", "reference"),
            ("-m", model, "-p", "Hello", "--temp", "0", "--max-tokens", "4", "--isa", "portable"),
            ("-m", model, "--bench", "--tests", "pp8,tg2", "--repetitions", "1"),
        ):
            with self.subTest(arguments=arguments[2:]):
                done = tessera.run(*arguments)
                self.assertEqual(done.returncode, 1, done.stderr)
                self.assertIn(NOT_FINITE, done.stderr)
                self.assertEqual(done.stdout, "")

    def test_the_token_that_closes_turns_ends_an_answer_though_no_list_names_it(self):
        folder = tessera.folder() / "one-end"
        shutil.copytree(tessera.CHECKPOINT, folder)
        (folder / "generation_config.json").unlink()
        config = json.loads((folder / "config.json").read_text())
        config["eos_token_id"] = 1
        (folder / "config.json").write_text(json.dumps(config))
        path = tessera.folder() / "one-end.tess"
        done = tessera.run("quantize", folder, "-o", path)
        self.assertEqual(done.returncode, 0, done.stderr)
        answers = [tessera.run("-m", model, "-p", "Find me a hotel in San Diego.", "--temp", "0", "--max-tokens", "40",
                               "--no-stats") for model in (path, tessera.model())]
        self.assertEqual(answers[0].stdout, answers[1].stdout)
        self.assertRegex(tessera.run("inspect", path).stdout, r"6 \(chat template, known name\)")

    def test_what_a_killed_run_left_is_removed_by_the_next(self):
        folder = tessera.folder() / "left"
        folder.mkdir()
        left, held = folder / ".out.tess.4000000-0.partial", folder / ".out.tess.4000001-3.partial"
        others = [folder / name for name in (".other.tess.4000000-0.partial", ".out.tess.x-0.partial", ".out.tess.partial",
                                             "out.tess.4000000-0.partial")]
        for path in (left, held, *others):
            path.write_bytes(b"unfinished")
        with open(held, "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            done = tessera.run("quantize", tessera.CHECKPOINT, "-o", folder / "out.tess", "--scheme", "w8a8")
            self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(sorted(folder.iterdir()), sorted([folder / "out.tess", held, *others]))

    def test_marks_of_other_systems_are_no_text(self):
        plain = tessera.folder() / "plain.txt"
        plain.write_bytes(b"Find me a hotel\nin San Diego")
        marked = tessera.folder() / "marked.txt"
        marked.write_bytes(b"\xef\xbb\xbfFind me a hotel\r\nin San Diego\r\n")
        lone = tessera.folder() / "lone.txt"
        lone.write_bytes(b"Find me\ra hotel")
        tokens = [tessera.run("tokenize", tessera.CHECKPOINT, "-f", path) for path in (plain, marked, lone)]
        self.assertEqual([done.returncode for done in tokens], [0, 0, 0])
        self.assertEqual(tokens[0].stdout, tokens[1].stdout)
        self.assertNotEqual(tokens[2].stdout, tessera.run("tokenize", tessera.CHECKPOINT, "-p", "Find mea hotel").stdout)
        perplexities = [tessera.run("perplexity", tessera.model(), "--text", path) for path in (plain, marked)]
        self.assertEqual([done.returncode for done in perplexities], [0, 0])


if __name__ == "__main__":
    unittest.main()
