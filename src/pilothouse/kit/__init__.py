"""
Pieces that could each be a library of their own.

Belongs here: mechanisms that know nothing about models, tenants or endpoints
(an HTTP exchange, a sealed journal, a backoff). Does not: anything that names a
thing of the domain. Everyone may import it; it imports nothing of ours.
"""
