-- First and last frame of a table of bars, 0 when it is empty.
SELECT toUnixTimestamp(min(frame)), toUnixTimestamp(max(frame)) FROM {table:Identifier} SETTINGS final = 0
