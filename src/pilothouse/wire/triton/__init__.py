"""
Text in, pieces of text out, by the names that Triton's repositories share.

Belongs here: the words of each kind of repository, as JSON of the generate extension
and as tensors. Does not: how tensors are written (`wire.kserve_v2`).
"""
