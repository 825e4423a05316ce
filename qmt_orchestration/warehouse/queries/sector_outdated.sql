-- Remove what an earlier fetch of the same day and sectors had beside the members of the newest one.
DELETE FROM sector_members
WHERE day = {day:Date} AND toString(sector) IN {sectors:Array(String)}
  AND NOT has({keys:Array(Tuple(String, String))}, (toString(sector), toString(symbol)))
