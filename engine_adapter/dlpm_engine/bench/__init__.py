"""What `dlpm bench` measures (docs/benchmarks.md)."""
