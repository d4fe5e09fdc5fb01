"""
Governance: what is kept for how long, and later consent, erasure and evidence.

Belongs here: use cases about people's rights and duties to prove. Does not: the
request path. May import ports and below; knows no adapter and no other plane.
"""
