"""
Frozen values and pure decisions.

Belongs here: what the words of the product mean, and every decision that can be
made from values alone. Does not: I/O, a clock, randomness. The same functions
run production and simulation.
"""
