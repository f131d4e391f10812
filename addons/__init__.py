"""The proxy side: a mitmproxy addon and the routing core beneath it."""
