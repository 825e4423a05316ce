-- What the gateway tells of an instrument beside the first columns. lot_size: units per 手; volumes in the instrument's own unit; null =
-- unknown (the vendor's sentinels 1.797e308, 2147483647, '0', 1970010x, 99999999 become null). source: the feed that told it.
ALTER TABLE instruments $on_cluster
    ADD COLUMN IF NOT EXISTS kind           LowCardinality(String) DEFAULT '',
    ADD COLUMN IF NOT EXISTS exchange       LowCardinality(String) DEFAULT '',
    ADD COLUMN IF NOT EXISTS lot_size       UInt32 DEFAULT 0,
    ADD COLUMN IF NOT EXISTS price_tick     Float64 DEFAULT 0,
    ADD COLUMN IF NOT EXISTS decimals       UInt8 DEFAULT 0,
    ADD COLUMN IF NOT EXISTS open_date      Nullable(Date32),
    ADD COLUMN IF NOT EXISTS expire_date    Nullable(Date32),
    ADD COLUMN IF NOT EXISTS float_volume   Nullable(Float64),
    ADD COLUMN IF NOT EXISTS issued_volume  Nullable(Float64),
    ADD COLUMN IF NOT EXISTS suspended_days Nullable(UInt32),
    ADD COLUMN IF NOT EXISTS source         LowCardinality(String) DEFAULT '';
