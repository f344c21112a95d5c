"""Tells whether an ONNX file keeps tensors in other files, from its bytes alone. Knows nothing else of ONNX.

An engine may follow such a path to any file of the machine; what the manifest does not hash is never opened.
"""

from collections.abc import Iterator

# Field numbers of onnx.proto by which a tensor can be reached: message -> field -> message of that field.
_CHILDREN = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14  # of TensorProto; location 0 is the file itself
_MAX_VARINT_BYTES = 10


def has_external_data(model: bytes) -> bool:
    """Whether any tensor of a serialised ONNX model lies outside it. Raises ValueError where it is no protobuf."""
    waiting = [("model", memoryview(model))]
    while waiting:
        message, data = waiting.pop()
        for number, value in _fields(data):
            if message == "tensor" and (number == _EXTERNAL_DATA or (number == _DATA_LOCATION and value != 0)):
                return True
            if isinstance(value, memoryview) and number in _CHILDREN[message]:
                waiting.append((_CHILDREN[message][number], value))
    return False


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        key &= 0xFFFFFFFF  # protobuf's own parser keeps 32 bits of a tag
        value: int | memoryview = 0
        match key & 7:
            case 0:  # varint
                value, at = _varint(data, at)
            case 1:  # 64 bits
                at += 8
            case 2:  # length and bytes
                size, at = _varint(data, at)
                value, at = data[at : at + size], at + size
            case 5:  # 32 bits
                at += 4
            case kind:  # groups are not in proto3
                raise ValueError(f"wire type {kind} at byte {at}")
        if at > len(data):
            raise ValueError("a field is longer than the file")
        yield key >> 3, value


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift, byte in enumerate(data[at : at + _MAX_VARINT_BYTES]):
        value |= (byte & 0x7F) << (7 * shift)
        if byte < 0x80:
            return value, at + shift + 1
    raise ValueError(f"an endless number at byte {at}")
