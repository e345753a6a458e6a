"""Measuring a machine: child processes and their clocks, energy, CPU counters, speed, and probes of what really works.

Modules that name torch run in a child process or import it only when called; see ``docs/measuring.md``.
"""
