"""Checkpoints as fine-tunes, downloads and hasty typing leave them."""

import json
import os
import pathlib
import shutil
import unittest

import tessera

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n"
WEIGHTS = "model.safetensors"


def copy(name):
    """A copy of the embedded model's checkpoint."""
    folder = tessera.folder() / name
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(tessera.CHECKPOINT, folder)
    return folder


def replace(path, text=None, link=None):
    path.unlink()
    if text is not None:
        path.write_text(text)
    if link is not None:
        path.symlink_to(link)


class OddCheckpointsTest(unittest.TestCase):
    def imported(self, folder, *options):
        """Imports a folder; returns the file and the notes."""
        target = tessera.folder() / f"{folder.name}.tess"
        done = tessera.run("quantize", folder, "-o", target, *options)
        self.assertEqual(done.returncode, 0, done.stderr)
        return target, done.stderr

    def refused(self, source, *parts):
        target = tessera.folder() / "never.tess"
        done = tessera.run("quantize", source, "-o", target)
        self.assertEqual((done.returncode, done.stdout), (1, ""), done.stderr)
        self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
        for part in (str(source), *parts):
            self.assertIn(part, done.stderr)
        self.assertFalse(target.exists())

    def test_tokens_beyond_the_vocabulary_change_nothing(self):
        folder = copy("beyond")
        tokenizer = json.loads((folder / "tokenizer.json").read_text())
        tokenizer["added_tokens"].append({**tokenizer["added_tokens"][0], "content": "<pad>", "id": 4096})
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
        target, notes = self.imported(folder)
        self.assertIn("\"<pad>\" lies beyond the model's 4096 tokens: left out\n", notes)
        ask = ("-p", tessera.PROMPT, "--temp", "0", "--max-tokens", "20", "--no-stats")
        self.assertEqual(tessera.run("-m", target, *ask).stdout, tessera.run("-m", tessera.model(), *ask).stdout)

    def test_files_that_stand_for_others(self):
        folder = copy("stand-ins")
        replace(folder / WEIGHTS, POINTER)
        self.refused(folder, f"{WEIGHTS}: is a Git LFS pointer to the file, which has 12345 bytes", "git lfs pull")
        self.refused(folder / WEIGHTS, "is a Git LFS pointer")
        done = tessera.run("-m", folder / WEIGHTS, "-p", "x")
        self.assertIn("is a Git LFS pointer", done.stderr)
        replace(folder / WEIGHTS, link="../../blobs/0123")
        self.refused(folder, f"{WEIGHTS}: is a link to ../../blobs/0123, which is not there", "fetch it again")
        replace(folder / WEIGHTS)
        (folder / ".cache/huggingface/download").mkdir(parents=True)
        (folder / ".cache/huggingface/download/0123.incomplete").touch()
        self.refused(folder, "the download is unfinished", "0123.incomplete")
        shutil.rmtree(folder / ".cache")
        (folder / "consolidated.00.pth").touch()
        self.refused(folder, "PyTorch weights (consolidated.00.pth): expected safetensors or pytorch_model.bin")
        (folder / "pytorch_model.bin").symlink_to("../../blobs/0123")
        self.refused(folder, "pytorch_model.bin: is a link to ../../blobs/0123, which is not there", "fetch it again")
        (folder / "pytorch_model.bin").unlink()
        replace(folder / "config.json", "<!DOCTYPE html>\n<html></html>")
        (folder / "consolidated.00.pth").rename(folder / WEIGHTS)
        self.refused(folder, "config.json: is a web page", "/resolve/")

    def test_a_file_in_place_of_a_folder(self):
        for name in (WEIGHTS, "tokenizer.json", "config.json"):
            self.refused(tessera.CHECKPOINT / name, f"is one file of a checkpoint: give the folder that holds it, "
                         f"{tessera.CHECKPOINT}\n")
        self.refused(tessera.model(), "is a .tess file already: run it with -m")
        self.refused(pathlib.Path(__file__), "expected the folder of a Hugging Face checkpoint or a GGUF file")
        self.refused("Owner/Some-Model.1", "a model of a hub comes with tessera pull Owner/Some-Model.1")
        for name in (WEIGHTS, "tokenizer.json"):
            for arguments in (("-m", tessera.CHECKPOINT / name, "-p", "x"), ("inspect", tessera.CHECKPOINT / name)):
                done = tessera.run(*arguments)
                self.assertEqual(done.returncode, 1)
                self.assertIn("a file of a checkpoint: give the folder that holds it", done.stderr)
        folder = tessera.folder() / "empty"
        folder.mkdir()
        done = tessera.run("-m", folder, "-p", "x")
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertIn(str(folder), done.stderr)

    def test_folders_that_are_no_checkpoint(self):
        folder = tessera.folder() / "other-folders"
        for name, found, parts in (("adapter", "adapter_config.json", ("adapter (LoRA)", "merge it")),
                                   ("cache", "snapshots/0123/config.json", ("cache/snapshots/0123\n",)),
                                   ("ggufs", "some-Q4_K.gguf", ("holds GGUF files", "ggufs/some-Q4_K.gguf")),
                                   ("original", "params.json", ("expected the Hugging Face format",))):
            path = folder / name / found
            os.makedirs(path.parent)
            path.touch()
            self.refused(folder / name, *parts)

    def test_a_template_that_cannot_be_read_leaves_raw_texts(self):
        folder = copy("broken-template")
        broken = "{% include 'x' %}"
        (folder / "chat_template.jinja").write_text(broken)
        target, notes = self.imported(folder)
        why = "chat template line 1: the statement 'include' is not supported"
        self.assertIn(f"{folder}: {why}: chats need --chat-template FILE, --raw does without\n", notes)
        ask = ("-m", target, "-p", "Hello", "--temp", "0", "--max-tokens", "4", "--no-stats")
        done = tessera.run(*ask)
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertIn(f"{target}: {why}: --chat-template FILE gives another, --raw does without\n", done.stderr)
        self.assertEqual(tessera.run(*ask, "--raw").returncode, 0)
        self.assertIn(f"which cannot be used: {why}", tessera.run("inspect", target).stdout)

        # Another template, when the model runs or when it is imported.
        own = json.loads((folder / "tokenizer_config.json").read_text())["chat_template"]
        template = tessera.folder() / "own.jinja"
        template.write_text(own)
        expected = tessera.run("-m", tessera.model(), *ask[2:]).stdout
        for flag in ("--chat-template", "--chat-template-file"):
            self.assertEqual(tessera.run(*ask, flag, template).stdout, expected)
        target, notes = self.imported(folder, "--chat-template", template)
        self.assertNotIn("template", notes)
        self.assertEqual(tessera.run("-m", target, *ask[2:]).stdout, expected)
        template.write_text(broken)
        for arguments in ((*ask, "--chat-template", template),
                          ("quantize", folder, "-o", tessera.folder() / "never.tess", "--chat-template", template)):
            done = tessera.run(*arguments)
            self.assertEqual(done.returncode, 1)
            self.assertIn(f"{template}: {why}\n", done.stderr)
        self.assertEqual(tessera.run(*ask, "--raw", "--chat-template", template).returncode, 2)

    def test_a_template_without_a_system_role(self):
        folder = copy("no-system")
        (folder / "chat_template.jinja").write_text(
            "{{ bos_token }}{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
            "{{ raise_exception('roles must alternate') }}{% endif %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
            "{% if add_generation_prompt %}<|assistant|>{% endif %}")
        target, notes = self.imported(folder)
        self.assertIn("the chat template knows no system messages: they go before the first message", notes)
        ask = ("-m", target, "--temp", "0", "--max-tokens", "8", "--no-stats")
        done = tessera.run(*ask, "--system", "Be brief.", "-p", "Hello")
        self.assertIn("the chat template knows no system message: it goes before the first message\n", done.stderr)
        self.assertEqual(done.stdout, tessera.run(*ask, "-p", "Be brief.\n\nHello").stdout)
        shown = tessera.run("tokenize", target, "--chat", "--system", "Be brief.", "-p", "Hello").stdout
        self.assertTrue(shown.startswith("<|bos|><|user|>Be brief.\n\nHello<|end|><|assistant|>\n["), shown)

    def test_a_scaling_of_positions_on_request_is_that_of_a_checkpoint(self):
        ask = ("-p", tessera.PROMPT, "--temp", "0", "--max-tokens", "12", "--no-stats", "--ignore-eos")
        plain = tessera.run("-m", tessera.model(), *ask).stdout
        for name, changes, flags in (
                ("linear", {"rope_scaling": {"type": "linear", "factor": 4.0}}, ("--rope-scaling", "linear", "--rope-scale", "4")),
                ("scale", {"rope_scaling": {"type": "linear", "factor": 4.0}}, ("--rope-freq-scale", "0.25")),
                ("yarn", {"rope_scaling": {"type": "yarn", "factor": 64.0, "original_max_position_embeddings": 16}},
                 ("--rope-scaling", "yarn", "--yarn-orig-ctx", "16", "--ctx", "1024")),
                ("theta", {"rope_theta": 1000.0}, ("--rope-freq-base", "1000"))):
            with self.subTest(name):
                folder = copy(f"rope-{name}")
                config = json.loads((folder / "config.json").read_text())
                (folder / "config.json").write_text(json.dumps({**config, **changes}))
                target, _ = self.imported(folder)
                done = tessera.run("-m", tessera.model(), *ask, *flags)
                self.assertEqual(done.stdout, tessera.run("-m", target, *ask).stdout)
                self.assertNotEqual(done.stdout, plain)
                self.assertIn("positions are not scaled as the model was made", done.stderr)

    def test_a_context_beyond_the_models_on_request(self):
        ask = ("-m", tessera.model(), "-p", "Hi", "--max-tokens", "2")
        for flags, tokens in ((("--ctx", "3000", "--rope-scaling", "none"), 3000), (("--rope-scale", "2"), 2048),
                              (("--ctx", "3000"), 1024)):
            done = tessera.run(*ask, *flags)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn(f"({tokens} tokens at ", done.stderr)
        for flags in (("--rope-scaling", "dynamic"), ("--rope-scale", "0.5"), ("--yarn-orig-ctx", "100"),
                      ("--rope-scale", "2", "--rope-freq-scale", "0.5")):
            self.assertEqual(tessera.run(*ask, *flags).returncode, 2, flags)


if __name__ == "__main__":
    unittest.main()
