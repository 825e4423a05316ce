-- Replace a bar by hand, or take that back (active = 0): values as given, or those of QMT's own bar where from_qmt.
INSERT INTO bar_overrides (symbol, frame, active, open, high, low, close, vol, amount, reason, author)
SELECT {symbol:String}, {frame:DateTime('Asia/Shanghai')}, {active:UInt8}, b.1, b.2, b.3, b.4, b.5, b.6, {reason:String}, {author:String}
FROM (SELECT if({from_qmt:UInt8} = 1, (SELECT (any(open), any(high), any(low), any(close), any(vol), any(amount)) FROM qmt_bars FINAL
                                     WHERE period = '1m' AND symbol = {symbol:String} AND frame = {frame:DateTime('Asia/Shanghai')}),
             ({open:Float64}, {high:Float64}, {low:Float64}, {close:Float64}, {vol:Int64}, {amount:Float64})) AS b)
