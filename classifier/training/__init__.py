"""Offline training of the embedded model; not part of the installed package."""
