"""pytorch_model.bin files without torch: the pickle's steps are written out."""

import json
import struct
import zipfile

STORAGES = {"F32": ("FloatStorage", 4), "F16": ("HalfStorage", 2), "BF16": ("BFloat16Storage", 2)}


def text(value):
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def integer(value):
    return b"J" + struct.pack("<i", value)


def integers(values):
    return b"(" + b"".join(map(integer, values)) + b"t"


def tensor(kind, key, elements, shape, strides, offset=0):
    storage = b"(" + text("storage") + f"ctorch\n{kind}\n".encode() + text(key) + text("cpu") + integer(elements) + b"tQ"
    return (b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + integer(offset) + integers(shape) + integers(strides) +
            b"\x89ccollections\nOrderedDict\n)RtR")


def strides_of(shape):
    strides = []
    for size in reversed(shape):
        strides.insert(0, strides[0] * following if strides else 1)
        following = size
    return strides


def write(path, tensors):
    """tensors: {name: (safetensors type, shape, bytes)}."""
    items, contents = b"", []
    for name, (kind, shape, content) in tensors.items():
        storage, size = STORAGES[kind]
        items += text(name) + tensor(storage, str(len(contents)), len(content) // size, shape, strides_of(shape))
        contents.append(content)
    data = b"\x80\x02ccollections\nOrderedDict\n)R(" + items + b"u}" + text("_metadata") + b"}sb."
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("pytorch_model/data.pkl", data)
        archive.writestr("pytorch_model/byteorder", "little")
        for key, content in enumerate(contents):
            archive.writestr(f"pytorch_model/data/{key}", content)
        archive.writestr("pytorch_model/version", "3\n")


def read_safetensors(path):
    content = path.read_bytes()
    length, = struct.unpack("<Q", content[:8])
    header, data = json.loads(content[8:8 + length]), content[8 + length:]
    return {name: (entry["dtype"], entry["shape"], data[slice(*entry["data_offsets"])])
            for name, entry in header.items() if name != "__metadata__"}


def convert(source, target, shards=1):
    """The checkpoint folder with its model.safetensors as pytorch_model.bin, or as that many shards with an index."""
    for file in source.iterdir():
        if file.suffix != ".safetensors":
            (target / file.name).write_bytes(file.read_bytes())
    tensors = read_safetensors(source / "model.safetensors")
    if shards == 1:
        write(target / "pytorch_model.bin", tensors)
        return
    names = [f"pytorch_model-{i + 1:05}-of-{shards:05}.bin" for i in range(shards)]
    where = {tensor: names[i % shards] for i, tensor in enumerate(tensors)}
    for name in names:
        write(target / name, {each: tensors[each] for each in tensors if where[each] == name})
    (target / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
