"""
Google's Gemini API: how it is asked and what it answers. Pure.

Source: the Gemini API reference, v1: `generateContent`, `streamGenerateContent`
and `batchEmbedContents`.
"""
