"""The .tess file as bytes, taken apart and put together again so that tests can break it in one place."""

import json
import struct

ALIGNMENT = 4096
_MASK = (1 << 64) - 1
_PRIMES = (0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5)


def _rotate(value, bits):
    return ((value << bits) | (value >> (64 - bits))) & _MASK


def _round(lane, word):
    return _rotate((lane + word * _PRIMES[1]) & _MASK, 31) * _PRIMES[0] & _MASK


def xxh64(data):
    """XXH64 with seed 0, as the format's hashes are."""
    at = 0
    if len(data) >= 32:
        lanes = [(_PRIMES[0] + _PRIMES[1]) & _MASK, _PRIMES[1], 0, -_PRIMES[0] & _MASK]
        while at + 32 <= len(data):
            for i, word in enumerate(struct.unpack_from("<4Q", data, at)):
                lanes[i] = _round(lanes[i], word)
            at += 32
        value = sum(_rotate(lane, bits) for lane, bits in zip(lanes, (1, 7, 12, 18))) & _MASK
        for lane in lanes:
            value = ((value ^ _round(0, lane)) * _PRIMES[0] + _PRIMES[3]) & _MASK
    else:
        value = _PRIMES[4]
    value = (value + len(data)) & _MASK
    while at + 8 <= len(data):
        value ^= _round(0, struct.unpack_from("<Q", data, at)[0])
        value = (_rotate(value, 27) * _PRIMES[0] + _PRIMES[3]) & _MASK
        at += 8
    if at + 4 <= len(data):
        value ^= struct.unpack_from("<I", data, at)[0] * _PRIMES[0] & _MASK
        value = (_rotate(value, 23) * _PRIMES[1] + _PRIMES[2]) & _MASK
        at += 4
    for byte in data[at:]:
        value ^= byte * _PRIMES[4] & _MASK
        value = _rotate(value, 11) * _PRIMES[0] & _MASK
    value = (value ^ (value >> 33)) * _PRIMES[1] & _MASK
    value = (value ^ (value >> 29)) * _PRIMES[2] & _MASK
    return value ^ (value >> 32)


class TessBytes:
    """A file's header as a dictionary and the rest as bytes."""

    def __init__(self, data):
        _, self.version, self.flags, length, _, _ = struct.unpack_from("<8sIIQQQ", data)
        self.header = json.loads(data[64:64 + length])
        self.tail = bytearray(data[-(-(64 + length) // ALIGNMENT) * ALIGNMENT:])  # the tensors
        self._start = len(data) - len(self.tail)

    def tensor(self, name):
        return next(record for record in self.header["tensors"] if record["name"] == name)

    def bytes_of(self, name):
        """Where a tensor lies in tail, as a slice."""
        record = self.tensor(name)
        begin = record["offset"] - self._start
        return slice(begin, begin + record["bytes"])

    def encode(self, text=None):
        """The file again, with right hash and sizes. text stands for the header's JSON. A header that needs
        another number of pages moves the tensors' offsets."""
        if text is None:
            text = json.dumps(self.header, separators=(",", ":"), ensure_ascii=False).encode()
        padded = -(-(64 + len(text)) // ALIGNMENT) * ALIGNMENT
        prefix = struct.pack("<8sIIQQQ24x", b"TESSERA\0", self.version, self.flags, len(text),
                             padded + len(self.tail), xxh64(text))
        return (prefix + text).ljust(padded, b"\0") + bytes(self.tail)
