-- Merges of ticks join more parts at once: at a few inserts a second they write each row a third as often (docs/performance.md); a
-- statement meets twice the parts.
ALTER TABLE ticks $on_cluster MODIFY SETTING merge_selector_base = 12;
