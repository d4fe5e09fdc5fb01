"""
Everything that touches the world, a folder a port, blind to each other.

Foreign errors are translated here, once. Adapters take plain arguments, never
`Settings`. Only `app` names them.
"""
