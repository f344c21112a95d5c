"""ONNX's messages by protobuf alone: what assembling a graph reads and writes of them. The onnx package is not needed.

Fields of onnx.proto that are not listed here are kept as they are when a message is read and written again.
"""

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_Field = descriptor_pb2.FieldDescriptorProto
_INT64, _INT32, _FLOAT = _Field.TYPE_INT64, _Field.TYPE_INT32, _Field.TYPE_FLOAT
_STRING, _BYTES = _Field.TYPE_STRING, _Field.TYPE_BYTES
_ONE, _MANY = _Field.LABEL_OPTIONAL, _Field.LABEL_REPEATED

# onnx.proto: message -> field -> (number, label, type or name of a message).
_SCHEMA: "dict[str, dict[str, tuple[int, _Field.Label.ValueType, _Field.Type.ValueType | str]]]" = {
    "Entry": {"key": (1, _ONE, _STRING), "value": (2, _ONE, _STRING)},
    "Tensor": {
        "dims": (1, _MANY, _INT64),
        "data_type": (2, _ONE, _INT32),
        "float_data": (4, _MANY, _FLOAT),
        "name": (8, _ONE, _STRING),
        "raw_data": (9, _ONE, _BYTES),
        "external_data": (13, _MANY, "Entry"),
        "data_location": (14, _ONE, _INT32),
    },
    "Dimension": {"dim_value": (1, _ONE, _INT64), "dim_param": (2, _ONE, _STRING)},
    "Shape": {"dim": (1, _MANY, "Dimension")},
    "TensorType": {"elem_type": (1, _ONE, _INT32), "shape": (2, _ONE, "Shape")},
    "Type": {"tensor_type": (1, _ONE, "TensorType")},
    "ValueInfo": {"name": (1, _ONE, _STRING), "type": (2, _ONE, "Type")},
    "Attribute": {
        "name": (1, _ONE, _STRING),
        "f": (2, _ONE, _FLOAT),
        "i": (3, _ONE, _INT64),
        "s": (4, _ONE, _BYTES),
        "t": (5, _ONE, "Tensor"),
        "g": (6, _ONE, "Graph"),
        "floats": (7, _MANY, _FLOAT),
        "ints": (8, _MANY, _INT64),
        "graphs": (11, _MANY, "Graph"),
        "type": (20, _ONE, _INT32),
    },
    "Node": {
        "input": (1, _MANY, _STRING),
        "output": (2, _MANY, _STRING),
        "name": (3, _ONE, _STRING),
        "op_type": (4, _ONE, _STRING),
        "attribute": (5, _MANY, "Attribute"),
        "domain": (7, _ONE, _STRING),
    },
    "Graph": {
        "node": (1, _MANY, "Node"),
        "name": (2, _ONE, _STRING),
        "initializer": (5, _MANY, "Tensor"),
        "input": (11, _MANY, "ValueInfo"),
        "output": (12, _MANY, "ValueInfo"),
        "value_info": (13, _MANY, "ValueInfo"),
        "sparse_initializer": (15, _MANY, "Entry"),
    },
    "OperatorSet": {"domain": (1, _ONE, _STRING), "version": (2, _ONE, _INT64)},
    "Model": {
        "ir_version": (1, _ONE, _INT64),
        "producer_name": (2, _ONE, _STRING),
        "graph": (7, _ONE, "Graph"),
        "opset_import": (8, _MANY, "OperatorSet"),
        "functions": (25, _MANY, "Entry"),
    },
}
_PACKAGE = "diffood.onnx"


def _make_classes() -> dict[str, Any]:
    """Message classes in a pool of their own, so that the onnx package may be imported too."""
    file = descriptor_pb2.FileDescriptorProto(name="diffood/onnx.proto", package=_PACKAGE, syntax="proto2")
    for name, fields in _SCHEMA.items():
        message = file.message_type.add(name=name)
        for field, (number, label, kind) in fields.items():
            entry = message.field.add(name=field, number=number, label=label)
            if isinstance(kind, str):
                entry.type, entry.type_name = _Field.TYPE_MESSAGE, f".{_PACKAGE}.{kind}"
            else:
                entry.type = kind
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}")) for name in _SCHEMA}


_CLASSES = _make_classes()
Model, Graph, Node, Tensor, ValueInfo, Attribute = (
    _CLASSES[name] for name in ("Model", "Graph", "Node", "Tensor", "ValueInfo", "Attribute")
)

# TensorProto.DataType and AttributeProto.AttributeType
FLOAT, UINT8, INT32, INT64, BOOL, FLOAT16 = 1, 2, 6, 7, 9, 10
INT_ATTRIBUTE, GRAPH_ATTRIBUTE, INTS_ATTRIBUTE = 2, 5, 7
