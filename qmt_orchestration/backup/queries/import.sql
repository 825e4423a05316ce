INSERT INTO {table:Identifier}
SELECT * FROM file({path:String}, {format:String}, {structure:String})
