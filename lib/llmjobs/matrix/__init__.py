"""The matrix job: devices and precisions side by side, each cell in its own process."""
