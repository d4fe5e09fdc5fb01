"""
Public fakes and conformance suites, for adapters of ours and of others.
"""
