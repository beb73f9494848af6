"""The network: its float description, its integer form, and the package that carries it.

    skeleton <- stgcn <- fold <- calibrate <- scale <- quantise        float to integer
                          ^-- onnx_export                              float, unprotected
    layers <- bounds <- reference <- quantise                          integer
              bounds <- manifest, tensors <- package                   sealed for the enclave
    network, quantise <- bundled                                       the network that comes with edged
    quantise, calibrate <- report, rivals                              what quantising costs

Arrows point from what imports to what is imported. Nothing here touches a device; only ``package`` imports
cryptography, only ``onnx_export`` onnx, only ``report`` matplotlib.
"""
