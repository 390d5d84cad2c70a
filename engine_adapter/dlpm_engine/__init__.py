"""Everything that touches an engine: conformance, differential tests, the tensor path, and the command line."""
