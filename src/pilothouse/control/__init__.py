"""
The control plane: makes what was declared so, and keeps it so.

`reconcile.py` is the loop. Only this plane writes the store. May import ports
and below; knows no adapter by name.
"""
