"""Sensors: one module per platform over one shared base."""
