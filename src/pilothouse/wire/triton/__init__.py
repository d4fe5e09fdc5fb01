"""
Triton's generate extension: text in, pieces of text out, by the names that its repositories share.

Belongs here: the words of each kind of repository. Does not: the tensors of
protocol v2, which carry the same names (`wire.kserve_v2`).
"""
