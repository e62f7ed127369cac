"""Carries a platform's calls over the wire: authentication, renewal, error mapping, retries, two drivers.

No module here knows a platform.
"""
