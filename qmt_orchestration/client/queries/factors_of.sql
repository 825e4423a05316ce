-- Dividend events of some symbols (none = all) with first <= ex_date <= last.
SELECT toString(f.symbol) AS symbol, ex_date, interest, stock_bonus, stock_gift, allot_num, allot_price, dr
FROM adjust_factors AS f FINAL
WHERE (empty({symbols:Array(String)}) OR f.symbol IN {symbols:Array(String)}) AND ex_date >= {first:Date32} AND ex_date <= {last:Date32}
ORDER BY symbol, ex_date
