"""Everything beside the PDF: figures as files, tables as CSV and JSON, notes, the HTML page."""
