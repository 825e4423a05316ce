-- Sectors whose members are stored, and since when.
SELECT toString(sector), min(day) FROM sector_members GROUP BY sector ORDER BY sector
