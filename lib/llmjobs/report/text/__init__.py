"""Prepare text in any script for printing: make the invisible visible, join Arabic letters, order directions."""
