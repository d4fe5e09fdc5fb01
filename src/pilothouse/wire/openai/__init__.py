"""
The OpenAI dialect: chat completions, completions, embeddings, models.

`inbound` reads what clients send, `outbound` is how we ask engines that speak
the same dialect and read what they say, `answers` writes what clients get.
"""
