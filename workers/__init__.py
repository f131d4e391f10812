"""Demo workers: one program that stands in for the three kinds of upstream the proxy serves."""
