"""ONNX: translates the jaxpr of a program to an ONNX graph, and checks it with onnxruntime.

A network's program has about fifty different primitives, each of which is one or a few ONNX
operators (`elementwise`, `structure`, `products`, `loops`). Only the selective scan and
non-maximum suppression are written for ONNX by hand (`selective_scan`, `suppression`).
"""
