"""Operators: one module per platform over one shared base."""
