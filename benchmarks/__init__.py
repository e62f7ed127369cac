"""What a thousand waits cost, measured for this provider and for others, on the same work: ``make bench``.

``server`` is the platforms, ``client`` one scenario in a process of its own, ``subjects`` whom it is measured for,
``plan`` which scenarios there are, ``report`` what is written about them.
"""
