"""The rules for logs that state extensions."""
