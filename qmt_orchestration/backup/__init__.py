"""`qmt backup` and `qmt restore`: the warehouse, Dagster's database and the settings, in one folder.

`manifest` is what the folder holds and how it is checked; `partitions` moves one partition of one table out or in;
`dagster_home` does the same for Dagster's storage; `save` and `restore` put them together. Nothing here names a table
or a column: what there is comes from ClickHouse's system tables, so a change of the schema needs no change here.

A backup is incremental by partition (a day of ticks and minute bars, a month of the other bars): one whose parts have
not changed since the last backup is not read again. Files are never overwritten, the manifest is replaced last and in
one step: an interrupted backup leaves the one before it whole.
"""
