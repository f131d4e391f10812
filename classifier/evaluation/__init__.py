"""How well requests are labelled: measured on labelled rows, or compared on recorded traffic."""
