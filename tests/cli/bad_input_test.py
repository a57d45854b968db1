"""Files that are broken in one place: each is refused with exit code 1 and one line that names the fault."""

import copy
import json
import math
import os
import re
import shutil
import struct
import unittest

import tessera
from tess_bytes import TessBytes, xxh64


def text_of(header):
    return json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()


def _set(path, value):
    """A change of one header field; value may be a function of the old one."""
    def change(file):
        place = file.header
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value(place[path[-1]]) if callable(value) else value
        return file.encode()
    return change


def _remove(path):
    def change(file):
        place = file.header
        for key in path[:-1]:
            place = place[key]
        del place[path[-1]]
        return file.encode()
    return change


def _tensor(tensor, **fields):
    def change(file):
        file.tensor(tensor).update(fields)
        return file.encode()
    return change


def _bytes(edit):
    """A change of the finished bytes."""
    def change(file):
        return edit(bytearray(file.encode()))
    return change


def _poke(offset, data):
    def edit(whole):
        whole[offset:offset + len(data)] = data
        return whole
    return _bytes(edit)


def _text(edit):
    """A change of the header's text, with the right hash again."""
    return lambda file: file.encode(edit(text_of(file.header)))


def _duplicate(file):
    file.header["tensors"].append(copy.deepcopy(file.header["tensors"][0]))
    return file.encode()


def _word(name, index, value):
    """A change of one u32 in a tensor, with its hash put right."""
    def change(file):
        where = file.bytes_of(name)
        struct.pack_into("<I", file.tail, where.start + 4 * index, value)
        file.tensor(name)["xxh64"] = f"{xxh64(bytes(file.tail[where])):016x}"
        return file.encode()
    return change


