-- The newest day that has verdicts.
SELECT if(count() = 0, NULL, max(day)) FROM quality_results
