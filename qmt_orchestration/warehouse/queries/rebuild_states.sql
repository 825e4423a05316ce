-- The states of a day's ticks once more, into {target}. Repeats of a tick change nothing, so stored duplicates need no FINAL.
INSERT INTO {target:Identifier}
    (symbol, frame, first_price, last_price, price_high, price_low, day_open, day_high, day_low, pre_close, cum_volume, cum_amount,
     continuous_volume, baselines, snapshots, suspended, last_time, quality, rows_in, updated)
$states
