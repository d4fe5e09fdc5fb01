"""
Anthropic's protocol: messages, how many tokens they have, and which models there are.

Belongs here: what clients send and how they are answered. What is carried, mapped
and refused stands in `docs/reference/anthropic.md`, field by field.

Source: the types of Anthropic's published client, release 2.14, and its API reference.
"""
