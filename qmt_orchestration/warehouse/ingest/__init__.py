"""The steps of a lane of the writer: entries decoded and checked, inserts planned, made, and acknowledged.

`entries` decodes, `checks` judges rows, `plan` decides what forms an insert, `insert` writes to ClickHouse, `commit` to
Redis. `warehouse.lane` calls them in this order. How the streams are read is no part of it.
"""