# what is wrong, how to make it, a part of the line
TESS = [
    ("wrong magic", _poke(0, b"GGUX"), "magic"),
    ("newer version", _poke(8, struct.pack("<I", 2)), "version"),
    ("unknown flags", _poke(12, struct.pack("<I", 1)), "flags"),
    ("header longer than the file", _poke(16, struct.pack("<Q", 1 << 40)), "header bytes"),
    ("header longer than 64 MiB", _poke(16, struct.pack("<Q", (64 << 20) + 1)), "header bytes"),
    ("header of no bytes", _poke(16, struct.pack("<Q", 0)), "header"),
    ("truncated", _bytes(lambda whole: whole[:-1]), "file bytes"),
    ("cut in the header", _bytes(lambda whole: whole[:1000]), ""),
    ("cut in the prefix", _bytes(lambda whole: whole[:40]), ""),
    ("empty", _bytes(lambda whole: b""), ""),
    ("appended to", _bytes(lambda whole: whole + b"\0"), "file bytes"),
    ("header hash", _poke(100, b"#"), "hash"),
    ("header is an array", _text(lambda text: b"[" + text + b"]"), "object"),
    ("header is cut JSON", _text(lambda text: text[:-1]), "JSON"),
    ("header is too deep", _text(lambda text: text[:-1] + b',"x":' + b"[" * 200 + b"]" * 200 + b"}"), "deep"),
    ("duplicate key", _text(lambda text: text[:-1] + b',"model":{}}'), "model"),
    ("no model", _remove(["model"]), "model"),
    ("unknown family", _set(["model", "family"], "gpt5"), "family"),
    ("vocabulary is text", _set(["model", "vocabulary"], "4096"), "vocabulary"),
    ("vocabulary disagrees with the embedding", _set(["model", "vocabulary"], 4097), "token_embedding"),
    ("hidden size of 0", _set(["model", "hidden"], 0), "hidden"),
    ("negative layers", _set(["model", "layers"], -1), "layers"),
    ("a layer more than there are tensors", _set(["model", "layers"], 7), "layers.6"),
    ("heads not divisible", _set(["model", "kv_heads"], 3), "heads"),
    ("head size odd", _set(["model", "head_dim"], 63), "head_dim"),
    ("context of 0", _set(["model", "context"], 0), "context"),
    ("norm epsilon negative", _set(["model", "norm_epsilon"], -1), "norm_epsilon"),
    ("KV precision of 7", _set(["quantization", "kv_bits"], 7), "kv_bits"),
    ("unknown scheme", _tensor("layers.0.q", scheme="w5a8"), "layers.0.q"),
    ("dimension of 0", _tensor("layers.0.q", shape=[256, 0]), "layers.0.q"),
    ("dimensions overflow", _tensor("layers.0.q", shape=[1 << 62, 1 << 62]), "layers.0.q"),
    ("shape of three", _tensor("layers.0.q", shape=[16, 16, 256]), "layers.0.q"),
    ("shape disagrees with the model", _tensor("layers.0.q", shape=[128, 512]), "layers.0.q"),
    ("bytes disagree with the shape", _tensor("layers.0.q", bytes=34815), "layers.0.q"),
    ("offset not aligned", _tensor("layers.0.q", offset=1081345), "layers.0.q"),
    ("offset past the end", _tensor("layers.0.q", offset=1 << 40), "layers.0.q"),
    ("tensors overlap", lambda file: _tensor("layers.0.q", offset=file.tensor("token_embedding")["offset"])(file),
     "layers.0.q"),
    ("duplicate tensor", _duplicate, "token_embedding"),
    ("missing tensor", _tensor("layers.2.up", name="layers.2.down_under"), "layers.2.up"),
    ("stop token out of range", _set(["chat", "stop_tokens"], [4096]), "stop_tokens"),
    ("template that cannot be parsed", _set(["chat", "template"], "{% for %}"), "template"),
    ("temperature is no number", _set(["generation", "temperature"], "warm"), "temperature"),
    ("unknown tokenizer", _set(["tokenizer", "kind"], "wordpiece"), "tokenizer"),
    ("special id out of range", _set(["tokenizer", "settings", "eos"], 4096), "eos"),
    ("added token out of range",
     _set(["tokenizer", "settings", "added"], lambda added: [*added[:-1], {**added[-1], "id": 4096}]), "added"),
    ("tokenizer vocabulary disagrees", _set(["tokenizer", "settings", "vocabulary"], 4000), "tokenizer"),
    ("broken split pattern",
     _set(["tokenizer", "settings", "pre_tokenizer"], lambda steps: [{**steps[0], "text": "(["}]), "pre_tokenizer"),
    ("token offsets run backwards", _word("tokenizer.offsets", 5, 0xFFFFFFFF), "tokenizer.offsets"),
    ("merge result out of range", _word("tokenizer.merges", 2, 0x7FFFFFFF), "tokenizer.merges"),
    ("character symbol out of range", _word("tokenizer.characters", 65, 0x7FFFFFFF), "tokenizer.characters"),
]


def _config(**changes):
    def change(folder):
        path = folder / "config.json"
        config = json.loads(path.read_text())
        for key, value in changes.items():
            if value is None:
                del config[key]
            else:
                config[key] = value
        path.write_text(json.dumps(config))
    return change


def _file(name, content):
    def change(folder):
        if content is None:
            (folder / name).unlink()
        else:
            (folder / name).write_bytes(content)
    return change


def _safetensors(edit):
    """A change of the header's dictionary and of the data behind it."""
    def change(folder):
        path = folder / "model.safetensors"
        whole = path.read_bytes()
        length = struct.unpack_from("<Q", whole)[0]
        header, data = json.loads(whole[8:8 + length]), bytearray(whole[8 + length:])
        result = edit(header, data)
        if isinstance(result, bytes):
            path.write_bytes(result)
            return
        text = json.dumps(header).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(data))
    return change


NORM = "model.norm.weight"
EMBEDDING = "model.embed_tokens.weight"


def _entry(name, **fields):
    return _safetensors(lambda header, data: header[name].update(fields))


def _tokenizer_json(edit):
    def change(folder):
        path = folder / "tokenizer.json"
        tokenizer = json.loads(path.read_text())
        edit(tokenizer)
        path.write_text(json.dumps(tokenizer))
    return change


