"""Models behind an OpenAI-compatible server: replies always, log-likelihoods if a probe can verify them."""
