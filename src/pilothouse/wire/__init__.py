"""
Pure codecs between a protocol's bytes and domain values, both directions.

Used inbound by the gateway and outbound by the engine adapters. No I/O.
"""
