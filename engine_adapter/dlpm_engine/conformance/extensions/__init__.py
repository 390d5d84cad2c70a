"""The rules for logs of engines that run an extension of the plain algorithm: one a file, by name in `registry`."""
