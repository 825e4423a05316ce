"""What is checked: names, severities and limits of the checks, and how results are shown. No Dagster here."""
