"""
The data plane: the request path and nothing else.

`pipeline.py` is the request loop; each stage is one file. It lives on snapshots
and leases, and never waits for a database. May import ports and below.
"""
