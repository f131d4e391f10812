"""The operator's page: what the proxy and the classifier do now, read from their public ports."""
