"""
Routes and servers: path -> handler, and the shapes of answers.

Belongs here: the admin API, the health answers. Does not: decisions.
"""
