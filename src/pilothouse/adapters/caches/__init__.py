"""Caches of answers: in the memory of a worker, and in Redis for several of them."""
