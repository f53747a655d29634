"""Readers of trained agents that other libraries saved."""
