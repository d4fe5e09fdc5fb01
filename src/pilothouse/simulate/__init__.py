"""
The simulation: production's own decisions over virtual replicas and traffic.

Here are the scenario, the traffic, the virtual engine and the order of events.
Decisions are not: they are `domain`'s, the very functions that production calls.
May import domain and kit, as the other use cases do; the command line calls it.
"""
