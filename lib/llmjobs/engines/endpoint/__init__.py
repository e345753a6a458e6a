"""Models behind an OpenAI-compatible server: replies always, log-likelihoods where a probe proves that it has them."""
