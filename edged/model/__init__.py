"""The network: its float description, its integer form, and the package that carries it.

    skeleton -> stgcn -> fold -> quantise -> reference (layers, bounds) -> tensors -> package
                           \\--> onnx_export

Imports point left. Nothing here touches a device; only ``package`` imports cryptography and cbor2,
only ``onnx_export`` imports onnx.
"""
