"""The engines that run models, one for each library."""
