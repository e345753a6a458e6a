"""Measuring the machine: child processes, energy, CPU counters."""
