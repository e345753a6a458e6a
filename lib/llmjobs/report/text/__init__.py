"""Text of any script on its way to paper: what is invisible is shown, Arabic is joined, right-to-left is ordered."""
