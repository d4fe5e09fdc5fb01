"""
The composition root: the only package that names concrete classes.

One module a process: `supervisor`, `controller`, `worker`.
"""
