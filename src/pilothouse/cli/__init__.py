"""
The command line: a client of a running server, or a caller of `app`.

Nothing may import it.
"""
