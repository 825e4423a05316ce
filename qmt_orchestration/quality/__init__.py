"""What is checked: names, severities and limits of the checks. No Dagster here."""
