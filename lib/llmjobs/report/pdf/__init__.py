"""Puts blocks on paper by reportlab."""
