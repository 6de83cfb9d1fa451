"""Plumbing: each module knows one library, and none of the others."""
