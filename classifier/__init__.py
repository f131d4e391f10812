"""The classifier: what a request means, and what it costs to serve."""
