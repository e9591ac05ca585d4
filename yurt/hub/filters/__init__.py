"""
What the hub changes on the way to the components of an edge node, as OpenYurt's filters do.

A filter is a pure function of an object and of :class:`~yurt.hub.filters.facts.Facts`; a :class:`~yurt.hub.filters.lens.Lens` is
a row of filters with the facts they look at.  What is cached is never filtered; what is told always is.
"""
