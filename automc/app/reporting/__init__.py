"""A study as one document: what was asked, what came out, what mattered, how to repeat it.

``found.py`` reads the database, ``sections.py`` and ``outcome.py`` turn that into a document, ``html.py`` and
``markdown.py`` write the document; the pictures are SVG made by hand.
"""
