"""
Ollama's protocol: chat, generate and embed, and what its clients ask about models.

Belongs here: what comes in and how it is answered. Asking an Ollama server is not
here: it speaks the OpenAI dialect as well.

Source: Ollama's API reference (docs/api.md of its repository).
"""
