-- Whether QMT's own minute bar of a symbol and frame was fetched.
SELECT count() FROM qmt_bars WHERE period = '1m' AND symbol = {symbol:String} AND frame = {frame:DateTime('Asia/Shanghai')}
