"""The steps of a lane of the writer: entries decoded and checked, inserts planned, made, and acknowledged.

`entries` decodes, `checks` judges rows, `plan` decides what forms an insert, `insert` speaks to ClickHouse, `commit` to
Redis. `warehouse.lane` calls them in this order. Nothing here knows how the streams are read.
"""
