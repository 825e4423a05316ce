"""Everything that imports Dagster: assets, checks, sensors, jobs, schedules, partitions, resources and backfill."""
