"""Exports one module to ONNX and proves it."""
