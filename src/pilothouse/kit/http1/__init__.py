"""
The data plane's HTTP/1.1 exchange, server and client, over httptools (llhttp).

Belongs here: framing, limits, timeouts, backpressure, connections. Does not:
what a path means. A proxy is what the data plane is, so it owns this exchange
(docs/adr/0001). HTTP/2 is a load balancer's job.

Source: RFC 9110 (semantics), RFC 9112 (HTTP/1.1).
"""
