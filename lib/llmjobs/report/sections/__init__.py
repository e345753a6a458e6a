"""The report's chapters on questions and answers. Each feature has its chapter in its own folder."""
