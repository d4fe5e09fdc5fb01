"""
What the benches share: pinning, instruments, peers, a gateway worker, a whole server, statistics, tables.

Not here: what is measured. Each `bench/*.py` says that itself, and runs by its own.
"""
