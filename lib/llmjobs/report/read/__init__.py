"""Readers: each turns one path into one :class:`RawRun`; ``formats`` recognises which one a path needs."""
