"""Pilothouse: the control room for generative AI in production."""

__version__ = "0.1.0"
