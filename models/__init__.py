"""Policies: what encodes observations, the network, and what decodes actions."""