def _infinite(header, data):
    struct.pack_into("<H", data, header[NORM]["data_offsets"][0], 0x7F80)


def _new_end(header, data):
    header[NORM]["data_offsets"] = [len(data), len(data) + 512]


def _too_wide(folder):
    """One layer whose down projection has a column more than its sums hold; the weights are a hole in the file."""
    _config(num_hidden_layers=1, intermediate_size=132105)(folder)
    path = folder / "model.safetensors"
    with path.open("rb") as file:
        header = json.loads(file.read(*struct.unpack("<Q", file.read(8))))
    shapes = {"gate_proj": [132105, 256], "up_proj": [132105, 256], "down_proj": [256, 132105]}
    kept, end = {}, 0
    for name, entry in header.items():
        if name == "__metadata__" or re.search(r"layers\.[1-9]", name):
            continue
        shape = shapes.get(name.split(".")[-2], entry["shape"])
        begin, end = end, end + 2 * math.prod(shape)
        kept[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(kept).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    os.truncate(path, 8 + len(text) + end)


CHECKPOINTS = [
    ("no config.json", _file("config.json", None), "config.json"),
    ("config.json is no JSON", _file("config.json", b"{"), "config.json"),
    ("config.json is a list", _file("config.json", b"[]"), "config.json"),
    ("unsupported family", _config(model_type="mamba", architectures=["MambaForCausalLM"]), "config.json"),
    ("no hidden size", _config(hidden_size=None), "hidden_size"),
    ("hidden size is text", _config(hidden_size="big"), "hidden_size"),
    ("hidden size disagrees", _config(hidden_size=320), "embed_tokens"),
    ("heads not divisible", _config(num_key_value_heads=3), "num_key_value_heads"),
    ("unsupported activation", _config(hidden_act="tanh"), "hidden_act"),
    ("unsupported rope scaling", _config(rope_scaling={"rope_type": "magic", "factor": 2.0}), "rope"),
    ("a layer too many", _config(num_hidden_layers=7), "layers.6"),
    ("a layer too few", _config(num_hidden_layers=5), "layers.5"),
    ("no weights", _file("model.safetensors", None), "safetensors"),
    ("empty weights", _file("model.safetensors", b""), "model.safetensors"),
    ("header longer than the file", _safetensors(lambda header, data: struct.pack("<Q", 1 << 40) + b"{}"),
     "model.safetensors"),
    ("header that does not begin with a brace",
     _safetensors(lambda header, data: struct.pack("<Q", 4) + b" {} " + bytes(data)), "model.safetensors"),
    ("duplicate tensor name",
     _safetensors(lambda header, data: struct.pack("<Q", 12) + b'{"a":1,"a":1' + bytes(data)), "model.safetensors"),
    ("unknown element type", _entry(NORM, dtype="F7"), NORM),
    ("element type that is no weight", _entry(NORM, dtype="I16"), NORM),
    ("shape disagrees with its bytes", _entry(NORM, shape=[255]), NORM),
    ("shape overflows", _entry(NORM, shape=[1 << 40, 1 << 40]), NORM),
    ("offsets past the end", _safetensors(_new_end), NORM),
    ("offsets backwards", _entry(NORM, data_offsets=[512, 0]), NORM),
    ("bytes that no tensor covers", _safetensors(lambda header, data: data.extend(b"\0" * 64)), "model.safetensors"),
    ("missing tensor", _safetensors(lambda header, data: header.update({"model.norm.wait": header.pop(NORM)})),
     NORM),
    ("infinite weight", _safetensors(_infinite), NORM),
    ("no tokenizer", _file("tokenizer.json", None), "tokenizer"),
    ("tokenizer.json is no JSON", _file("tokenizer.json", b"nope"), "tokenizer.json"),
    ("tokenizer of an unknown kind", _tokenizer_json(lambda t: t["model"].update(type="Unigram")), "tokenizer.json"),
    ("merge of pieces that are not there", _tokenizer_json(lambda t: t["model"]["merges"].append("qqqq zzzz")),
     "merges"),
    ("token id out of range", _tokenizer_json(lambda t: t["model"]["vocab"].update({"zzzzzzzz": 1 << 40})),
     "tokenizer.json"),
    ("broken pattern in the tokenizer",
     _tokenizer_json(lambda t: t.update(pre_tokenizer={"type": "Split", "pattern": {"Regex": "(["},
                                                       "behavior": "Isolated", "invert": False})), "tokenizer"),
    ("chat template that is not UTF-8", _file("chat_template.jinja", b"{{ 'caf\xe9' }}"),
     "bad-checkpoint/chat_template.jinja: expected text in UTF-8, found malformed characters at byte 9\n"),
    ("chat template that ends in a character", _file("chat_template.jinja", b"caf\xc3"),
     "bad-checkpoint/chat_template.jinja: expected text in UTF-8, found malformed characters at byte 5\n"),
    ("matrix too wide for its sums", _too_wide, "model.layers.0.mlp.down_proj.weight\": expected at most 132104 columns "
     "in scheme w4a8-g128, found 132105"),
    ("eos id out of range", _config(eos_token_id=4096), "eos_token_id"),
]


class BadInputTest(unittest.TestCase):
    def refused(self, done, fragment, name):
        self.assertEqual(done.returncode, 1, (name, done.returncode, done.stdout, done.stderr))
        self.assertEqual(done.stdout, "", name)
        self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
        self.assertTrue(done.stderr.startswith("tessera: "), done.stderr)
        self.assertIn(fragment, done.stderr)
        self.assertIn("bad", done.stderr, "the line names the file")

    def test_the_tools_of_this_test(self):
        self.assertEqual(xxh64(b""), 0xEF46DB3751D8E999)
        self.assertEqual(xxh64(b"abc"), 0x44BC2CF5AD770999)
        valid = tessera.model().read_bytes()
        self.assertEqual(TessBytes(valid).encode(), valid, "taken apart and put together it is the same file")

    def test_tess_files(self):
        valid = tessera.model().read_bytes()
        path = tessera.folder() / "bad.tess"
        for name, change, fragment in TESS:
            with self.subTest(name):
                path.write_bytes(change(TessBytes(valid)))
                for mmap in ((), ("--no-mmap",)):
                    self.refused(tessera.run("-m", path, "-p", "x", *mmap), fragment, name)

    def test_checkpoints(self):
        target = tessera.folder() / "from-bad.tess"
        for name, change, fragment in CHECKPOINTS:
            with self.subTest(name):
                folder = tessera.folder() / "bad-checkpoint"
                shutil.rmtree(folder, ignore_errors=True)
                shutil.copytree(tessera.CHECKPOINT, folder)
                change(folder)
                done = tessera.run("quantize", folder, "-o", target)
                self.refused(done, fragment, name)
                self.assertFalse(target.exists())

    def test_scales_are_checked_on_request(self):
        file = TessBytes(tessera.model().read_bytes())
        where = file.bytes_of("layers.1.v")
        struct.pack_into("<f", file.tail, where.stop - 4, float("nan"))
        file.tensor("layers.1.v")["xxh64"] = f"{xxh64(bytes(file.tail[where])):016x}"
        path = tessera.folder() / "bad-scale.tess"
        path.write_bytes(file.encode())
        done = tessera.run("inspect", path, "--verify")
        self.assertEqual(done.returncode, 1)
        self.assertIn("layers.1.v", done.stderr)
        self.assertIn("scale", done.stderr)

    def test_names_cannot_steer_the_terminal(self):
        file = TessBytes(tessera.model().read_bytes())
        file.header["model"]["name"] = "evil\x1b[2J\nname"
        path = tessera.folder() / "bad-name.tess"
        path.write_bytes(file.encode())
        for done in (tessera.run("inspect", path), tessera.run("-m", path, "-p", "Hi", "--max-tokens", "1", "--verbose")):
            self.assertNotIn("\x1b", done.stdout + done.stderr)


if __name__ == "__main__":
    unittest.main()
