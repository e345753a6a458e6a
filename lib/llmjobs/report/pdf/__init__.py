"""Lay out blocks as a PDF, using reportlab."""
