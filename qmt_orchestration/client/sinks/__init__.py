"""Other stores for the bars of the stream, each a consumer of about fifty lines: copy one to add yours.

A sink writes a batch under a name that follows from the batch, then acknowledges. A crash in between makes the same
batch come again, and the second writing replaces the first.
"""
