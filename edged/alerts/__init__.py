"""From sealed records to the city's subscribers."""
