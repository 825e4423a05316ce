-- A table with the columns, key and life time of another one.
CREATE TABLE IF NOT EXISTS {table:Identifier} $on_cluster AS $like
