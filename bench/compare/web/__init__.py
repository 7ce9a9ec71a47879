"""What the page of a report is made of: tables, charts, words."""
