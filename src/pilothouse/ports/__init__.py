"""
What the use cases ask of the world, as Protocols only.

Each port has a public fake in `pilothouse.testing`, one conformance suite in
`tests/conformance`, and adapters that pass it.
"""
