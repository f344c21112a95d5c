"""Finds the tensors that an ONNX file keeps in another file, from its bytes alone.

An engine may follow such a path to any file of the machine, and only files that the manifest hashes may be opened. So
the only form accepted is the one an export writes: weights of the graph itself, each field once.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

# Field numbers of onnx.proto by which a tensor can be reached: message -> field -> message of that field.
_CHILDREN = {
    "model": {7: "main graph", 20: "training", 25: "function"},
    "main graph": {1: "node", 5: "weight", 15: "sparse"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "weight": {},
    "tensor": {},
}
_GRAPHS = ("main graph", "graph")
_DESCRIPTIONS = (11, 12, 13, 14)  # of a graph: inputs, outputs, shapes inside, quantisation
_BYTES_PER_FIELD = 4  # of a description; the shortest dimension has two
_DIMS, _DATA_TYPE, _NAME, _EXTERNAL_DATA, _DATA_LOCATION = 1, 2, 8, 13, 14  # of TensorProto
_INSIDE, _OUTSIDE = 0, 1  # values of data_location
_KEY, _VALUE = 1, 2  # of an entry of external_data
MAX_FIELDS = 1_000_000  # of a file; UNets of thousands of nodes have some hundred thousand
_PLACES = {"location", "offset", "length"}
_MAX_DIMS = 8
_MAX_DIGITS = 20
_MAX_TEXT = 500
_MAX_VARINT_BYTES = 10


@dataclass(frozen=True)
class ExternalTensor:
    """A weight in another file: `length` bytes from `offset` on; data_type is ONNX's number of the type."""

    name: str
    data_type: int
    dims: tuple[int, ...]
    location: str
    offset: int
    length: int


class StrayTensorError(ValueError):
    """A tensor outside the file in a form that no export writes."""


def find_external_data(model: bytes) -> list[ExternalTensor]:
    """The weights of a serialised ONNX model that are in other files, in its order.

    Raises ValueError if it is not a protobuf message, StrayTensorError for a tensor outside that no export writes.
    """
    waiting, found, count = [("model", memoryview(model))], [], 0
    while waiting:
        message, data = waiting.pop()
        outside = False
        for number, value in read_fields(data):
            count += 1
            if message in _GRAPHS and number in _DESCRIPTIONS and isinstance(value, memoryview):
                count += len(value) // _BYTES_PER_FIELD
            if count > MAX_FIELDS:
                raise ValueError(f"more than {MAX_FIELDS} fields")
            if message in ("weight", "tensor"):
                outside |= number == _EXTERNAL_DATA or (number == _DATA_LOCATION and value != _INSIDE)
            elif isinstance(value, memoryview) and number in _CHILDREN[message]:
                waiting.append((_CHILDREN[message][number], value))
        if outside and message == "tensor":
            raise StrayTensorError("a tensor that is not one of the graph's own weights")
        if outside:
            found.append(_read_weight(data))
    return found[::-1]  # the last was looked at first


def _read_weight(data: memoryview) -> ExternalTensor:
    dims: list[int] = []
    once: dict[int, int | memoryview] = {}
    places: dict[str, str] = {}
    for number, value in read_fields(data):
        if number == _DIMS:
            dims.extend(itertools.islice(read_numbers(value), _MAX_DIMS + 1))
        elif number == _EXTERNAL_DATA and isinstance(value, memoryview):
            entry = dict(read_fields(value))
            key = _text(entry.get(_KEY))
            if entry.keys() != {_KEY, _VALUE} or key in places:
                raise StrayTensorError(f"{key!r} twice, or together with another field")
            places[key] = _text(entry[_VALUE])
        elif number in once or number not in (_DATA_TYPE, _NAME, _DATA_LOCATION):
            raise StrayTensorError(f"field {number} of a weight twice, or a field that is not allowed there")
        else:
            once[number] = value
    kind = once.get(_DATA_TYPE)
    if once.get(_DATA_LOCATION) != _OUTSIDE or not isinstance(kind, int) or places.keys() != _PLACES:
        raise StrayTensorError("a weight without its type, or without location, offset and length")
    if len(dims) > _MAX_DIMS:
        raise StrayTensorError(f"a weight of {len(dims)} dimensions")
    offset, length = _whole(places["offset"]), _whole(places["length"])
    return ExternalTensor(_text(once.get(_NAME)), kind, tuple(dims), places["location"], offset, length)


def read_numbers(value: int | memoryview) -> Iterator[int]:
    """A repeated number: one per field, or several packed into one field."""
    if isinstance(value, int):
        yield value
        return
    at = 0
    while at < len(value):
        number, at = _varint(value, at)
        yield number


def _text(value: int | memoryview | None) -> str:
    if not isinstance(value, memoryview) or len(value) > _MAX_TEXT:
        raise StrayTensorError(f"no text of at most {_MAX_TEXT} bytes where a name or a place is expected")
    return bytes(value).decode()


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= _MAX_DIGITS):
        raise StrayTensorError(f"{text[:_MAX_DIGITS]!r} where a whole number is expected")
    return int(text)


def read_fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """(number, value) of each field of a protobuf message, in its order. Raises ValueError where it is none."""
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
