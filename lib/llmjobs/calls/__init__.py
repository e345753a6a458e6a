"""Calls to OpenAI-compatible servers: HTTP, retries, refused parameters, spending, calls at the same time. No torch."""
