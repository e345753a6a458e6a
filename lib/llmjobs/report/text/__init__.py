"""Text of any script on its way to paper: the invisible shown, Arabic joined, directions ordered."""
