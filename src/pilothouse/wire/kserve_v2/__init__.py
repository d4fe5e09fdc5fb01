"""
The Open Inference Protocol (KServe's v2): tensors in and out, as JSON or with raw bytes behind it.

Belongs here: requests, answers and errors in both directions, and the convention by
which a model of text is asked through tensors. Does not: gRPC, whose messages are
the adapter's.

Source: the Open Inference Protocol (kserve/open-inference-protocol, HTTP/REST), and
Triton's extensions for binary tensor data and `generate`.
"""
