INSERT INTO FUNCTION file({path:String}, {format:String}, {structure:String})
SELECT * FROM {table:Identifier} WHERE _partition_id = {partition:String}
