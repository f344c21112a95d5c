"""Reads and writes ONNX graphs by protobuf alone: messages, a writer, and parts that are used in other graphs."""
